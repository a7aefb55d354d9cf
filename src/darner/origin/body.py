"""Moving a body from a reply to a file: a reused 1 MiB buffer per thread, CRC-32 and BLAKE3 on the way, pwrite.

All three release the GIL on blocks of this size, so several threads share the machine's cores.
"""

import errno
import threading
import time

from blake3 import blake3
from isal import isal_zlib

from darner.core.errors import DarnerError, StorageFullError
from darner.core.progress import FetchedPiece
from darner.core.ranges import ByteRange
from darner.kit.files import write_at
from darner.net.errors import NetError
from darner.net.http import Reply
from darner.origin.ports import OnBytes

BUFFER_BYTES = 1024 * 1024
REPORT_S = 1.0
_local = threading.local()


def buffer() -> memoryview:
    """The thread's own buffer; valid until the thread reads its next body."""
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(bytearray(BUFFER_BYTES))
    return view


class SpanSink:
    """Takes the bytes of one span in order; knows how many are there, so that reading can go on after a broken connection."""

    def __init__(self, span: ByteRange, fd: int, on_bytes: OnBytes | None) -> None:
        """Writes to `fd` from `span.start` on."""
        self._span, self._fd, self._on_bytes = span, fd, on_bytes
        self._crc32 = 0
        self._blake3 = blake3()
        self.done = 0

    @property
    def rest(self) -> ByteRange:
        """What is still missing."""
        return ByteRange(start=self._span.start + self.done, length=self._span.length - self.done)

    def write(self, view: memoryview) -> None:
        """Digest and write the next bytes. Raises StorageFullError, DarnerError."""
        put(self._fd, view, self._span.start + self.done)
        self._crc32 = isal_zlib.crc32(view, self._crc32)
        self._blake3.update(view)
        self.done += len(view)
        if self._on_bytes is not None:
            self._on_bytes(len(view))

    def fetched(self) -> FetchedPiece:
        """Length and digests of what was written."""
        return FetchedPiece(length=self.done, crc32=self._crc32, blake3=self._blake3.digest())


def put(fd: int, view: memoryview, offset: int) -> None:
    """Write all of it. Raises StorageFullError, DarnerError."""
    try:
        write_at(fd, view, offset)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFullError from error
        raise DarnerError(f"the piece cannot be written to the store ({error.strerror})") from error


def read_span(reply: Reply, sink: SpanSink, *, deadline: float) -> None:
    """Read until the sink is full. What came before an error is kept in the sink. Raises NetError, StoppedError."""
    view = buffer()
    while sink.rest.length:
        wanted, have = min(len(view), sink.rest.length), 0
        report_at = time.monotonic() + REPORT_S
        try:
            while have < wanted and (now := time.monotonic()) < report_at:
                if now > deadline:
                    raise NetError("reading took longer than allowed for one range")
                count = reply.readinto(view[have:wanted])
                if not count:
                    raise NetError(f"the body ended {sink.rest.length - have} bytes too early")
                have += count
        finally:
            if have:
                sink.write(view[:have])


def has_more(reply: Reply) -> bool:
    """Whether anything follows what was read; reads the end of the body if not."""
    return reply.readinto(memoryview(bytearray(1))) > 0
