"""One batch of a move: choose, ask the rules again, act, and write the audit, in one transaction under the lease."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Connection, insert, update

from darner.core.job import Tier
from darner.db import Lease, renew_lease
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_batch
from darner.retention.rules import UNCLASSIFIED, Move, Order, verdict
from darner.retention.sql.due import due_statement, job_class
from darner.retention.sql.facts import JobRow, facts_of
from darner.retention.values import Batch, Cursor

# A job's parts and events move with it: a batch is cut where it would have more parts than this.
_PARTS_PER_BATCH = 5_000
# Moves the jobs (ids, now in unix ms) with all that is theirs; the bytes that they took.
Act = Callable[[Connection, Sequence[int], int], int]


def action_of(move: Move) -> str:
    """The move's word in the audit."""
    words = {None: "delete", Tier.DELETED: "hide", Tier.WARM: "fold", Tier.ARCHIVE: "archive"}
    return words[move.to]


def move_batch(
    conn: Connection,
    held: Lease,
    *,
    move: Move,
    order: Order,
    class_id: int,
    act: Act,
    run_id: int,
    policy_version: int,
    after: Cursor,
    limit: int,
    ttl_s: float,
) -> Batch:
    """Move at most `limit` due jobs. LeaseLostError before anything is touched."""
    now_ms = renew_lease(conn, held, ttl_s=ttl_s).until_ms - int(ttl_s * 1000)
    rows = conn.execute(due_statement(move, class_id, now_ms, after=after, limit=limit)).all()
    if not rows:
        return Batch()
    taken = list(_light(facts_of(conn, rows, order)))
    cursor = Cursor(base_at=taken[-1].base_at or 0, id=taken[-1].id)
    judged = [(row, verdict(row, order)) for row in taken]
    going = [row for row, judgement in judged if judgement.rule == move.rule.name and judgement.due(now_ms)]
    _declassify(conn, [row.id for row, judgement in judged if judgement.rule != move.rule.name])
    freed = 0
    if going:
        freed = act(conn, [row.id for row in going], now_ms)
        _audit(conn, going, move=move, run_id=run_id, policy_version=policy_version, epoch=held.epoch, freed=freed, now_ms=now_ms)
    return Batch(examined=len(taken), changed=len(going), bytes=freed, cursor=cursor)


def _audit(
    conn: Connection, rows: Sequence[JobRow], *, move: Move, run_id: int, policy_version: int, epoch: int, freed: int, now_ms: int
) -> None:
    ends = [row.finished_at or 0 for row in rows]
    ids = ",".join(str(row.id) for row in rows)
    conn.execute(
        insert(retention_batch).values(
            run_id=run_id,
            rule=move.rule.name,
            action=action_of(move),
            at=now_ms,
            removed=len(rows),
            bytes=freed,
            policy_version=policy_version,
            epoch=epoch,
            oldest_at=min(ends),
            newest_at=max(ends),
            ids_digest=hashlib.sha256(ids.encode()).hexdigest(),
        )
    )


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
