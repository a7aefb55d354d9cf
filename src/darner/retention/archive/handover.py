"""The handover of jobs from the database to the archive, in steps that may each be the last (spec/retention.md, 5.5).

A segment is planned, written, read back, stored, sealed; only then its jobs leave the database, in batches behind the sweep's
fence. Readers prefer the database, so that a job which is in both is seen once. After a crash an unsealed segment is thrown away
and made anew, and a sealed one goes on losing its jobs where it stopped. A job that is not the
same any more, to the last byte, stays in the database and is marked absent from the segment.
"""

import asyncio
from collections import deque

from sqlalchemy import Connection

from darner.core.errors import DarnerError, StorageFullError, TimedOutError, UnavailableError
from darner.core.job import Tier
from darner.history.codec import Codec
from darner.kit.log import get_logger
from darner.retention.archive import catalog, making
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.leaving import Leaving, let_go
from darner.retention.archive.owner import claim
from darner.retention.archive.segment import Entry, LibraryMissingError, entries_of
from darner.retention.archive.storage import Storage
from darner.retention.rules import Move, moves
from darner.retention.sql.facts import JobRow
from darner.retention.sql.step import choose
from darner.retention.sweep.hold import Hold
from darner.retention.sweep.work import Done, SweepContext
from darner.retention.values import Cursor

_log = get_logger("archive")
# So often in a row it is tried within one sweep, though some steps in between went well.
_TROUBLE_LIMIT = 3


class HandoverWork:
    """Makes segments and empties sealed ones, a bounded piece a batch. Loses nothing, so it is no removing work."""

    name = "archive"
    removes = False

    def __init__(self, *, storage: Storage, codec: Codec, config: ArchiveConfig, busy: set[int]) -> None:
        """The storage is used in threads. `busy`: segments that other works are making now."""
        self._storage = storage
        self._codec = codec
        self._config = config
        self._busy = busy
        self._moves: deque[Move] | None = None
        self._gathering: _Gathered | None = None
        self._leaving: deque[Leaving] = deque()
        self._broken: dict[str, str] = {}
        self._trouble = 0

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        """The next piece: clean up after a crash, let jobs of a sealed segment go, gather, or make a segment.

        After any failure the next batch begins as a new process would: by what the catalogue says.
        """
        try:
            return await self._batch(sweep, limit)
        except (UnavailableError, TimedOutError) as error:
            self._start_over()
            self._trouble += 1
            if self._trouble > _TROUBLE_LIMIT:
                raise DarnerError(error.message) from error
            raise
        except BaseException:
            self._start_over()
            raise

    def _start_over(self) -> None:
        self._moves, self._gathering = None, None
        self._leaving.clear()

    async def _batch(self, sweep: SweepContext, limit: int) -> Done:
        if self._moves is None:
            wanted = [move for rule in sweep.order.policy.rules for move in moves(rule) if move.to == Tier.ARCHIVE]
            if not wanted and not await sweep.db.read(_is_unfinished):
                return Done()
            await claim(sweep.db, self._storage)
            await self._recover(sweep)
            self._moves = deque(move for move in wanted if move.rule.name not in self._broken)
            return Done(more=True)
        if self._leaving:
            return await self._let_go(sweep, limit)
        if self._gathering is None:
            if not self._moves:
                return self._ended()
            self._gathering = _Gathered(self._moves.popleft())
        if not self._gathering.full(self._config.segment_jobs):
            return await self._gather(sweep, self._gathering, limit)
        return await self._make(sweep, self._gathering)

    def _ended(self) -> Done:
        if self._broken:
            raise DarnerError(" ".join(self._broken.values()))
        return Done()

    async def _recover(self, sweep: SweepContext) -> None:
        """Throw away what nobody has seen; go on with what was sealed."""
        self._broken.clear()
        for segment in await sweep.db.read(lambda conn: catalog.in_state(conn, SegmentState.PLANNED, SegmentState.WRITTEN)):
            if segment.id in self._busy:
                continue
            await making.throw_away(sweep, self._storage, segment)
            _log.info("an unfinished segment is made anew", segment=segment.id, rule=segment.rule)
        for segment in await sweep.db.read(lambda conn: catalog.in_state(conn, SegmentState.SEALED)):
            try:
                self._leaving.append(Leaving(segment, await asyncio.to_thread(self._entries, segment)))
                if segment.error:
                    await sweep.db.write(lambda conn, number=segment.id: catalog.told_error(conn, number, ""))  # type: ignore[misc]
            except (UnavailableError, StorageFullError, LibraryMissingError):
                raise
            except DarnerError as error:
                await self._cannot_go_on(sweep, segment, error)

    def _entries(self, segment: Segment) -> list[Entry]:
        with self._storage.reading([(segment.location, segment.sha256)]) as (file,):
            return entries_of(file)

    async def _cannot_go_on(self, sweep: SweepContext, segment: Segment, error: DarnerError) -> None:
        """A sealed segment cannot be read. If no job left the database for it, it is made anew; else a person must look."""
        if segment.deleted == 0:

            def unseal(conn: Connection) -> None:
                sweep.fence(conn)
                catalog.dropping(conn, segment.id)

            await sweep.db.write(unseal)
            _log.warning("a sealed segment cannot be read and is made anew", segment=segment.id, reason=error.message)
            return
        told = (
            f"Segment {segment.id} ({segment.location}) of rule {segment.rule} cannot be read, and {segment.deleted} of its jobs "
            f"are nowhere else: {error.message} Bring the file back; until then no more jobs of this rule are archived."
        )
        await sweep.db.write(lambda conn: catalog.told_error(conn, segment.id, told))
        _log.error("a sealed segment cannot be read", segment=segment.id, reason=error.message)
        self._broken[segment.rule] = told

    async def _gather(self, sweep: SweepContext, gathered: "_Gathered", limit: int) -> Done:
        """Choose the next jobs of a move. They are judged again when they leave."""
        class_id = sweep.classes.get(gathered.move.rule.name)
        if class_id is None:
            self._gathering = None
            return Done(more=True)
        hold = Hold()

        def step(conn: Connection) -> bool:
            hold.begins()
            now_ms = sweep.fence(conn)
            chosen = choose(conn, sweep, move=gathered.move, class_id=class_id, now_ms=now_ms, after=gathered.cursor, limit=limit)
            gathered.rows += chosen.going
            gathered.now_ms = now_ms
            if chosen.cursor is not None:
                gathered.cursor = chosen.cursor
            return chosen.cursor is not None

        size = len(gathered.rows)
        goes_on = await sweep.db.write(step, durable=False, committed=hold.ends)
        if not goes_on:
            gathered.ended = True
            if not gathered.worth(self._config):
                self._gathering = None
        return Done(examined=len(gathered.rows) - size, more=True, held_s=hold.held_s)

    async def _make(self, sweep: SweepContext, gathered: "_Gathered") -> Done:
        """One segment of what was gathered: planned, written, verified, stored, sealed."""
        rows = sorted(gathered.take(self._config.segment_jobs), key=lambda row: (row.created_at, row.id))
        if gathered.ended and not gathered.rows:
            self._gathering = None
        if not rows:
            return Done(more=True)
        segment = await making.plan(sweep, gathered.move.rule.name)
        scratch = await making.scratch_of(sweep, self._storage, segment)
        try:
            facts, entries = await making.write(sweep, self._codec, [row.id for row in rows], scratch)
            if not entries:  # somebody removed them all
                await making.throw_away(sweep, self._storage, segment)
                return Done(more=True)
            await making.store(sweep, self._storage, segment, scratch, facts)
        finally:
            await asyncio.to_thread(scratch.unlink, missing_ok=True)
        self._leaving.append(Leaving(await making.seal(sweep, segment), entries))
        self._trouble = 0
        _log.info("a segment is sealed", segment=segment.id, rule=segment.rule, jobs=facts.rows, bytes=facts.bytes)
        return Done(examined=len(rows), more=True)

    async def _let_go(self, sweep: SweepContext, limit: int) -> Done:
        """A batch of a sealed segment's jobs leaves the database, or stays because something changed."""
        leaving = self._leaving[0]
        entries = leaving.next(limit)
        hold = Hold()

        def step(conn: Connection) -> int:
            hold.begins()
            return let_go(conn, sweep, self._codec, leaving, entries, sweep.fence(conn))

        gone = await sweep.db.write(step, durable=False, committed=hold.ends)
        leaving.settled(len(entries))
        if leaving.done:
            self._leaving.popleft()
        return Done(examined=len(entries), changed=gone, more=True, held_s=hold.held_s)


def _is_unfinished(conn: Connection) -> bool:
    return bool(catalog.in_state(conn, SegmentState.PLANNED, SegmentState.WRITTEN, SegmentState.SEALED, limit=1))


class _Gathered:
    """Jobs of one move that are to be archived."""

    def __init__(self, move: Move) -> None:
        self.move = move
        self.rows: list[JobRow] = []
        self.cursor = Cursor()
        self.ended = False
        self.now_ms = 0

    def full(self, size: int) -> bool:
        return self.ended or len(self.rows) >= size

    def worth(self, config: ArchiveConfig) -> bool:
        """Whether they are enough for a file, or have waited long enough."""
        if not self.rows:
            return False
        ripe_ms = self.now_ms - self.move.age.ms - int(config.patience * 1000)
        return len(self.rows) >= config.least_jobs or any((row.base_at or 0) <= ripe_ms for row in self.rows)

    def take(self, size: int) -> list[JobRow]:
        taken, self.rows = self.rows[:size], self.rows[size:]
        return taken
