"""One batch of a move: choose, ask the rules again, act, and write the audit, in one transaction behind the fence."""

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Connection, update

from darner.core.job import Tier
from darner.db.tables.jobs import job
from darner.retention.rules import UNCLASSIFIED, Move, verdict
from darner.retention.sql.due import due_statement, job_class
from darner.retention.sql.facts import JobRow, facts_of
from darner.retention.sweep.work import SweepContext
from darner.retention.values import Batch, Cursor

# A job's parts and events move with it: a batch is cut where it would have more parts than this.
_PARTS_PER_BATCH = 5_000
# Moves the jobs (ids, now in unix ms) with all that is theirs; the bytes that this freed.
Act = Callable[[Connection, Sequence[int], int], int]


def action_of(move: Move) -> str:
    """The move's word in the audit."""
    words = {None: "delete", Tier.DELETED: "hide", Tier.WARM: "fold", Tier.ARCHIVE: "archive"}
    return words[move.to]


def move_batch(conn: Connection, sweep: SweepContext, *, move: Move, class_id: int, act: Act, after: Cursor, limit: int) -> Batch:
    """Move at most `limit` due jobs. LeaseLostError or SweepEndedError before anything is touched."""
    now_ms = sweep.fence(conn)
    rows = conn.execute(due_statement(move, class_id, now_ms, after=after, limit=limit)).all()
    if not rows:
        return Batch()
    taken = list(_light(facts_of(conn, rows, sweep.order)))
    cursor = Cursor(base_at=taken[-1].base_at or 0, id=taken[-1].id)
    judged = [(row, verdict(row, sweep.order)) for row in taken]
    going = [row for row, judgement in judged if judgement.rule == move.rule.name and judgement.due(now_ms)]
    _declassify(conn, [row.id for row, judgement in judged if judgement.rule != move.rule.name])
    freed = 0
    if going:
        freed = act(conn, [row.id for row in going], now_ms)
        sweep.tell(conn, action_of(move), move.rule.name, going, bytes_freed=freed, now_ms=now_ms)
    return Batch(examined=len(taken), changed=len(going), bytes=freed, cursor=cursor)


def _declassify(conn: Connection, ids: Sequence[int]) -> None:
    """Jobs that changed since they were classified are sorted again by the next sweep."""
    if ids:
        conn.execute(update(job).where(job.c.id.in_(ids)).values({job_class: UNCLASSIFIED}))


def _light(rows: Sequence[JobRow]) -> Iterator[JobRow]:
    """As many rows, one at least, as have a bounded number of parts together."""
    parts = 0
    for row in rows:
        if parts and parts + row.part_count > _PARTS_PER_BATCH:
            return
        parts += max(1, row.part_count)
        yield row
