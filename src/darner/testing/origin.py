"""An origin that counts: files of any size over HTTP or HTTPS on loopback, with ranges, HEAD, ETags and faults to switch on.

In code:

    with CountingOrigin({"/a.bin": 64 * 1024**2}) as origin:
        download(origin.url("/a.bin"))
        assert origin.body_bytes("/a.bin") == 64 * 1024**2
        origin.set_fault("/a.bin", Fault(status=503, times=1))

As a program: `python -m darner.testing.origin --port 0 --file big.bin=256MiB --log access.jsonl` prints `ready URL` and serves
until it is interrupted; `GET /-/counts` answers with requests and body bytes per path.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from darner.core.errors import InvalidInputError
from darner.core.ranges import ByteRange, parse_range_header
from darner.kit.units import parse_size
from darner.testing.content import Content
from darner.testing.httpd import Access, LoopbackServer, Reply, Request
from darner.testing.tls import Identity, make_identity

_MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one path. Combine freely; `times` limits it to the first so many requests (None: all)."""

    status: int | None = None  # answer so, with `header`, and no content
    header: Mapping[str, str] = field(default_factory=dict)  # added to every answer
    redirect_to: str | None = None  # 302 to this URL or path; to itself: a loop
    no_ranges: bool = False  # the Range header is ignored
    no_length: bool = False  # chunked, no Content-Length; HEAD does not tell it either
    drop_after: int | None = None  # the connection breaks after so many bytes of each body
    bytes_per_s: float = 0.0  # a slow sender
    changes_after: int | None = None  # the content (and its ETag) changes once so many bytes have left in all
    shifted_range: bool = False  # 206, but for another range than was asked for
    wrong_bytes: bool = False  # right length, wrong content, the same ETag
    times: int | None = None


class CountingOrigin:
    """Serves computed files on 127.0.0.1. Start and stop it, or use it as a context manager."""

    def __init__(
        self,
        files: Mapping[str, int] | None = None,
        *,
        port: int = 0,
        tls_dir: Path | None = None,
        log_file: Path | None = None,
    ) -> None:
        """`files`: path → size in bytes. `tls_dir`: serve HTTPS, with a new authority whose files lie there (`.ca_file`)."""
        self._identity: Identity | None = make_identity(tls_dir) if tls_dir else None
        self._files: dict[str, Content] = {}
        self._faults: dict[str, Fault] = {}
        self._hits: dict[str, int] = {}
        self._lock = threading.Lock()
        for path, size in (files or {}).items():
            self.add(path, size)
        self.server = LoopbackServer(self._answer, port=port, identity=self._identity, log_file=log_file)

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.server.stop()

    @property
    def ca_file(self) -> Path:
        """The certificate that clients of an HTTPS origin must trust."""
        assert self._identity is not None, "only with tls_dir"
        return self._identity.ca_file

    @property
    def log(self) -> list[Access]:
        """All exchanges so far, oldest first."""
        return self.server.log

    def url(self, path: str) -> str:
        """The URL of a path."""
        return self.server.base_url + path

    def add(self, path: str, size: int, *, seed: str | None = None) -> Content:
        """A new file (or another one at the same path)."""
        with self._lock:
            self._files[path] = Content(size, seed or path)
            return self._files[path]

    def content(self, path: str) -> Content:
        """What a path serves now."""
        return self._files[path]

    def sha256(self, path: str) -> str:
        """The digest of what a path serves now, in hex."""
        return self._files[path].sha256()

    def change(self, path: str) -> Content:
        """Give a path other content of the same size, with another ETag."""
        with self._lock:
            old = self._files[path]
            self._files[path] = Content(old.size, f"{old.seed}'")
            return self._files[path]

    def set_fault(self, path: str, fault: Fault | None) -> None:
        """Switch a fault on, or off with None; its count of requests and bytes begins at 0."""
        with self._lock:
            self._hits.pop(path, None)
            self._faults.pop(path, None)
            if fault is not None:
                self._faults[path] = fault

    def requests(self, path: str | None = None, *, method: str | None = None) -> int:
        """How many requests came for one path or for all."""
        return self.server.requests(path, method=method)

    def body_bytes(self, path: str | None = None) -> int:
        """How many body bytes left for one path or for all."""
        return self.server.body_bytes(path)

    def forget_counts(self) -> None:
        """Begin to count at 0."""
        self.server.forget()

    def _answer(self, request: Request) -> Reply:
        if request.path == "/-/counts":
            return Reply.of(json.dumps(self._counts()).encode(), header={"Content-Type": "application/json"})
        fault = self._fault_of(request.path)
        if fault.status is not None:
            return Reply.of(f"status {fault.status} as ordered\n".encode(), status=fault.status, header=fault.header)
        if fault.redirect_to is not None:
            return Reply(status=302, header={**fault.header, "Location": fault.redirect_to})
        content = self._files.get(request.path)
        if content is None:
            return Reply.of(b"no such file\n", status=404)
        return self._deliver(request, content, fault)

    def _fault_of(self, path: str) -> Fault:
        with self._lock:
            fault = self._faults.get(path, Fault())
            if fault.times is not None:
                self._hits[path] = self._hits.get(path, 0) + 1
                if self._hits[path] > fault.times:
                    return Fault()
            return fault

    def _deliver(self, request: Request, content: Content, fault: Fault) -> Reply:
        header = {
            "ETag": f'"{content.seed}-{content.size}"',
            "Last-Modified": _MODIFIED,
            "Content-Type": "application/octet-stream",
        }
        header |= {} if fault.no_ranges else {"Accept-Ranges": "bytes"}
        header |= fault.header
        span = ByteRange(start=0, length=content.size)
        status = 200
        wanted = "" if fault.no_ranges else request.header.get("range", "")
        if wanted and request.header.get("if-range", header["ETag"]) == header["ETag"]:
            try:
                span = parse_range_header(wanted, content.size)
            except InvalidInputError:
                return Reply.of(b"", status=416, header={**header, "Content-Range": f"bytes */{content.size}"})
            status = 206
            if fault.shifted_range:
                span = ByteRange(start=max(span.start - 1, 0), length=span.length)
            header["Content-Range"] = span.content_range(content.size)
        served = Content(content.size, content.seed + "?") if fault.wrong_bytes else content
        return Reply(
            status=status,
            header=header,
            body=served.read(span.start, span.end),
            length=None if fault.no_length else span.length,
            drop_after=fault.drop_after,
            bytes_per_s=fault.bytes_per_s,
            on_bytes=lambda count: self._sent(request.path, count, fault),
        )

    def _sent(self, path: str, count: int, fault: Fault) -> None:
        if fault.changes_after is None:
            return
        with self._lock:
            before = self._hits.get(path, 0)
            self._hits[path] = before + count
            crossed = before < fault.changes_after <= before + count
        if crossed:
            self.change(path)

    def _counts(self) -> dict[str, dict[str, int]]:
        return {path: {"requests": self.requests(path), "body_bytes": self.body_bytes(path)} for path in self._files}


def _parse_file(text: str) -> tuple[str, int]:
    name, equals, size = text.rpartition("=")
    if not equals:
        message = "expected NAME=SIZE, such as big.bin=256MiB"
        raise argparse.ArgumentTypeError(message)
    return "/" + name.lstrip("/"), parse_size(size)


def main(argv: list[str] | None = None) -> int:
    """The program; see the module's description."""
    parser = argparse.ArgumentParser(prog="python -m darner.testing.origin", description="Serve computed files and count bytes.")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--file", type=_parse_file, action="append", default=[], metavar="NAME=SIZE", dest="files")
    parser.add_argument("--log", type=Path, help="append one JSON line per request")
    parser.add_argument("--tls", action="store_true", help="HTTPS with an authority of its own; its file is printed after `ca `")
    options = parser.parse_args(argv)
    tls_dir = Path(tempfile.mkdtemp(prefix="darner-origin-")) if options.tls else None
    with CountingOrigin(dict(options.files), port=options.port, tls_dir=tls_dir, log_file=options.log) as origin:
        if tls_dir:
            print(f"ca {origin.ca_file}", flush=True)  # noqa: T201  (the program's output)
        print(f"ready {origin.server.base_url}", flush=True)  # noqa: T201
        try:
            origin.server.wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
