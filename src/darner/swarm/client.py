"""The child's side: fetch one piece from a parent into a file, believing nothing the parent says of itself.

Blocking, in the caller's thread. Connections are kept per address: our own servers leave them open, upstream's close after
each piece, which is noticed before the next use.
"""

import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass

from darner.core.digest import crc32_digest
from darner.core.errors import PeerError
from darner.core.progress import FetchedPiece
from darner.core.ranges import ByteRange
from darner.swarm.pool import Address, ConnectionPool
from darner.swarm.ports import ClientLimits
from darner.swarm.receive import BodySink, Pace, receive_body, receive_exactly, set_tick
from darner.swarm.sockets import family_of, tune
from darner.wire import vortex


class _StaleError(Exception):
    """The parent closed the connection before the first byte of its reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One request under way."""

    address: Address
    task_id: str
    number: int
    span: ByteRange
    tag: int
    allow_empty_digest: bool
    should_stop: Callable[[], bool]


class PieceClient:
    """Fetches pieces; one for all threads of a daemon."""

    def __init__(self, limits: ClientLimits | None = None, *, check_address: Callable[[str], None] | None = None) -> None:
        """`check_address` refuses addresses that must not be dialled, by raising (the daemon gives net's guard)."""
        self._limits = limits or ClientLimits()
        self._check_address = check_address
        self._pool = ConnectionPool(self._limits.idle_connections, self._limits.idle_timeout_s)
        self._closed = False

    def close(self) -> None:
        """Close kept connections; fetches under way end with PeerError within a tick."""
        self._closed = True
        self._pool.close()

    def fetch(
        self,
        address: Address,
        task_id: str,
        number: int,
        span: ByteRange,
        fd: int,
        *,
        tag: int = vortex.DOWNLOAD_PIECE,
        on_bytes: Callable[[int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        allow_empty_digest: bool = False,
        blake3: bool = True,
    ) -> FetchedPiece:
        """Fetch piece `number`, which lies at `span` of the content, and write it there in `fd`.

        `on_bytes` is told the size of each chunk written. PeerError when the parent refuses, lies, dawdles or goes away, or when
        `should_stop` says so; StorageFullError when the disk is full. Without `blake3` that digest stays empty.
        """
        asked = _Asked(
            address=address,
            task_id=task_id,
            number=number,
            span=span,
            tag=tag,
            allow_empty_digest=allow_empty_digest,
            should_stop=lambda: self._closed or (should_stop is not None and should_stop()),
        )
        sink = BodySink(fd, span, on_bytes, with_blake3=blake3)
        kept = self._pool.take(address)
        if kept is not None:
            try:
                return self._fetch_on(kept, asked, sink)
            except _StaleError:
                pass  # nothing of this piece was read yet: once more, on a fresh connection
        try:
            return self._fetch_on(self._connect(asked), asked, sink)
        except _StaleError as error:
            raise _error(asked, "closed the connection instead of answering") from error

    def _connect(self, asked: _Asked) -> socket.socket:
        ip, port = asked.address
        if self._check_address is not None:
            self._check_address(ip)
        try:
            sock = socket.socket(family_of(ip), socket.SOCK_STREAM)
        except ValueError as error:
            raise _error(asked, "has no IP address") from error
        try:
            tune(sock)
            sock.settimeout(self._limits.connect_timeout_s)
            sock.connect((ip, port))
            set_tick(sock)
        except OSError as error:
            sock.close()
            raise _error(asked, f"cannot be reached: {_reason(error)}") from error
        return sock

    def _fetch_on(self, sock: socket.socket, asked: _Asked, sink: BodySink) -> FetchedPiece:
        keep = False
        try:
            announced = self._exchange(sock, asked)
            pace = Pace(self._limits.stall_timeout_s, self._limits.min_bytes_per_s)
            receive_body(sock, sink, pace, asked.should_stop)
            keep = True
            if announced not in {"", crc32_digest(sink.crc32)}:
                raise _error(asked, f"sent bytes with {crc32_digest(sink.crc32)} but announced {announced}")
            return sink.fetched()
        except OSError as error:
            raise _error(asked, f"broke the connection: {_reason(error)}") from error
        finally:
            if keep:
                self._pool.give(asked.address, sock)
            else:
                sock.close()

    def _exchange(self, sock: socket.socket, asked: _Asked) -> str:
        """Send the request and check the reply's metadata; returns the announced digest."""
        pace = Pace(self._limits.reply_timeout_s)
        frame_id = random.getrandbits(8)
        try:
            sock.sendall(vortex.encode_request(asked.task_id, asked.number, tag=asked.tag, frame_id=frame_id))
            head = receive_exactly(sock, vortex.HEADER_LENGTH, pace, asked.should_stop)
        except (ConnectionError, BrokenPipeError) as error:
            raise _StaleError from error
        if not head:
            raise _StaleError
        header = vortex.decode_header(head)
        limit = vortex.MAX_ERROR_VALUE if header.tag == vortex.ERROR else vortex.MAX_REPLY_VALUE
        if header.tag not in {asked.tag + 1, vortex.ERROR}:
            raise _error(asked, f"answered with tag {header.tag} ({vortex.kind_of(header.tag)})")
        if header.length > limit:
            raise _error(asked, f"announces {header.length} bytes of metadata; at most {limit} are accepted")
        value = receive_exactly(sock, header.length, pace, asked.should_stop)
        if header.tag == vortex.ERROR:
            code, text = vortex.decode_error(value)
            raise _error(asked, f"refused with code {code}: {text[:200]}")
        return _check_reply(asked, vortex.decode_reply(value))


def _check_reply(asked: _Asked, reply: vortex.Reply) -> str:
    """Refuse an answer about something else than was asked: a parent must not choose where its bytes are written."""
    wanted = (asked.number, asked.span.start, asked.span.length)
    given = (reply.number, reply.offset, reply.length)
    if given != wanted:
        raise _error(asked, f"answered with (number, offset, length) {given} instead of {wanted}")
    if not reply.digest and not asked.allow_empty_digest:
        raise _error(asked, "announced no digest")
    if reply.digest and not reply.digest.startswith("crc32:"):
        raise _error(asked, f"announced a digest that is no crc32: {reply.digest[:40]}")
    return reply.digest


def _error(asked: _Asked, what: str) -> PeerError:
    ip, port = asked.address
    return PeerError(f"peer {ip}:{port}, asked for piece {asked.number} of task {asked.task_id}, {what}")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
