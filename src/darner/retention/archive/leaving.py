"""Jobs of a sealed segment leave the database, unless they changed since they were archived."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from darner.core.job import Tier
from darner.db.tables.jobs import job
from darner.history.codec import Codec
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment
from darner.retention.archive.making import current_rows, current_stamps
from darner.retention.archive.segment import Entry, digest_of
from darner.retention.export.outbox import acknowledged
from darner.retention.rules import verdict
from darner.retention.sql import groups
from darner.retention.sql.facts import FACTS, JobRow, facts_of
from darner.retention.sql.remove import erase_jobs
from darner.retention.sweep.work import SweepContext


class Leaving:
    """A sealed segment, its jobs in its order, and how many of them are settled already."""

    def __init__(self, segment: Segment, entries: Sequence[Entry]) -> None:
        self.segment = segment
        self._entries = entries
        self._settled = segment.settled

    @property
    def done(self) -> bool:
        """Whether all have left or stay."""
        return self._settled >= len(self._entries)

    def next(self, limit: int) -> Sequence[Entry]:
        """The next jobs to look at."""
        return self._entries[self._settled : self._settled + limit]

    def settled(self, count: int) -> None:
        """So many more are settled, and that is committed."""
        self._settled += count


def let_go(conn: Connection, sweep: SweepContext, codec: Codec, leaving: Leaving, entries: Sequence[Entry], now_ms: int) -> int:
    """Delete those that may leave, and mark the others as not to be found in the segment; how many left.

    `now_ms` is what the fence gave in this transaction. The counters of the catalogue say how far it came: each job is looked at
    once, in the order of the segment, whatever happens in between.
    """
    segment = leaving.segment
    going = _going(conn, sweep, codec, segment, entries, now_ms)
    ids = {row.id for row in going}
    if going:
        freed = erase_jobs(conn, sorted(ids), now_ms)
        sweep.tell(conn, "archive", segment.rule, going, bytes_freed=freed, now_ms=now_ms)
    catalog.count_left(conn, segment.id, deleted=len(going), skipped=[one.id for one in entries if one.id not in ids])
    if not leaving.next(len(entries) + 1)[len(entries) :]:
        catalog.live(conn, segment.id)
    return len(going)


def _going(
    conn: Connection, sweep: SweepContext, codec: Codec, segment: Segment, entries: Sequence[Entry], now_ms: int
) -> list[JobRow]:
    """Those that are as they were archived and that the rules still send here. One that is gone was removed by somebody."""
    archived = {one.id: one for one in entries}
    wanted = select(*FACTS).where(job.c.id.in_(list(archived))).order_by(job.c.id).with_for_update()
    rows: Sequence[Any] = conn.execute(wanted).all()
    due = [row for row in facts_of(conn, rows, sweep.order) if _is_due(row, sweep, segment, now_ms)]
    ids = [row.id for row in due]
    going = _same(conn, codec, archived, ids) - _barred(conn, sweep, segment, ids)
    return [row for row in due if row.id in going]


def _same(conn: Connection, codec: Codec, archived: Mapping[int, Entry], ids: Sequence[int]) -> set[int]:
    """Those that are as they were archived."""
    same: set[int] = set()
    if any(archived[key].stamp for key in ids):
        same = {key for key, stamp in current_stamps(conn, ids, codec).items() if stamp == archived[key].stamp}
    doubtful = [key for key in ids if key not in same]
    return same | {row[0] for row, _ in current_rows(conn, doubtful, codec) if digest_of(row) == archived[row[0]].digest}


def _is_due(row: JobRow, sweep: SweepContext, segment: Segment, now_ms: int) -> bool:
    told = verdict(row, sweep.order)
    return row.tier in {Tier.HOT, Tier.WARM} and told.rule == segment.rule and told.due(now_ms)


def _barred(conn: Connection, sweep: SweepContext, segment: Segment, ids: Sequence[int]) -> set[int]:
    """Those that a sink does not have yet, and the last that the rule keeps of a group."""
    rule = sweep.order.policy.rule(segment.rule)
    found: set[int] = set()
    if rule is not None and rule.export and ids:
        has = select(job.c.id).where(job.c.id.in_(ids), acknowledged(rule.export))
        found |= set(ids) - set(conn.execute(has).scalars())
    if rule is not None and rule.keep_last is not None and ids:
        found |= groups.newest(conn, ids, rule.keep_last.count)
    return found
