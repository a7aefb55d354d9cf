"""A small threaded HTTP/1.1 server on loopback for this room's origin and registry: it sends what it is told and counts it.

In: a function from Request to Reply. Out: an access log of `Access` entries, whose `body_bytes` grow while a body is being sent, so
a client that has the last byte finds it counted. Replies may break off, crawl, or come without a length. No content is kept.
"""

import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

from darner.testing.tls import Identity

_SLOW_CHUNK = 64 * 1024
_IDLE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asked. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    header: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to send. `length` None means chunked. `drop_after`: close the connection after that many bytes of the body."""

    status: int = 200
    header: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[bytes] = ()
    length: int | None = 0
    drop_after: int | None = None
    bytes_per_s: float = 0.0
    on_bytes: Callable[[int], None] | None = None

    @classmethod
    def of(cls, data: bytes, *, status: int = 200, header: Mapping[str, str] | None = None) -> Self:
        """A reply with a small body."""
        return cls(status=status, header=header or {}, body=(data,), length=len(data))


@dataclass(slots=True, kw_only=True)
class Access:
    """One exchange as the server saw it. `body_bytes` counts the body alone, without chunk framing."""

    method: str
    path: str
    range: str
    status: int
    header: Mapping[str, str]
    body_bytes: int = 0
    finished: bool = False

    def line(self) -> str:
        """The entry as one line of JSON, without the request's header (it may hold credentials)."""
        shown = {
            "method": self.method,
            "path": self.path,
            "range": self.range,
            "status": self.status,
            "body_bytes": self.body_bytes,
        }
        return json.dumps(shown)


class _Broken(Exception):  # noqa: N818  (not an error: the reply said to break off here)
    pass


class LoopbackServer:
    """Serves `answer` on 127.0.0.1 from `start` to `stop`; a context manager. `port` 0 lets the system choose."""

    def __init__(
        self,
        answer: Callable[[Request], Reply],
        *,
        port: int = 0,
        identity: Identity | None = None,
        log_file: Path | None = None,
    ) -> None:
        """`identity` makes it HTTPS; `log_file` gets one JSON line per exchange."""
        self.answer = answer
        self.log: list[Access] = []
        self._log_file = log_file
        self._lock = threading.Lock()
        self._server = _Server(port, self, identity.server_context() if identity else None)
        self.port: int = self._server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        self.base_url = f"{'https' if identity else 'http'}://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Break every connection off, wait for the threads, free the port."""
        self._server.shutdown()
        self._server.break_connections()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Block until the server ends (for the programs; a signal interrupts it)."""
        while self._thread.is_alive():
            self._thread.join(1.0)

    def begin(self, access: Access) -> None:
        """Enter an exchange into the log (called by the connection's thread)."""
        with self._lock:
            self.log.append(access)

    def end(self, access: Access) -> None:
        """Close an exchange."""
        access.finished = True
        if self._log_file is not None:
            with self._lock, self._log_file.open("a") as file:
                file.write(access.line() + "\n")

    def requests(self, path: str | None = None, *, method: str | None = None) -> int:
        """How many requests came, for one path or all, of one method or all."""
        return len(self._matching(path, method))

    def body_bytes(self, path: str | None = None) -> int:
        """How many body bytes left, for one path or all."""
        return sum(access.body_bytes for access in self._matching(path, None))

    def forget(self) -> None:
        """Empty the log, so that counts begin at 0."""
        with self._lock:
            self.log.clear()

    def _matching(self, path: str | None, method: str | None) -> list[Access]:
        with self._lock:
            return [a for a in self.log if path in (None, a.path) and method in (None, a.method)]


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = False
    request_queue_size = 256

    def __init__(self, port: int, owner: LoopbackServer, context: ssl.SSLContext | None) -> None:
        self.owner = owner
        self._context = context
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(_IDLE_TIMEOUT_S)
        if self._context is not None:  # the handshake happens in the connection's own thread, at its first read
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  (socketserver's type)
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the other side was faster

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  (socketserver's types)
        """A client that goes away or refuses our certificate is part of the tests; anything else is printed by the base class."""
        import sys

        if not isinstance(sys.exc_info()[1], OSError | _Broken):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    _silent: ClassVar[frozenset[int]] = frozenset({204, 304})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """The access log is kept by the server."""

    def version_string(self) -> str:
        return "darner-testing"

    def do_GET(self) -> None:
        self._exchange()

    def do_HEAD(self) -> None:
        self._exchange()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._exchange()

    def _exchange(self) -> None:
        parts = urlsplit(self.path)
        header = {name.lower(): value for name, value in self.headers.items()}
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(method=self.command, path=parts.path, query=query, header=header)
        reply = self.server.owner.answer(request)
        access = Access(method=self.command, path=parts.path, range=header.get("range", ""), status=reply.status, header=header)
        self.server.owner.begin(access)
        try:
            self._send_head(reply)
            if self.command != "HEAD" and reply.status not in self._silent:
                self._send_body(reply, access)
        finally:
            self.server.owner.end(access)

    def _send_head(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.header.items():
            self.send_header(name, value)
        if reply.length is None:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.status not in self._silent:
            self.send_header("Content-Length", str(reply.length))
        self.end_headers()

    def _send_body(self, reply: Reply, access: Access) -> None:
        sent = 0
        began = time.monotonic()
        for chunk in _cut(reply.body, reply.drop_after, _SLOW_CHUNK if reply.bytes_per_s else None):
            self._send_chunk(chunk, reply, access)
            sent += len(chunk)
            if reply.drop_after is not None and sent >= reply.drop_after:
                self.connection.shutdown(socket.SHUT_RDWR)
                raise _Broken
            if reply.bytes_per_s:
                time.sleep(max(0.0, began + sent / reply.bytes_per_s - time.monotonic()))
        if reply.length is None:
            self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, chunk: bytes, reply: Reply, access: Access) -> None:
        access.body_bytes += len(chunk)  # before it leaves: whoever has received it finds it counted
        if reply.on_bytes is not None:
            reply.on_bytes(len(chunk))
        if reply.length is None:
            self.wfile.write(f"{len(chunk):x}\r\n".encode())
        self.wfile.write(chunk)
        if reply.length is None:
            self.wfile.write(b"\r\n")


def _cut(body: Iterable[bytes], upto: int | None, largest: int | None) -> Iterable[bytes]:
    """The chunks of `body`, none empty, none above `largest`, ending after `upto` bytes."""
    left = upto
    for chunk in body:
        step = largest or len(chunk) or 1
        for start in range(0, len(chunk), step):
            part = chunk[start : start + step]
            if left is not None:
                part = part[:left]
                left -= len(part)
            if part:
                yield part
            if left == 0:
                return
