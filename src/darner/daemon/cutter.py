"""Cuts a stream of known length into pieces: writes each byte at its place, tells of every piece that is full. For one thread."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3
from isal import isal_zlib

from darner.core.errors import OriginError
from darner.core.progress import FetchedPiece
from darner.daemon.board import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPiece:
    """A full piece, written."""

    number: int
    fetched: FetchedPiece
    cost_s: float


class Cutter:
    """Takes chunks in order through `write`."""

    def __init__(self, fd: int, facts: Facts, on_piece: Callable[[CutPiece], object]) -> None:
        """`on_piece` is called in the writing thread."""
        self._fd = fd
        self._facts = facts
        self._on_piece = on_piece
        self._at = 0
        self._begin()

    def write(self, chunk: memoryview) -> None:
        """The next bytes. Raises OriginError if there are more than the length allows."""
        rest = memoryview(chunk)
        while rest:
            if self._at >= self._facts.content_length:
                raise OriginError(f"the origin sends more than the {self._facts.content_length} bytes it announced")
            number = self._at // self._facts.piece_length
            span = self._facts.span(number)
            part = rest[: span.end - self._at]
            self._take(part)
            rest = rest[len(part) :]
            if self._at == span.end:
                digests = FetchedPiece(length=span.length, crc32=self._crc32, blake3=self._blake3.digest())
                self._on_piece(CutPiece(number=number, fetched=digests, cost_s=time.monotonic() - self._started))
                self._begin()

    def _begin(self) -> None:
        self._crc32 = 0
        self._blake3 = blake3()
        self._started = time.monotonic()

    def _take(self, part: memoryview) -> None:
        self._crc32 = isal_zlib.crc32(part, self._crc32)
        self._blake3.update(part)
        while part:
            count = os.pwrite(self._fd, part, self._at)
            self._at += count
            part = part[count:]
