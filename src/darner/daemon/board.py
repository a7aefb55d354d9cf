"""What is known so far of one running download: askers and children read it at their own pace, so none of them needs a queue.

The run writes, everybody else reads; a reader remembers how far it has read and waits for the next change.
"""

import asyncio
from dataclasses import dataclass

from darner.core.errors import DarnerError
from darner.core.piece import Piece, interested_pieces, piece_count, piece_span
from darner.core.ranges import ByteRange
from darner.core.task import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """How long the content and its pieces are, in bytes, and the origin's response header."""

    content_length: int
    piece_length: int
    header: Headers

    @property
    def count(self) -> int:
        """Number of pieces."""
        return piece_count(self.content_length, self.piece_length)

    def span(self, number: int) -> ByteRange:
        """Where a piece lies."""
        return piece_span(number, self.content_length, self.piece_length)

    def numbers(self, wanted: ByteRange | None) -> range:
        """The pieces that overlap `wanted`; all of them without one. Raises InvalidInputError for a range outside the content."""
        if wanted is None:
            return range(self.count)
        return interested_pieces(self.content_length, self.piece_length, wanted)


class Board:
    """The state of one run, with a version that grows with every change."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.facts: Facts | None = None
        self.pieces: dict[int, Piece] = {}
        self.order: list[int] = []
        self.settled = False
        """The facts and pieces are those of the content as it is now, not of an older one found on disk."""
        self.generation = 0
        self.ended = False
        self.error: DarnerError | None = None
        self.version = 0
        self._event = asyncio.Event()

    def learn(self, facts: Facts) -> None:
        """The facts are known now."""
        self.facts = facts
        self._poke()

    def add(self, piece: Piece) -> None:
        """A piece is in the store."""
        if piece.number not in self.pieces:
            self.pieces[piece.number] = piece
            self.order.append(piece.number)
            self._poke()

    def restart(self) -> None:
        """What was known turned out to be of another content: begin anew."""
        self.generation += 1
        self.facts, self.settled = None, False
        self.pieces.clear()
        self.order.clear()
        self._poke()

    def settle(self) -> None:
        """What is known may be told to askers."""
        self.settled = True
        self._poke()

    def end(self, error: DarnerError | None) -> None:
        """The run is over; `error` says why it failed."""
        self.ended, self.error = True, error
        self._poke()

    def holds(self, wanted: ByteRange | None) -> bool:
        """Whether every piece of `wanted` is here."""
        if self.facts is None:
            return False
        if wanted is None:
            return len(self.pieces) >= self.facts.count
        return all(number in self.pieces for number in self.facts.numbers(wanted))

    async def changed(self, seen: int) -> None:
        """Wait until the version is another than `seen`."""
        if self.version == seen:
            await self._event.wait()

    def _poke(self) -> None:
        self.version += 1
        self._event.set()
        self._event = asyncio.Event()
