"""Segments written anew from others: small ones merged into large ones, and those with jobs that must be erased.

Piece by piece, so that no batch is long. Readers change over in one transaction; nothing is lost by it, because the sum of the
digests of what was written must be that of what was there, less what was left out on purpose.
"""

import asyncio
import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection

from darner.core.errors import DarnerError
from darner.kit.log import get_logger
from darner.retention.archive import catalog, making
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.owner import claim
from darner.retention.archive.segment import NAMES, Facts, Row, Writer, digest_of, rows, verify
from darner.retention.archive.storage import Storage
from darner.retention.policy import DAY_MS
from darner.retention.rules import Order
from darner.retention.sweep.work import Done, SweepContext

_log = get_logger("archive")
_ROWS_AT_ONCE = 5_000
_MANY = 12
_MOST_FILES = 200
_MONTH_MS = 30 * DAY_MS
_SHARE = 12
_CREATED = NAMES.index("created_at")


class RewriteWork:
    """Erases first, then merges: one group of segments after the other."""

    name = "archive rewriting"
    removes = False

    def __init__(self, *, storage: Storage, config: ArchiveConfig, busy: set[int]) -> None:
        """The storage is used in threads. `busy`: segments that are being made, which no recovery throws away."""
        self._storage = storage
        self._config = config
        self._busy = busy
        self._rewrite: _Rewrite | None = None

    async def batch(self, sweep: SweepContext, limit: int) -> Done:  # noqa: ARG002  (it goes by rows of files)
        """Begin a group, carry some rows over, or finish it."""
        try:
            return await self._batch(sweep)
        except BaseException:
            await self._give_up()
            raise

    async def _batch(self, sweep: SweepContext) -> Done:
        if self._rewrite is None:
            group = await self._next(sweep)
            if not group:
                return Done()
            await claim(sweep.db, self._storage)
            self._rewrite = await self._begin(sweep, group)
            return Done(more=True)
        carried = await asyncio.to_thread(self._rewrite.carry, _ROWS_AT_ONCE)
        if not carried:
            await self._finish(sweep, self._rewrite)
            self._busy.discard(self._rewrite.segment.id)
            self._rewrite = None
        return Done(examined=carried, more=True)

    async def _next(self, sweep: SweepContext) -> list[Segment]:
        def find(conn: Connection) -> list[Segment]:
            now_ms = sweep.fence(conn)
            wanted = [one for one in catalog.to_erase(conn) if one.state in {SegmentState.LIVE, SegmentState.EXPIRED}]
            if wanted:
                return wanted[:1]
            live = catalog.in_state(conn, SegmentState.LIVE, limit=1_000_000)
            return next(iter(groups(live, sweep.order, self._config, now_ms)), [])

        return await sweep.db.write(find, durable=False)

    async def _begin(self, sweep: SweepContext, group: Sequence[Segment]) -> "_Rewrite":
        missing = await sweep.db.read(lambda conn: {one.id: set(catalog.absent_from(conn, one.id)) for one in group})
        segment = await making.plan(sweep, group[0].rule)
        self._busy.add(segment.id)
        return _Rewrite(self._storage, group, missing, segment, await making.scratch_of(sweep, self._storage, segment))

    async def _finish(self, sweep: SweepContext, rewrite: "_Rewrite") -> None:
        """Verify, store, and let readers change over; or give it up where the segments changed meanwhile."""
        try:
            facts = await asyncio.to_thread(rewrite.close)
            if facts.rows:
                checked = await asyncio.to_thread(verify, rewrite.file, facts)
                await making.store(sweep, self._storage, rewrite.segment, rewrite.file, checked)
        finally:
            await asyncio.to_thread(rewrite.file.unlink, missing_ok=True)
        new = rewrite.segment.id if facts.rows else 0

        def change(conn: Connection) -> bool:
            now_ms = sweep.fence(conn)
            return catalog.replace(conn, rewrite.group, new, rewrite.missing, now_ms)

        changed = await sweep.db.write(change)
        if not changed or not new:
            await making.throw_away(sweep, self._storage, rewrite.segment)
        if changed:
            _log.info("segments were written anew", segments=[one.id for one in rewrite.group], into=new, jobs=facts.rows)

    async def _give_up(self) -> None:
        """The catalogue still has the plan; the next handover or rewriting throws it away."""
        if self._rewrite is not None:
            self._busy.discard(self._rewrite.segment.id)
            await asyncio.to_thread(self._rewrite.give_up)
            self._rewrite = None


class _Rewrite:
    """Rows of several segments on their way into one, in the order of (created_at, id)."""

    def __init__(
        self, storage: Storage, group: Sequence[Segment], missing: Mapping[int, set[int]], segment: Segment, file: Path
    ) -> None:
        self.group = group
        self.missing = missing
        self.segment = segment
        self.file = file
        self._storage = storage
        self._open = ExitStack()
        self._writer: Writer | None = None
        self._rows: Iterator[Row] = iter(())
        self._left_out = 0

    def carry(self, count: int) -> int:
        """Carry the next rows over; how many."""
        if self._writer is None:
            files = self._open.enter_context(self._storage.reading([(one.location, one.sha256) for one in self.group]))
            self._writer = Writer(self.file)
            sources = [self._shown(file, one) for file, one in zip(files, self.group, strict=True)]
            self._rows = heapq.merge(*sources, key=_place)
        carried = 0
        for row in islice(self._rows, count):
            self._writer.add(row)
            carried += 1
        return carried

    def _shown(self, file: Path, segment: Segment) -> Iterator[Row]:
        missing = self.missing[segment.id]
        for row in rows(file):
            if row[0] in missing:
                self._left_out += digest_of(row)
            else:
                yield row

    def close(self) -> Facts:
        """The facts of what was written. DarnerError if they are not those of what was there."""
        if self._writer is None:
            raise DarnerError("Nothing was carried over.")
        facts = self._writer.close()
        self._open.close()
        there = sum(int(one.rows_digest, 16) for one in self.group) - self._left_out
        if int(facts.digest, 16) != there % 2**64:
            names = ", ".join(one.location for one in self.group)
            raise DarnerError(f"Of {names} one is not what was archived; they stay as they are.")
        return facts

    def give_up(self) -> None:
        """Close without finishing."""
        if self._writer is not None:
            self._writer.give_up()
        self._open.close()
        self.file.unlink(missing_ok=True)


def _place(row: Row) -> tuple[int, int]:
    return row[_CREATED], row[0]


def groups(live: Sequence[Segment], order: Order, config: ArchiveConfig, now_ms: int) -> Iterator[list[Segment]]:
    """Segments that are worth merging: small ones of one rule and one stretch of time.

    A stretch is a month, or less where the rule keeps jobs less than a year: a segment falls due with its youngest job. They are
    merged when there are many, or when no more came for a day. One that is larger than the others together is left alone, so that a
    job is written anew a few times at most; so is one whose time is over soon.
    """
    small = [one for one in live if one.row_count * 2 <= config.merged_jobs and not one.error]
    for rule in order.policy.rules:
        over_ms = now_ms + DAY_MS - (rule.ends.ms if rule.ends else now_ms)
        fits = (one for one in small if one.rule == rule.name and one.max_base_at > over_ms)
        mine = sorted(fits, key=lambda one: (one.min_created_at, one.id))
        for segments in _stretches(mine, stretch_ms(rule.ends.ms if rule.ends else None)):
            group = _as_many_as_fit(_alike(segments), config.merged_jobs)
            rests = max((one.sealed_at or 0 for one in segments), default=0) + DAY_MS < now_ms
            if len(group) >= _MANY or (rests and len(group) > 1):
                yield group


def _stretches(segments: Sequence[Segment], stretch: int) -> Iterator[list[Segment]]:
    """Segments whose jobs are not further apart than a stretch; the oldest first."""
    together: list[Segment] = []
    for one in segments:
        if together and one.max_base_at - together[0].min_created_at > stretch:
            yield together
            together = []
        together.append(one)
    if together:
        yield together


def _alike(segments: Sequence[Segment]) -> list[Segment]:
    """Without those that are larger than all the smaller ones together; the oldest first."""
    ranked = sorted(segments, key=lambda one: one.row_count)
    while ranked and ranked[-1].row_count > sum(one.row_count for one in ranked[:-1]):
        ranked.pop()
    return sorted(ranked, key=lambda one: (one.min_created_at, one.id))


def stretch_ms(ends_ms: int | None) -> int:
    """How far apart the ends of jobs in one merged segment may be."""
    return _MONTH_MS if ends_ms is None else max(DAY_MS, min(_MONTH_MS, ends_ms // _SHARE))


def _as_many_as_fit(segments: Sequence[Segment], most: int) -> list[Segment]:
    group: list[Segment] = []
    total = 0
    for one in segments[:_MOST_FILES]:
        if total + one.row_count > most:
            break
        group.append(one)
        total += one.row_count
    return group
