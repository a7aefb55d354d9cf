"""Ended jobs sorted into the classes of an order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, Update, and_, select, update

from darner.core.job import END_STATES, Tier
from darner.db import Keys, Statement, among_keys, given
from darner.db.tables.jobs import job
from darner.retention.policy import Basis, Rule
from darner.retention.rules import HELD, UNCLASSIFIED, Order, class_under, rule_for
from darner.retention.sql import groups
from darner.retention.sql.due import ORDER_BY, Number, beyond, beyond_given, job_class, places
from darner.retention.sql.facts import FACTS, JobRow, facts_of
from darner.retention.sql.groups import ReadArgs
from darner.retention.values import Batch, Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorting:
    """What is sorted how: ended jobs of the class `stale` and a tier, into the classes of an order; `ids`: their numbers."""

    order: Order
    ids: Mapping[str, int]
    stale: int
    tier: Tier
    enqueue: Callable[[Connection, Sequence[int], str, int], object] | None = None
    read_args: ReadArgs | None = None


def classify_batch(conn: Connection, sorting: Sorting, *, after: Cursor, limit: int, now_ms: int) -> Batch:
    """Sort at most `limit` jobs, put those whose rule names a sink on their way to it, and the last of groups into their class."""
    values = {"class_id": sorting.stale, "tier": int(sorting.tier), "limit": limit, **places(after)}
    rows: Sequence[Any] = _ENDED.run(conn, **values).all()
    if not rows:
        return Batch()
    ruled = [(row, rule_for(row, sorting.order.policy)) for row in facts_of(conn, rows, sorting.order)]
    kept = groups.regroup(conn, ruled, sorting.ids, sorting.read_args) if _keeps_last(sorting.order) else {}
    found: dict[tuple[int, Basis | None], list[int]] = {}
    for row, rule in ruled:
        found.setdefault(_place(row, rule, kept, sorting), []).append(row.id)
    changed = sum(_put(conn, keys, number, basis) for (number, basis), keys in found.items() if number != sorting.stale)
    _send(conn, ruled, sorting, now_ms)
    return Batch(examined=len(rows), changed=changed, cursor=Cursor(base_at=rows[-1].base_at, id=rows[-1].id))


def ended_statement(class_id: int, tier: Tier, *, after: Cursor, limit: int) -> Select[Any]:
    """The next ended jobs of a class and tier, oldest first; locked on servers."""
    return _ended(class_id, int(tier), beyond(after), limit)


def ended_where(class_id: Number, tier: Number) -> ColumnElement[bool]:
    """The ended jobs of a class and tier."""
    here = (job_class == class_id, job.c.tier == tier, job.c.base_at >= 1)
    return and_(*here, job.c.state.in_(sorted(END_STATES)))


def _ended(class_id: Number, tier: Number, following: ColumnElement[bool], limit: Number) -> Select[Any]:
    found = select(*FACTS).where(ended_where(class_id, tier), following).order_by(*ORDER_BY).limit(limit)
    return found.with_for_update(skip_locked=True)


def _keeps_last(order: Order) -> bool:
    return any(rule.keep_last is not None for rule in order.policy.rules)


def _place(row: JobRow, rule: Rule | None, kept: Mapping[int, str], sorting: Sorting) -> tuple[int, Basis | None]:
    """A job's class, and what its ages count from; None: leave that (a hidden job counts from when it was hidden)."""
    name = class_under(row, rule, sorting.order)
    if rule is not None and name == rule.name:
        name = kept.get(row.id, name)
    basis = rule.basis if rule else Basis.FINISHED
    return (sorting.ids[name] if name else HELD), (None if row.tier == Tier.DELETED else basis)


def _put(conn: Connection, keys: Sequence[int], number: int, basis: Basis | None) -> int:
    return _PUT[basis].run(conn, Keys(keys), class_id=number).rowcount


def _into(dialect: str, basis: Basis | None) -> Update:
    values: dict[Any, Any] = {job_class: given("class_id", Integer)}
    if basis is not None:
        values[job.c.base_at] = job.c.finished_at if basis == Basis.FINISHED else job.c.created_at
    return update(job).where(among_keys(dialect, job.c.id)).values(values)


def _send(conn: Connection, ruled: Sequence[tuple[JobRow, Rule | None]], sorting: Sorting, now_ms: int) -> None:
    """Into the outbox of their rule's sink; those that are there already stay as they are."""
    if sorting.enqueue is None:
        return
    sinks: dict[str, list[int]] = {}
    for row, rule in ruled:
        if rule is not None and rule.export:
            sinks.setdefault(rule.export, []).append(row.id)
    for sink, ids in sinks.items():
        sorting.enqueue(conn, ids, sink, now_ms)


def unsorted_statement() -> Select[Any]:
    """A job that has ended and is in no class yet."""
    new = (job_class == UNCLASSIFIED, job.c.tier == int(Tier.HOT), beyond(Cursor()))
    return select(job.c.id).where(*new).order_by(*ORDER_BY).limit(1)


_ENDED = Statement(lambda _: _ended(given("class_id", Integer), given("tier", Integer), beyond_given(), given("limit", Integer)))
_PUT = {basis: Statement(lambda dialect, basis=basis: _into(dialect, basis)) for basis in (None, *Basis)}  # type: ignore[misc]
