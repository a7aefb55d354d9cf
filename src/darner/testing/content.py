"""Content that is computed, not kept: any range of a file of any size, the same every time, different at every offset.

A file is a row of 64 KiB blocks: one pseudo-random block per seed, the first 16 bytes of which are replaced by a stamp that hashes
seed and block number. So no two blocks are equal, a swapped or repeated piece changes the digest, and reading costs a memory copy.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

BLOCK = 64 * 1024
CHUNK = 1024 * 1024
_STAMP = 16


@dataclass(frozen=True, slots=True)
class Content:
    """`size` bytes that `seed` determines."""

    size: int
    seed: str = "darner"

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` (included) to `stop` (excluded, default the end), at most 1 MiB at a time."""
        end = self.size if stop is None else min(stop, self.size)
        position = start
        while position < end:
            upto = min(position - position % CHUNK + CHUNK, end)
            first, last = position // BLOCK, (upto - 1) // BLOCK
            whole = b"".join(_block(self.seed, number) for number in range(first, last + 1))
            yield whole[position - first * BLOCK : upto - first * BLOCK]
            position = upto

    def bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """A range as one value; for small ranges."""
        return b"".join(self.read(start, stop))

    def sha256(self) -> str:
        """The SHA-256 of the whole in hex; computed once per content and process."""
        return _sha256(self)

    def write(self, path: Path) -> Path:
        """Write the whole to a file."""
        with path.open("wb") as file:
            file.writelines(self.read())
        return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=16)
def _base(seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(BLOCK - _STAMP)


def _block(seed: str, number: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=_STAMP).digest() + _base(seed)


@lru_cache(maxsize=256)
def _sha256(content: Content) -> str:
    hasher = hashlib.sha256()
    for chunk in content.read():
        hasher.update(chunk)
    return hasher.hexdigest()
