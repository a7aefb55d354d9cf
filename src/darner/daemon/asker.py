"""One asker's view of a run: an event stream read at the asker's own pace from the run's board.

First what is known (`DownloadStarted`, with the pieces that are here already), then every wanted piece once, those that were here
included: upstream's dfget counts a download as complete only when each piece named at the start was also told as finished.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from functools import partial

from darner.core.errors import DarnerError
from darner.core.piece import Piece, TrafficType
from darner.core.progress import DownloadEvent, DownloadStarted, PieceDone
from darner.core.ranges import ByteRange
from darner.core.task import Download
from darner.core.url import redacted
from darner.daemon.run import Run
from darner.daemon.work import wanted_range
from darner.origin import OriginChangedError


def read_exactly(fd: int, offset: int, length: int) -> bytes:
    """`length` bytes at `offset`. Raises DarnerError if the file is shorter."""
    parts, at = [], offset
    while at < offset + length:
        data = os.pread(fd, offset + length - at, at)
        if not data:
            raise DarnerError(f"the stored file ends at {at}, before {offset + length}")
        parts.append(data)
        at += len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_piece(run: Run, piece: Piece) -> bytes:
    """Blocking: the bytes of a piece of a run's task."""
    with run.parts.store.open_file(run.ids.task_id) as file:
        return read_exactly(file.fd, piece.offset, piece.length)


class Asker:
    """Follows one download over one or more runs; knows what was told already."""

    def __init__(self, download: Download, verify: Callable[[Run], Awaitable[None]]) -> None:
        """Nothing was told. `verify` raises if the whole that a run has loaded is not what this asker expects."""
        self.download = download
        self._verify = verify
        self._verified = False
        self.satisfied = False
        self._told: set[int] = set()
        self._started = False
        self._generation: int | None = None

    async def follow(self, run: Run) -> AsyncGenerator[DownloadEvent, None]:
        """Events of a run until everything wanted is here or the run ends; `satisfied` says which. Raises the run's error.

        Of a whole download the last piece is told only after the run has ended and this asker's own digest was checked, so that
        nobody who passes pieces on ends a content that is wrong as a whole.
        """
        board = run.board
        self._generation = None
        while True:
            seen = board.version
            if board.error is not None:
                raise board.error
            if board.settled:
                for number in self._tellable(run):
                    if len(self._told) + 1 >= len(self._numbers(run)):
                        await self._check_whole(run)
                    yield self._event(run, await self._piece(run, number))
                if not self._started:
                    self._started = True
                    yield self._event(run, self._start(run))
                    continue
                if self._has_all(run):
                    await self._check_whole(run)
                    self.satisfied = True
                    return
            if board.ended and board.version == seen:
                return
            await board.changed(seen)

    def _tellable(self, run: Run) -> list[int]:
        """Pieces to be told now, in order of arrival; the last one of a whole waits for the run's end."""
        if not self._started:
            return []
        board = run.board
        if self._generation not in {None, board.generation}:
            raise OriginChangedError(f"{redacted(self.download.url)} changed while it was downloaded; ask again")
        self._generation = board.generation
        numbers = self._numbers(run)
        fresh = [number for number in board.order if number in numbers and number not in self._told]
        if self._wanted(run) is None and board.holds(None) and not board.ended:
            fresh = fresh[:-1]
        return fresh

    def _has_all(self, run: Run) -> bool:
        return len(self._told) >= len(self._numbers(run)) and (run.board.ended or self._wanted(run) is not None)

    async def _check_whole(self, run: Run) -> None:
        if not self._verified and self._wanted(run) is None:
            await self._verify(run)
            self._verified = True

    def _wanted(self, run: Run) -> ByteRange | None:
        return wanted_range(self.download, run.work.known_facts().content_length)

    def _numbers(self, run: Run) -> range:
        return run.work.known_facts().numbers(self._wanted(run))

    def _start(self, run: Run) -> DownloadStarted:
        board = run.board
        facts = run.work.known_facts()
        return DownloadStarted(
            content_length=facts.content_length,
            range=self._wanted(run),
            response_header=facts.header,
            pieces=tuple(board.pieces[number] for number in self._numbers(run) if number in board.pieces),
            is_finished=board.holds(None),
        )

    async def _piece(self, run: Run, number: int) -> PieceDone:
        piece = run.board.pieces.get(number)
        if piece is None:
            raise OriginChangedError(f"{redacted(self.download.url)} changed while it was downloaded; ask again")
        self._told.add(number)
        if run.from_disk or number in run.work.resumed:
            piece = replace(piece, traffic_type=TrafficType.LOCAL_PEER)
        if not self.download.need_piece_content:
            return PieceDone(piece=piece)
        return PieceDone(piece=piece, content=await run.parts.on_disk(partial(read_piece, run, piece)))

    def _event(self, run: Run, what: DownloadStarted | PieceDone) -> DownloadEvent:
        return DownloadEvent(host_id=run.ids.host_id, task_id=run.ids.task_id, peer_id=run.ids.peer_id, what=what)
