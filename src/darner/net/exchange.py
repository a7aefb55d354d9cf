"""One HTTP/1.1 request and its answer on a connected blocking socket.

h11 frames head and chunked bodies; a body of known length goes from the socket straight into the caller's buffer. Every wait is
cut into short slices, so that a caller who has lost interest stops a silent sender at once, and a sender slower than the
minimum speed is given up.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import h11

from darner.core.errors import InvalidInputError
from darner.core.task import Headers
from darner.net.errors import ConnectionLostError, NetError, StoppedError, net_error

SLICE_S = 0.25
HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
FIRST_BYTES = 8 * 1024
_NO_BODY = frozenset({204, 304})

ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a silent peer is waited for, and the least speed of a body, averaged over that time."""

    read_timeout_s: float = 60.0
    min_bytes_per_s: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Status and headers of an answer; `length` is the body's, None if only its end will tell."""

    status: int
    header: Headers
    length: int | None


class Exchange:
    """Send one request, read one answer. `where` names the other side in errors."""

    def __init__(self, sock: socket.socket, where: str, pace: Pace, should_stop: ShouldStop | None = None) -> None:
        """The socket stays the caller's."""
        self._sock, self._where, self._pace, self._should_stop = sock, where, pace, should_stop
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._spare = memoryview(b"")
        self._left: int | None = 0
        self._keep_alive = False
        self._received = self._begun = False
        self._waited_s, self._waited_bytes = 0.0, 0
        sock.settimeout(SLICE_S)

    def send(self, method: str, path: str, header: Iterable[tuple[str, str]]) -> None:
        """Send the head of a request without body. Raises InvalidInputError for a header that HTTP forbids, NetError."""
        try:
            request = h11.Request(method=method, target=path, headers=[(k.encode("ascii"), v.encode("latin-1")) for k, v in header])
            data = self._h11.send(request)
            end = self._h11.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            message = (
                "a request header is not valid HTTP: a name has spaces or signs, or a value line breaks or letters beyond Latin-1"
            )
            raise InvalidInputError(message, field="request_header") from error  # not what the error says: it holds the value
        try:
            self._sock.settimeout(self._pace.read_timeout_s)
            self._sock.sendall((data or b"") + (end or b""))
            self._sock.settimeout(SLICE_S)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectionLostError(f"{self._where} closed the connection") from error
        except OSError as error:
            raise net_error(error, self._where) from error

    def head(self, method: str) -> Head:
        """Wait for the head of the answer; interim 1xx ones are skipped. Raises ConnectionLostError if nothing came at all."""
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                return self._begin(event, method)
            if not isinstance(event, h11.InformationalResponse):
                raise NetError(f"{self._where} broke the rules of HTTP (no head)")

    def _begin(self, response: h11.Response, method: str) -> Head:
        self._begun = True
        header = Headers()
        for raw_name, raw_value in response.headers.raw_items():
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            found = next((known for known in header if known.lower() == name.lower()), name)
            header[found] = f"{header[found]}, {value}" if found in header else value
        length = header.find("content-length")
        if method == "HEAD" or response.status_code in _NO_BODY:
            self._left = 0
        elif header.find("transfer-encoding") is None and length is not None:
            self._left = int(response.headers[[n for n, _ in response.headers].index(b"content-length")][1])
        else:
            self._left = None
        self._keep_alive = response.http_version == b"1.1" and "close" not in (header.find("connection") or "").lower()
        if self._left is not None:
            # from here on h11 is out of the way: what it has buffered already is the beginning of the body
            self._spare = memoryview(bytes(self._h11.trailing_data[0]))
        return Head(status=response.status_code, header=header, length=self._left)

    def readinto(self, view: memoryview) -> int:
        """Read what has arrived, at least one byte, into `view`; 0 at the end of the body. Raises NetError if it breaks off."""
        if self._left is None:
            return self._read_framed(view)
        if not self._left:
            return 0
        wanted = view[: self._left]
        if self._spare:
            count = self._take_spare(wanted)
        else:
            count = self._receive(wanted)
            if not count:
                raise NetError(f"{self._where} closed the connection with {self._left} bytes still to come")
        self._left -= count
        return count

    def _take_spare(self, view: memoryview) -> int:
        count = min(len(view), len(self._spare))
        view[:count] = self._spare[:count]
        self._spare = self._spare[count:]
        return count

    def _read_framed(self, view: memoryview) -> int:
        while not self._spare:
            event = self._next_event()
            if isinstance(event, h11.Data):
                self._spare = memoryview(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return 0
            else:
                return 0
        return self._take_spare(view)

    def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                # a head is short, and what comes with it of the body is copied twice: read little until it is here
                buffer = bytearray(CHUNK_BYTES if self._begun else FIRST_BYTES)
                count = self._receive(memoryview(buffer))
                if not count and not self._received:
                    raise ConnectionLostError(f"{self._where} closed the connection without an answer")
                self._received = True
                self._h11.receive_data(bytes(memoryview(buffer)[:count]))
        except h11.RemoteProtocolError as error:
            raise net_error(error, self._where) from error
        return event  # type: ignore[return-value]

    def _receive(self, view: memoryview) -> int:
        """One recv, in slices of waiting."""
        while True:
            if self._should_stop is not None and self._should_stop():
                raise StoppedError(f"reading from {self._where} was stopped by the asker")
            since = time.monotonic()
            try:
                count = self._sock.recv_into(view)
            except TimeoutError:
                self._check_pace(0, since)
            except ConnectionResetError as error:
                if not self._received:
                    raise ConnectionLostError(f"{self._where} closed the connection without an answer") from error
                raise net_error(error, self._where) from error
            except ssl.SSLEOFError:
                return 0  # no close_notify; the framing decides whether something is missing
            except OSError as error:
                raise net_error(error, self._where) from error
            else:
                self._check_pace(count, since)
                return count

    def _check_pace(self, count: int, since: float) -> None:
        # only time spent waiting counts: a caller that is slow itself must not blame the sender
        self._waited_s += time.monotonic() - since
        self._waited_bytes += count
        if self._waited_s < self._pace.read_timeout_s:
            return
        if not self._waited_bytes:
            raise NetError(f"{self._where} sent nothing for {self._waited_s:.0f} s")
        if self._received and self._waited_bytes < self._pace.min_bytes_per_s * self._waited_s:
            raise NetError(f"{self._where} sends fewer than {self._pace.min_bytes_per_s} bytes per second")
        self._waited_s, self._waited_bytes = 0.0, 0

    def hurry(self, timeout_s: float) -> None:
        """From here on wait no longer than this for the rest."""
        self._pace = replace(self._pace, read_timeout_s=timeout_s)
        self._waited_s, self._waited_bytes = 0.0, 0

    @property
    def left(self) -> int | None:
        """Bytes of the body still to come, None if unknown."""
        return self._left

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request: the answer was read to its very end and nothing follows."""
        if not self._keep_alive or self._spare:
            return False
        if self._left is None:
            done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
            return done and not self._h11.trailing_data[0]
        return not self._left
