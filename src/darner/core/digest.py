"""Digests of whole files and of pieces.

A piece travels with `crc32:` and the decimal CRC-32 (IEEE), not padded (rs:dragonfly-client-storage/src/io.rs:271). A file
digest is `sha256:` or `sha512:` in hex, or `crc32:` in decimal. `blake3:` is Darner's own piece digest; upstream's validation
accepts it (messages.md, section 6).
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Protocol

from darner.core.errors import InvalidInputError

HEX_LENGTH = {"sha256": 64, "sha512": 128, "blake3": 64}
ALGORITHMS = ("sha256", "sha512", "crc32", "blake3")
CRC32_FLAG_LENGTH = 10
MAX_CRC32 = 0xFFFFFFFF
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Digest:
    """An algorithm and its value, born valid. `str()` gives `algorithm:value`."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @classmethod
    def parse(cls, text: str, *, field: str = "digest") -> "Digest":
        """Parse `algorithm:value`. Raises InvalidInputError naming the allowed forms."""
        algorithm, colon, value = text.partition(":")
        algorithm, value = algorithm.lower(), value.lower()
        if not colon or algorithm not in ALGORITHMS:
            message = f"digest {text!r}: expected one of {', '.join(ALGORITHMS)}, then ':' and the value"
            raise InvalidInputError(message, field=field)
        if algorithm == "crc32":
            if not value.isascii() or not value.isdigit() or int(value) > MAX_CRC32:
                message = f"digest {text!r}: a crc32 value is a decimal number up to 4294967295"
                raise InvalidInputError(message, field=field)
            return cls(algorithm, str(int(value)))
        if len(value) != HEX_LENGTH[algorithm] or not _HEX.issuperset(value):
            message = f"digest {text!r}: a {algorithm} value has {HEX_LENGTH[algorithm]} hex digits"
            raise InvalidInputError(message, field=field)
        return cls(algorithm, value)


class Hasher(Protocol):
    """What hashlib objects offer."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The value so far."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return str(self._value)


def new_hasher(algorithm: str) -> Hasher:
    """A fresh hasher for one of ALGORITHMS; its `hexdigest()` is the value as Digest writes it."""
    if algorithm == "crc32":
        return _Crc32()
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()
    return hashlib.new(algorithm)


def crc32_digest(value: int) -> str:
    """`crc32:` and the decimal value, as pieces carry it."""
    return f"crc32:{value}"


def accepted_by_upstream_flag(text: str) -> bool:
    """Whether upstream's `--digest` takes it: crc32 with ten characters, sha256 64, sha512 128 (rs:digest/mod.rs:129)."""
    algorithm, _, value = text.partition(":")
    wanted = {"crc32": CRC32_FLAG_LENGTH, "sha256": 64, "sha512": 128}.get(algorithm)
    return wanted is not None and len(value) == wanted


def piece_metadata_digest(*, number: int, offset: int, length: int, digest: str) -> str:
    """CRC-32 over number, offset, length and digest of a piece (rs:dragonfly-client-storage/src/metadata.rs:572)."""
    data = number.to_bytes(4, "big") + offset.to_bytes(8, "big") + length.to_bytes(8, "big") + digest.encode()
    return crc32_digest(zlib.crc32(data))
