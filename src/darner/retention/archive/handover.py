"""The handover of jobs from the database to the archive, in steps that may each be the last (spec/retention.md, 5.5).

A segment is planned, written, read back, stored, sealed; only then its jobs leave the database, in batches behind the sweep's
fence. Readers prefer the database, so that a job which is in both is seen once. After a crash an unsealed segment is thrown away
and made anew, and a sealed one goes on losing its jobs where it stopped. Whatever changed meanwhile (a hold, a new line in the
timeline) keeps its job in the database and marks it absent from the segment.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from darner.core.errors import DarnerError, NotFoundError
from darner.core.job import Tier
from darner.db.tables.jobs import job, job_event
from darner.history.codec import Codec
from darner.history.redact import redact_record
from darner.history.rows import read_records
from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.segment import Facts, Writer, ids_of, verify
from darner.retention.archive.storage import Storage
from darner.retention.rules import Move, moves, verdict
from darner.retention.sql import groups
from darner.retention.sql.due import acknowledged
from darner.retention.sql.facts import FACTS, JobRow, facts_of
from darner.retention.sql.remove import erase_jobs
from darner.retention.sql.step import choose
from darner.retention.sweep.work import Done, SweepContext
from darner.retention.values import Cursor

_log = get_logger("archive")
_READ_AT_ONCE = 250


class HandoverWork:
    """Makes segments and empties sealed ones, a bounded piece a batch. Loses nothing, so it is no removing work."""

    name = "archive"
    removes = False

    def __init__(self, *, storage: Storage, codec: Codec, config: ArchiveConfig) -> None:
        """The storage is used in threads."""
        self._storage = storage
        self._codec = codec
        self._config = config
        self._moves: deque[Move] | None = None
        self._gathering: _Gathered | None = None
        self._leaving: deque[_Leaving] = deque()

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        """The next piece: clean up after a crash, let jobs of a sealed segment go, gather, or make a segment."""
        if self._moves is None:
            await self._recover(sweep)
            self._moves = deque(_archive_moves(sweep))
            return Done(more=True)
        if self._leaving:
            return await self._let_go(sweep, limit)
        if self._gathering is None:
            if not self._moves:
                return Done()
            self._gathering = _Gathered(self._moves.popleft())
        if not self._gathering.full(self._config.segment_jobs):
            return await self._gather(sweep, self._gathering, limit)
        return await self._make(sweep, self._gathering)

    async def _recover(self, sweep: SweepContext) -> None:
        """Throw away what nobody has seen; go on with what was sealed."""
        for segment in await sweep.db.read(lambda conn: catalog.in_state(conn, SegmentState.PLANNED, SegmentState.WRITTEN)):
            await asyncio.to_thread(self._storage.delete, segment.location)

            def forget(conn: Connection, segment: Segment = segment) -> None:
                sweep.fence(conn)
                catalog.forget(conn, segment.id)

            await sweep.db.write(forget)
            _log.info("an unfinished segment is made anew", segment=segment.id, rule=segment.rule)
        for segment in await sweep.db.read(lambda conn: catalog.in_state(conn, SegmentState.SEALED)):
            await self._queue(sweep, segment)

    async def _queue(self, sweep: SweepContext, segment: Segment) -> None:
        """Have the jobs of a sealed segment leave."""
        try:
            file = await asyncio.to_thread(self._storage.local, segment.location)
            ids = await asyncio.to_thread(ids_of, file)
        except DarnerError as error:
            told = error.message
            await sweep.db.write(lambda conn: catalog.told_error(conn, segment.id, told))
            _log.warning("a sealed segment cannot be read; its jobs stay in the database", segment=segment.id, reason=told)
            raise
        self._leaving.append(_Leaving(segment, deque(key for key, _ in ids)))

    async def _gather(self, sweep: SweepContext, gathered: "_Gathered", limit: int) -> Done:
        """Choose the next jobs of a move. They are judged again when they leave."""
        class_id = sweep.classes.get(gathered.move.rule.name)
        if class_id is None:
            self._gathering = None
            return Done(more=True)
        began = time.monotonic()

        def step(conn: Connection) -> bool:
            nonlocal began
            now_ms = sweep.fence(conn)
            began = time.monotonic()
            chosen = choose(conn, sweep, move=gathered.move, class_id=class_id, now_ms=now_ms, after=gathered.cursor, limit=limit)
            gathered.rows += chosen.going
            gathered.now_ms = now_ms
            if chosen.cursor is not None:
                gathered.cursor = chosen.cursor
            return chosen.cursor is not None

        size = len(gathered.rows)
        goes_on = await sweep.db.write(step, durable=False)
        held_s = time.monotonic() - began
        if not goes_on:
            gathered.ended = True
            if not gathered.worth(self._config):
                self._gathering = None
        return Done(examined=len(gathered.rows) - size, more=True, held_s=held_s)

    async def _make(self, sweep: SweepContext, gathered: "_Gathered") -> Done:
        """One segment of what was gathered: planned, written, verified, stored, sealed."""
        rows = sorted(gathered.take(self._config.segment_jobs), key=lambda row: (row.created_at, row.id))
        if gathered.ended and not gathered.rows:
            self._gathering = None
        if not rows:
            return Done(more=True)
        location = _name(gathered.move.rule.name, gathered.now_ms)

        def plan(conn: Connection) -> int:
            now_ms = sweep.fence(conn)
            values = {"rule": gathered.move.rule.name, "policy_version": sweep.policy_version, "epoch": sweep.lease.epoch}
            return catalog.plan(conn, **values, location=location, now_ms=now_ms)  # type: ignore[arg-type]

        segment_id = await sweep.db.write(plan)
        scratch = (await asyncio.to_thread(self._storage.scratch)) / f"{segment_id}.{sweep.lease.epoch}.parquet"
        try:
            facts = await self._write(sweep, [row.id for row in rows], scratch)
            await asyncio.to_thread(self._storage.put, location, scratch)
        except BaseException:
            await asyncio.to_thread(scratch.unlink, missing_ok=True)
            raise
        await asyncio.to_thread(scratch.unlink, missing_ok=True)

        def store(conn: Connection) -> None:
            sweep.fence(conn)
            catalog.written(conn, segment_id, facts)

        await sweep.db.write(store)

        def seal(conn: Connection) -> Segment:
            catalog.seal(conn, segment_id, sweep.fence(conn))
            found = catalog.find(conn, segment_id)
            if found is None:
                raise NotFoundError(f"Segment {segment_id} is gone.")
            return found

        await self._queue(sweep, await sweep.db.write(seal))
        _log.info("a segment is sealed", segment=segment_id, rule=gathered.move.rule.name, jobs=facts.rows, bytes=facts.bytes)
        return Done(examined=len(rows), more=True)

    async def _write(self, sweep: SweepContext, ids: Sequence[int], file: Path) -> Facts:
        """The file, read back; its facts."""
        writer = await asyncio.to_thread(Writer, file)
        try:
            for start in range(0, len(ids), _READ_AT_ONCE):
                wanted = ids[start : start + _READ_AT_ONCE]

                def read(conn: Connection, wanted: Sequence[int] = wanted) -> None:
                    writer.add([redact_record(one) for one in read_records(conn, wanted, self._codec)])

                await sweep.db.read(read)
            facts = await asyncio.to_thread(writer.close)
        except BaseException:
            await asyncio.to_thread(writer.give_up)
            raise
        return await asyncio.to_thread(verify, file, facts)

    async def _let_go(self, sweep: SweepContext, limit: int) -> Done:
        """A batch of a sealed segment's jobs leaves the database, or stays because something changed."""
        leaving = self._leaving[0]
        ids = [leaving.ids.popleft() for _ in range(min(limit, len(leaving.ids)))]
        began = time.monotonic()

        def step(conn: Connection) -> int:
            nonlocal began
            now_ms = sweep.fence(conn)
            began = time.monotonic()
            going, staying = _judged(conn, sweep, leaving.segment, ids, now_ms)
            if going:
                erase_jobs(conn, [row.id for row in going], now_ms)
                sweep.tell(conn, "archive", leaving.segment.rule, going, bytes_freed=0, now_ms=now_ms)
            catalog.count_left(conn, leaving.segment.id, deleted=len(going), skipped=staying)
            if not leaving.ids:
                catalog.live(conn, leaving.segment.id)
            return len(going)

        gone = await sweep.db.write(step, durable=not leaving.ids)
        if not leaving.ids:
            self._leaving.popleft()
        return Done(examined=len(ids), changed=gone, more=True, held_s=time.monotonic() - began)


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


class _Leaving:
    """A sealed segment and the ids of its jobs that are still to leave."""

    def __init__(self, segment: Segment, ids: deque[int]) -> None:
        self.segment = segment
        self.ids = ids


def _judged(
    conn: Connection, sweep: SweepContext, segment: Segment, ids: Sequence[int], now_ms: int
) -> tuple[list[JobRow], list[int]]:
    """Which jobs may leave, and which must stay. Those that are in neither have left before."""
    wanted = select(*FACTS).where(job.c.id.in_(ids)).order_by(job.c.id).with_for_update()
    rows: Any = conn.execute(wanted).all()
    found = facts_of(conn, rows, sweep.order)
    told_since = select(job_event.c.job_id).where(job_event.c.job_id.in_(ids), job_event.c.at >= segment.created_at)
    barred = set(conn.execute(told_since).scalars())
    rule = next((one for one in sweep.order.policy.rules if one.name == segment.rule), None)
    if rule is not None and rule.export:
        has = select(job.c.id).where(job.c.id.in_(ids), acknowledged(rule.export))
        barred |= set(ids) - set(conn.execute(has).scalars())
    if rule is not None and rule.keep_last is not None:
        barred |= groups.newest(conn, [row.id for row in found], rule.keep_last.count)
    going = [row for row in found if row.id not in barred and _may_leave(row, sweep, segment, now_ms)]
    leaving = {row.id for row in going}
    return going, [row.id for row in found if row.id not in leaving]


def _may_leave(row: JobRow, sweep: SweepContext, segment: Segment, now_ms: int) -> bool:
    judgement = verdict(row, sweep.order)
    rests = row.tier in {Tier.HOT, Tier.WARM}
    return rests and judgement.rule == segment.rule and judgement.due(now_ms)


def _archive_moves(sweep: SweepContext) -> list[Move]:
    return [move for rule in sweep.order.policy.rules for move in moves(rule) if move.to == Tier.ARCHIVE]


def _name(rule: str, now_ms: int) -> str:
    """`2026/11/success-20261125T101500-1a2b3c4d.parquet`: never the same twice."""
    at = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    return f"{at:%Y/%m}/{rule}-{at:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.parquet"
