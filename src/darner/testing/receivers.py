"""Log systems on loopback that take what they are sent, or misbehave when told so: a syslog server, and a web server for POSTs.

In: how to behave (`manner`, or `answer`). Out: everything that arrived. Each can be stopped and started again at the same place.
"""

import contextlib
import gzip
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

from darner.testing.tls import Identity

Manner = Literal["read", "turn away", "break off", "stall", "never close"]
_MESSAGE = re.compile(rb"<(\d{1,3})>1 (\S+) (\S+) (\S+) (\S+) (\S+) (\[(?:[^\]\\]|\\.)*\]|-) ", re.DOTALL)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A syslog message (RFC 5424) taken apart."""

    priority: int
    time: str
    host: str
    app: str
    kind: str
    data: str
    body: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises ValueError for what is none."""
        found = _MESSAGE.match(raw)
        if found is None:
            raise ValueError(f"no RFC 5424 message: {raw[:100]!r}")
        priority, at, host, app, _, kind, data = (part.decode() for part in found.groups())
        return cls(priority=int(priority), time=at, host=host, app=app, kind=kind, data=data, body=raw[found.end() :])


class SyslogReceiver:
    """A syslog server. `place`: a port of loopback (0: any) or a path; `datagrams`: udp or a datagram socket.

    Manners of streams: read to the end; turn away (close at once); break off (reset after 100 bytes); stall (read nothing); never
    close (read everything and keep the connection). A connection that broke off gives no messages.
    """

    def __init__(self, place: int | Path = 0, *, datagrams: bool = False, identity: Identity | None = None) -> None:
        """Not listening yet."""
        self._place = place
        self._kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
        self._identity = identity
        self._raw: list[bytes] = []
        self._lock = threading.Lock()
        self._listening: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._released = threading.Event()
        self.manner: Manner = "read"
        self.connections = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """As the configuration writes it."""
        if isinstance(self._place, Path):
            return f"unix://{self._place}"
        scheme = "udp" if self._kind == socket.SOCK_DGRAM else "tls" if self._identity else "tcp"
        return f"{scheme}://127.0.0.1:{self._place}"

    def messages(self) -> list[Message]:
        """What arrived, in order."""
        with self._lock:
            return [Message.parse(raw) for raw in self._raw]

    def start(self) -> None:
        """Listen, at the same place as before."""
        family = socket.AF_UNIX if isinstance(self._place, Path) else socket.AF_INET
        listening = socket.socket(family, self._kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if isinstance(self._place, Path):
            self._place.unlink(missing_ok=True)
            listening.bind(str(self._place))
        else:
            listening.bind(("127.0.0.1", self._place))
            self._place = int(listening.getsockname()[1])
        self._released.clear()
        self._listening = listening
        if self._kind == socket.SOCK_STREAM:
            listening.listen()
        target = self._accept if self._kind == socket.SOCK_STREAM else self._take_datagrams
        self._threads = [threading.Thread(target=target, args=(listening,), daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """Close everything."""
        self._released.set()
        listening, self._listening = self._listening, None
        for sock in (listening, *self._open):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        if listening is not None:
            listening.close()
        if isinstance(self._place, Path):
            self._place.unlink(missing_ok=True)

    def _accept(self, listening: socket.socket) -> None:
        while self._listening is listening:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(plain,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        self._open.add(plain)
        sock = plain
        try:
            if self.manner == "turn away":
                return
            if self._identity is not None:
                sock = self._identity.server_context().wrap_socket(plain, server_side=True)
            self._read(sock)
        except OSError:
            return
        finally:
            self._open.discard(plain)
            sock.close()

    def _read(self, sock: socket.socket) -> None:
        if self.manner == "stall":
            self._released.wait()
            return
        if self.manner == "break off":
            sock.recv(100)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return
        data = bytearray()
        while chunk := sock.recv(65536):
            data += chunk
        with self._lock:
            self._raw += split_counted(bytes(data))
        if self.manner == "never close":
            self._released.wait()

    def _take_datagrams(self, listening: socket.socket) -> None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        while self._listening is listening:
            try:
                data = listening.recv(1 << 20)
            except OSError:
                return
            if data:
                with self._lock:
                    self._raw.append(data)


def split_counted(data: bytes) -> list[bytes]:
    """Messages with octet counting; the last one may be missing its end, then it is left away."""
    found = []
    while data:
        count, _, rest = data.partition(b" ")
        if len(rest) < int(count):
            break
        found.append(rest[: int(count)])
        data = rest[int(count) :]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A POST as it came; `body` decompressed, header names in lower case."""

    path: str
    header: Mapping[str, str]
    body: bytes
    raw_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to answer. `cut`: close the connection after half of the body; `after_s`: think for so long."""

    status: int = 204
    header: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    after_s: float = 0.0


class HookReceiver:
    """A web server that keeps the bodies of POSTs which it answers with 2xx in full. `answer` decides."""

    def __init__(self, answer: Callable[[Posted], Answer] = lambda _: Answer(), *, identity: Identity | None = None) -> None:
        """Not listening yet."""
        self.answer = answer
        self._identity = identity
        self.port = 0
        self.accepted: list[Posted] = []
        self.seen: list[Posted] = []
        self._server: _HookServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._identity else 'http'}://127.0.0.1:{self.port}/jobs"

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = _HookServer(self, self.port)
        self.port = self._server.server_address[1]
        if self._identity is not None:
            self._server.socket = self._identity.server_context().wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close everything."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            server.break_connections()
            server.server_close()
            self._thread.join(5)


class _HookServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, owner: HookReceiver, port: int) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _HookHandler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def break_connections(self) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  (socketserver's types)
        """A client that goes away is part of the tests."""


class _HookHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HookServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Nothing: what came is kept."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        header = {name.lower(): value for name, value in self.headers.items()}
        body = gzip.decompress(raw) if header.get("content-encoding") == "gzip" else raw
        posted = Posted(path=self.path, header=header, body=body, raw_bytes=len(raw))
        owner = self.server.owner
        owner.seen.append(posted)
        answer = owner.answer(posted)
        if answer.after_s:
            time.sleep(answer.after_s)
        if 200 <= answer.status < 300 and not answer.cut:  # noqa: PLR2004
            owner.accepted.append(posted)
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.header.items():
            self.send_header(name, value)
        if answer.status != 204:  # noqa: PLR2004
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
        if answer.cut:
            self.close_connection = True
