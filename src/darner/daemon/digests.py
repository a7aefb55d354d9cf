"""The digest of a whole file, for worker threads: hashing releases the GIL, the buffer is reused."""

import os

from darner.core.digest import Digest, new_hasher
from darner.core.errors import DigestMismatchError

BUFFER_BYTES = 1024 * 1024


def file_digest(fd: int, length: int, algorithm: str) -> Digest:
    """The digest of the first `length` bytes of a file. Raises DigestMismatchError if the file is shorter."""
    hasher = new_hasher(algorithm)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    at = 0
    while at < length:
        count = os.preadv(fd, [buffer[: min(BUFFER_BYTES, length - at)]], at)
        if not count:
            raise DigestMismatchError(f"the file ends after {at} of {length} bytes")
        hasher.update(buffer[:count])
        at += count
    return Digest(algorithm, hasher.hexdigest())
