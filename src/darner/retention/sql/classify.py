"""Ended jobs sorted into the classes of an order."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, and_, select, update

from darner.core.job import END_STATES, Tier
from darner.db import Lease, renew_lease
from darner.db.tables.jobs import job
from darner.retention.policy import Basis
from darner.retention.rules import HELD, Order, class_of, rule_for
from darner.retention.sql.due import ORDER_BY, beyond, job_class
from darner.retention.sql.facts import FACTS, JobRow, facts_of
from darner.retention.values import Batch, Cursor


def classify_batch(
    conn: Connection,
    held: Lease | None,
    *,
    order: Order,
    ids: Mapping[str, int],
    stale: int,
    tier: Tier,
    after: Cursor,
    limit: int,
    ttl_s: float,
) -> Batch:
    """Sort at most `limit` ended jobs of the class `stale` and a tier into those of the order; `ids`: the numbers of its classes.

    A dry run does so without a lease: it loses nothing, and whoever moves a job asks the rules again.
    """
    if held is not None:
        renew_lease(conn, held, ttl_s=ttl_s)
    rows = conn.execute(_ended_of(stale, tier, after).limit(limit).with_for_update(skip_locked=True)).all()
    if not rows:
        return Batch()
    groups: dict[tuple[int, Basis | None], list[int]] = {}
    for row in facts_of(conn, rows, order):
        groups.setdefault(_place(row, order, ids), []).append(row.id)
    changed = 0
    for (number, basis), keys in groups.items():
        if number == stale:
            continue
        values: dict[Any, Any] = {job_class: number}
        if basis is not None:
            values[job.c.base_at] = job.c.finished_at if basis == Basis.FINISHED else job.c.created_at
        changed += conn.execute(update(job).where(job.c.id.in_(keys)).values(values)).rowcount
    return Batch(examined=len(rows), changed=changed, cursor=Cursor(base_at=rows[-1].base_at, id=rows[-1].id))


def _place(row: JobRow, order: Order, ids: Mapping[str, int]) -> tuple[int, Basis | None]:
    """A job's class, and what its ages count from; None: leave that (a hidden job counts from when it was hidden)."""
    name = class_of(row, order)
    rule = rule_for(row, order.policy)
    basis = rule.basis if rule else Basis.FINISHED
    return (ids[name] if name else HELD), (None if row.tier == Tier.DELETED else basis)


def _ended_of(class_id: int, tier: Tier, after: Cursor) -> Select[Any]:
    ended = and_(job_class == class_id, job.c.tier == int(tier), job.c.state.in_(sorted(END_STATES)), beyond(after))
    if class_id == HELD:
        ended = and_(ended, job.c.held == 0)
    return select(*FACTS).where(ended).order_by(*ORDER_BY)
