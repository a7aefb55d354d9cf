"""The read side of an OCI registry (distribution v2) on loopback: manifests by tag and digest, indexes, blobs with ranges, logins.

In code:

    layout = make_image(tmp_path / "image", layers=(200 * 1024**2, 1024**2))
    with SmallRegistry(auth="bearer", username="u", password="p") as registry:
        registry.add("team/app", "v1", layout)
        pull(registry.manifest_url("team/app", "v1"))
        assert registry.blob_bytes() == layout.blobs()

As a program:
`python -m darner.testing.registry --port 0 --image team/app:v1=DIR [--auth basic|bearer --username U --password-file FILE]`
prints `ready URL`; `GET /-/counts` answers with the body bytes per blob. It stores nothing: pushing is refused.
"""

import argparse
import base64
import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from darner.core.errors import InvalidInputError
from darner.core.ranges import ByteRange, parse_range_header
from darner.core.secret import Secret
from darner.testing.httpd import Access, LoopbackServer, Reply, Request
from darner.testing.image import ImageLayout, load_layout
from darner.testing.tls import Identity, make_identity

Auth = Literal["none", "basic", "bearer"]
_ROUTE = re.compile(r"/v2/(?P<repo>.+)/(?P<kind>manifests|blobs|tags)/(?P<ref>[^/]+)")
_CHUNK = 1024 * 1024


class SmallRegistry:
    """Serves image layouts. `auth`: none, HTTP basic, or a token from `/token` for the basic credentials, as Docker Hub does."""

    def __init__(
        self,
        *,
        port: int = 0,
        auth: Auth = "none",
        username: str = "",
        password: Secret | str = "",
        tls_dir: Path | None = None,
        log_file: Path | None = None,
    ) -> None:
        """`tls_dir`: serve HTTPS with a new authority whose files lie there (`.ca_file`). Set `bytes_per_s` to slow it down."""
        self.bytes_per_s = 0.0
        self._auth: Auth = auth
        text = password.reveal() if isinstance(password, Secret) else password
        self._basic = "Basic " + base64.b64encode(f"{username}:{text}".encode()).decode()
        self._tokens: dict[str, str] = {}
        self._identity: Identity | None = make_identity(tls_dir) if tls_dir else None
        self._blobs: dict[tuple[str, str], Path] = {}
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._tags: dict[str, list[str]] = {}
        self.server = LoopbackServer(self._answer, port=port, identity=self._identity, log_file=log_file)

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.server.stop()

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, as image references begin."""
        return self.server.address

    @property
    def ca_file(self) -> Path:
        """The certificate that clients of an HTTPS registry must trust."""
        assert self._identity is not None, "only with tls_dir"
        return self._identity.ca_file

    @property
    def log(self) -> list[Access]:
        """All exchanges so far, oldest first."""
        return self.server.log

    def add(self, repository: str, tag: str, layout: ImageLayout) -> None:
        """Serve an image under a tag and under its digests."""
        self.add_manifest(repository, tag, layout.root.media_type, layout.blob_path(layout.root.digest).read_bytes())
        self.add_manifest(repository, layout.root.digest, *self._manifests[repository, tag])
        for image in layout.images:
            manifest = layout.blob_path(image.manifest.digest).read_bytes()
            self.add_manifest(repository, image.manifest.digest, image.manifest.media_type, manifest)
        for digest in layout.blobs():
            self._blobs[repository, digest] = layout.blob_path(digest)
        self._tags.setdefault(repository, []).append(tag)

    def add_manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> None:
        """Serve any bytes as a manifest; for what clients must refuse."""
        self._manifests[repository, reference] = (media_type, body)

    def manifest_url(self, repository: str, reference: str) -> str:
        """What `darner preheat --type image` takes."""
        return f"{self.server.base_url}/v2/{repository}/manifests/{reference}"

    def blob_url(self, repository: str, digest: str) -> str:
        """Where a blob is served."""
        return f"{self.server.base_url}/v2/{repository}/blobs/{digest}"

    def blob_bytes(self) -> dict[str, int]:
        """Digest → body bytes that left, for every blob that was read at all."""
        found: dict[str, int] = {}
        for access in list(self.server.log):
            match = _ROUTE.fullmatch(access.path)
            if match and match["kind"] == "blobs" and access.body_bytes and access.status in (200, 206):
                found[match["ref"]] = found.get(match["ref"], 0) + access.body_bytes
        return found

    def forget_counts(self) -> None:
        """Begin to count at 0."""
        self.server.forget()

    def _answer(self, request: Request) -> Reply:
        if request.path == "/-/counts":
            return _json(self.blob_bytes())
        if request.method not in ("GET", "HEAD"):
            return _error(405, "UNSUPPORTED", "this registry only serves")
        if request.path == "/token":
            return self._token(request)
        match = _ROUTE.fullmatch(request.path)
        repository = match["repo"] if match else ""
        if not self._allowed(request, repository):
            return self._challenge(repository)
        if request.path in ("/v2/", "/v2"):
            return _json({})
        if match is None:
            return _error(404, "NAME_UNKNOWN", "no such route")
        if match["kind"] == "manifests":
            return self._manifest(repository, match["ref"])
        if match["kind"] == "tags":
            return _json({"name": repository, "tags": self._tags.get(repository, [])})
        return self._blob(request, repository, match["ref"])

    def _allowed(self, request: Request, repository: str) -> bool:
        shown = request.header.get("authorization", "")
        if self._auth == "none":
            return True
        if self._auth == "basic":
            return secrets.compare_digest(shown.encode(), self._basic.encode())
        scheme, _, token = shown.partition(" ")
        granted = self._tokens.get(token)
        return scheme.lower() == "bearer" and granted is not None and (not repository or granted == repository)

    def _challenge(self, repository: str) -> Reply:
        challenge = 'Basic realm="darner-testing"'
        if self._auth == "bearer":
            challenge = f'Bearer realm="{self.server.base_url}/token",service="darner-testing"'
            challenge += f',scope="repository:{repository}:pull"' if repository else ""
        return _error(401, "UNAUTHORIZED", "authentication required", header={"WWW-Authenticate": challenge})

    def _token(self, request: Request) -> Reply:
        if not secrets.compare_digest(request.header.get("authorization", "").encode(), self._basic.encode()):
            return _error(401, "UNAUTHORIZED", "wrong user name or password")
        _, _, rest = request.query.get("scope", "").partition(":")
        token = secrets.token_urlsafe(24)
        self._tokens[token] = rest.rpartition(":")[0]
        return _json({"token": token, "expires_in": 300})

    def _manifest(self, repository: str, reference: str) -> Reply:
        if (repository, reference) not in self._manifests:
            return _error(404, "MANIFEST_UNKNOWN", f"no manifest {reference} in {repository}")
        media_type, body = self._manifests[repository, reference]
        return Reply.of(body, header={"Content-Type": media_type, "Docker-Content-Digest": _digest(body)})

    def _blob(self, request: Request, repository: str, digest: str) -> Reply:
        path = self._blobs.get((repository, digest))
        if path is None:
            return _error(404, "BLOB_UNKNOWN", f"no blob {digest} in {repository}")
        size = path.stat().st_size
        header = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        span, status = ByteRange(start=0, length=size), 200
        if "range" in request.header:
            try:
                span, status = parse_range_header(request.header["range"], size), 206
            except InvalidInputError:
                return Reply.of(b"", status=416, header={**header, "Content-Range": f"bytes */{size}"})
            header["Content-Range"] = span.content_range(size)
        return Reply(status=status, header=header, body=_read(path, span), length=span.length, bytes_per_s=self.bytes_per_s)


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _read(path: Path, span: ByteRange) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(span.start)
        left = span.length
        while left and (data := file.read(min(left, _CHUNK))):
            left -= len(data)
            yield data


def _json(value: object) -> Reply:
    return Reply.of(json.dumps(value).encode(), header={"Content-Type": "application/json", **_API})


def _error(status: int, code: str, message: str, *, header: dict[str, str] | None = None) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply.of(body, status=status, header={"Content-Type": "application/json", **_API, **(header or {})})


_API = {"Docker-Distribution-API-Version": "registry/2.0"}


def _parse_image(text: str) -> tuple[str, str, Path]:
    name, equals, directory = text.partition("=")
    repository, colon, tag = name.rpartition(":")
    if not equals or not colon:
        message = "expected REPOSITORY:TAG=DIRECTORY"
        raise argparse.ArgumentTypeError(message)
    return repository, tag, Path(directory)


def main(argv: list[str] | None = None) -> int:
    """The program; see the module's description."""
    parser = argparse.ArgumentParser(prog="python -m darner.testing.registry", description="Serve image layouts and count bytes.")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument(
        "--image", type=_parse_image, action="append", default=[], metavar="REPOSITORY:TAG=DIRECTORY", dest="images"
    )
    parser.add_argument("--auth", choices=["none", "basic", "bearer"], default="none")
    parser.add_argument("--username", default="")
    parser.add_argument("--password-file", type=Path, help="a file that holds the password")
    parser.add_argument("--log", type=Path, help="append one JSON line per request")
    options = parser.parse_args(argv)
    password = Secret(options.password_file.read_text().strip() if options.password_file else "")
    registry = SmallRegistry(
        port=options.port, auth=options.auth, username=options.username, password=password, log_file=options.log
    )
    for repository, tag, directory in options.images:
        registry.add(repository, tag, load_layout(directory))
    with registry:
        print(f"ready {registry.server.base_url}", flush=True)  # noqa: T201  (the program's output)
        try:
            registry.server.wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
