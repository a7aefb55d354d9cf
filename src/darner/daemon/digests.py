"""The digest of a whole file, for worker threads: hashing releases the GIL, the buffer is reused."""

import os

from darner.core.digest import Digest, new_hasher
from darner.core.errors import DigestMismatchError
from darner.core.ranges import ByteRange

BUFFER_BYTES = 1024 * 1024


class RunningDigest:
    """A whole file's digest that follows a download in order, so that little is left to do at its end. For one thread at a time."""

    def __init__(self, algorithm: str, at: int = 0) -> None:
        """Nothing is read yet; `at` is where reading begins."""
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self.at = at

    def read_to(self, fd: int, stop: int) -> None:
        """Take in the file from where it was left to `stop`. Raises DigestMismatchError if the file is shorter."""
        while self.at < stop:
            count = os.preadv(fd, [self._buffer[: min(BUFFER_BYTES, stop - self.at)]], self.at)
            if not count:
                raise DigestMismatchError(f"the file ends after {self.at} of {stop} bytes")
            self._hasher.update(self._buffer[:count])
            self.at += count

    def digest(self) -> Digest:
        """The digest of what was read."""
        return Digest(self._algorithm, self._hasher.hexdigest())


def file_digest(fd: int, length: int, algorithm: str) -> Digest:
    """The digest of the first `length` bytes of a file. Raises DigestMismatchError if the file is shorter."""
    return span_digest(fd, ByteRange(start=0, length=length), algorithm)


def span_digest(fd: int, span: ByteRange, algorithm: str) -> Digest:
    """The digest of a part of a file. Raises DigestMismatchError if the file is shorter."""
    running = RunningDigest(algorithm, span.start)
    running.read_to(fd, span.end)
    return running.digest()
