"""Receiving a piece: pace, and a sink that digests and writes each chunk while it is in the cache.

Every call that takes long (recv, CRC-32, BLAKE3, pwrite) runs without the GIL. Sockets here have a receive time-out of TICK_S, so
that a silent peer is noticed and a caller can stop.
"""

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable

from blake3 import blake3
from isal import isal_zlib

from darner.core.errors import DarnerError, PeerError, StorageFullError
from darner.core.progress import FetchedPiece
from darner.core.ranges import ByteRange
from darner.kit.files import write_at

BUFFER_BYTES = 1024 * 1024
TICK_S = 0.25
_TICK = struct.pack("@ll", 0, int(TICK_S * 1_000_000))
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_local = threading.local()


def set_tick(sock: socket.socket) -> None:
    """Blocking, but a receive returns after TICK_S with what there is."""
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)


class Pace:
    """How long a peer may be silent, and how slow it may be on average once that time has passed."""

    def __init__(self, stall_timeout_s: float, min_bytes_per_s: float = 0.0) -> None:
        """Start now."""
        self._stall_timeout_s = stall_timeout_s
        self._min_bytes_per_s = min_bytes_per_s
        self._started = self._last = time.monotonic()
        self._bytes = 0

    def progress(self, count: int) -> None:
        """Bytes came. Raises PeerError if all in all they come too slowly."""
        self._last = time.monotonic()
        self._bytes += count
        elapsed = self._last - self._started
        if elapsed > self._stall_timeout_s and self._bytes < self._min_bytes_per_s * elapsed:
            speed, least = self._bytes / elapsed, self._min_bytes_per_s
            raise PeerError(f"the peer sends {speed:.0f} bytes per second, less than {least:.0f}")

    def whole(self) -> None:
        """Bytes of something that must be there as a whole within the time-out, however they drip in. Raises PeerError."""
        if time.monotonic() - self._started > self._stall_timeout_s:
            raise PeerError(f"the peer took more than {self._stall_timeout_s:g} seconds for its answer")

    def silence(self) -> None:
        """Nothing came for a tick. Raises PeerError if that lasts too long."""
        if time.monotonic() - self._last > self._stall_timeout_s:
            raise PeerError(f"the peer sent nothing for {self._stall_timeout_s:g} seconds")


class BodySink:
    """Takes the bytes of one piece in order: digests, then writes at its own offset."""

    def __init__(self, fd: int, span: ByteRange, on_bytes: Callable[[int], None] | None, *, with_blake3: bool) -> None:
        """Write to `fd` at `span`."""
        self.remaining = span.length
        self.crc32 = 0
        self._fd = fd
        self._span = span
        self._at = span.start
        self._on_bytes = on_bytes
        self._hasher = blake3() if with_blake3 else None

    def take(self, data: memoryview) -> None:
        """Digest and write. Raises StorageFullError."""
        self.crc32 = isal_zlib.crc32(data, self.crc32)
        if self._hasher is not None:
            self._hasher.update(data)
        count = len(data)
        self._write(data)
        self.remaining -= count
        if self._on_bytes is not None:
            self._on_bytes(count)

    def fetched(self) -> FetchedPiece:
        """What was learnt."""
        return FetchedPiece(length=self._span.length, crc32=self.crc32, blake3=self._hasher.digest() if self._hasher else b"")

    def _write(self, data: memoryview) -> None:
        try:
            write_at(self._fd, data, self._at)
            self._at += len(data)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            if error.errno in _FULL:
                raise StorageFullError(
                    f"no room for a piece at offset {self._at}: {reason}; free space or raise the quota"
                ) from error
            raise DarnerError(f"a piece could not be written at offset {self._at}: {reason}") from error


def receive_exactly(sock: socket.socket, count: int, pace: Pace, should_stop: Callable[[], bool]) -> bytes:
    """`count` bytes; none if the peer closed at once. Raises PeerError if it closes in between, or takes too long in all."""
    data = bytearray()
    while len(data) < count:
        stop_if(should_stop)
        pace.whole()
        try:
            chunk = sock.recv(count - len(data))
        except BlockingIOError:
            continue
        if not chunk:
            if data:
                raise PeerError(f"the peer closed after {len(data)} of {count} bytes of a header")
            break
        data += chunk
    return bytes(data)


def receive_body(sock: socket.socket, sink: BodySink, pace: Pace, should_stop: Callable[[], bool]) -> None:
    """Exactly as many bytes as the sink wants, through this thread's one buffer. Raises PeerError, StorageFullError."""
    buffer = _thread_buffer()
    while sink.remaining:
        stop_if(should_stop)
        try:
            count = sock.recv_into(buffer, min(BUFFER_BYTES, sink.remaining), socket.MSG_WAITALL)
        except BlockingIOError:
            pace.silence()
            continue
        if not count:
            raise PeerError(f"the peer closed the connection {sink.remaining} bytes before the end of the piece")
        sink.take(buffer[:count])
        pace.progress(count)


def stop_if(should_stop: Callable[[], bool]) -> None:
    """Raise PeerError if the caller wants to stop."""
    if should_stop():
        raise PeerError("stopped: the piece is not wanted any more")


def _thread_buffer() -> memoryview:
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(bytearray(BUFFER_BYTES))
    return view
