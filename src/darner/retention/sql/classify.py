"""Ended jobs sorted into the classes of an order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, select, update

from darner.core.job import END_STATES, Tier
from darner.db.tables.jobs import job
from darner.retention.policy import Basis
from darner.retention.rules import HELD, Order, class_of, rule_for
from darner.retention.sql.due import ORDER_BY, beyond, job_class
from darner.retention.sql.facts import FACTS, JobRow, facts_of
from darner.retention.values import Batch, Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorting:
    """What is sorted how: ended jobs of the class `stale` and a tier, into the classes of an order; `ids`: their numbers."""

    order: Order
    ids: Mapping[str, int]
    stale: int
    tier: Tier


def classify_batch(conn: Connection, sorting: Sorting, *, after: Cursor, limit: int) -> Batch:
    """Sort at most `limit` jobs."""
    statement = ended_statement(sorting.stale, sorting.tier, after=after, limit=limit)
    rows = conn.execute(statement).all()
    if not rows:
        return Batch()
    groups: dict[tuple[int, Basis | None], list[int]] = {}
    for row in facts_of(conn, rows, sorting.order):
        groups.setdefault(_place(row, sorting), []).append(row.id)
    changed = sum(_put(conn, keys, number, basis) for (number, basis), keys in groups.items() if number != sorting.stale)
    return Batch(examined=len(rows), changed=changed, cursor=Cursor(base_at=rows[-1].base_at, id=rows[-1].id))


def ended_statement(class_id: int, tier: Tier, *, after: Cursor, limit: int) -> Select[Any]:
    """The next ended jobs of a class and tier, oldest first; locked on servers."""
    ended = and_(job_class == class_id, job.c.tier == int(tier), job.c.state.in_(sorted(END_STATES)), beyond(after))
    return select(*FACTS).where(ended).order_by(*ORDER_BY).limit(limit).with_for_update(skip_locked=True)


def _place(row: JobRow, sorting: Sorting) -> tuple[int, Basis | None]:
    """A job's class, and what its ages count from; None: leave that (a hidden job counts from when it was hidden)."""
    name = class_of(row, sorting.order)
    rule = rule_for(row, sorting.order.policy)
    basis = rule.basis if rule else Basis.FINISHED
    return (sorting.ids[name] if name else HELD), (None if row.tier == Tier.DELETED else basis)


def _put(conn: Connection, keys: Sequence[int], number: int, basis: Basis | None) -> int:
    values: dict[Any, Any] = {job_class: number}
    if basis is not None:
        values[job.c.base_at] = job.c.finished_at if basis == Basis.FINISHED else job.c.created_at
    return conn.execute(update(job).where(job.c.id.in_(keys)).values(values)).rowcount
