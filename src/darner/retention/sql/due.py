"""Which jobs a move may take now: the one predicate for previews, dry runs, and the moves themselves."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, and_, case, literal, or_, select

from darner.core.job import END_STATES, Tier
from darner.db import Statement, given
from darner.db.tables.jobs import job
from darner.retention.export.outbox import acknowledged
from darner.retention.policy import FLOOR_MS, Basis
from darner.retention.rules import Move
from darner.retention.sql.facts import FACTS
from darner.retention.values import Cursor

# A number, or the parameter of a statement that is built once.
Number = int | ColumnElement[int]
ORDER_BY = (job.c.base_at, job.c.id)
job_class = job.c["class"]


def due_where(move: Move, member: ColumnElement[bool], now_ms: int) -> ColumnElement[bool]:
    """The jobs that a move may take. `member`: which jobs are of its rule (by class, or by a match for previews).

    The floor, the end states and `held = 0` are always part of it, whatever the policy says; and that the rule's sink, if it names
    one, has the job before it leaves the database.
    """
    ripe = ripe_where(move, member, now_ms)
    return and_(ripe, acknowledged(move.rule.export)) if is_gated(move) else ripe


def is_gated(move: Move) -> bool:
    """Whether the rule's sink must have acknowledged a job first. Hidden jobs passed that when they were hidden by a sweep."""
    return bool(move.rule.export) and move.to != Tier.WARM


def ripe_where(move: Move, member: ColumnElement[bool], now_ms: Number) -> ColumnElement[bool]:
    """`due_where` but for the sink."""
    counts_from_end = move.rule.basis == Basis.FINISHED and move.start != Tier.DELETED
    terms: list[ColumnElement[bool]] = [
        member,
        job.c.tier == int(move.start),
        job.c.base_at <= now_ms - (max(move.age.ms, FLOOR_MS) if counts_from_end else move.age.ms),
        job.c.state.in_(sorted(END_STATES)),
        job.c.held == 0,
        job.c.finished_at <= now_ms - FLOOR_MS,
    ]
    if move.before is not None:
        terms.append(job.c.base_at > now_ms - move.before.ms)
    return and_(*terms)


def due_rows(conn: Connection, move: Move, class_id: int, now_ms: int, *, after: Cursor, limit: int) -> Sequence[Any]:
    """`due_statement`, run: FACTS and `may_leave`."""
    return _due(move).run(conn, class_id=class_id, now_ms=now_ms, limit=limit, **places(after)).all()


def due_statement(move: Move, class_id: int, now_ms: int, *, after: Cursor, limit: int) -> Select[Any]:
    """The next jobs that are ripe for a move, oldest first; locked on servers. `may_leave` 0: the sink does not have it yet.

    That is a column, not a condition, so that one statement never looks at more than `limit` jobs while a sink is away.
    """
    return _ripe(move, job_class == class_id, now_ms, beyond(after), limit)


@lru_cache(maxsize=256)
def _due(move: Move) -> Statement:
    """The same for any class, moment, place and limit."""
    member = job_class == given("class_id", Integer)
    return Statement(lambda _: _ripe(move, member, given("now_ms"), beyond_given(), given("limit", Integer)))


def _ripe(move: Move, member: ColumnElement[bool], now_ms: Number, following: ColumnElement[bool], limit: Number) -> Select[Any]:
    where = and_(ripe_where(move, member, now_ms), following)
    may_leave = case((acknowledged(move.rule.export), 1), else_=0) if is_gated(move) else literal(1)
    found = select(*FACTS, may_leave.label("may_leave")).where(where).order_by(*ORDER_BY).limit(limit)
    return found.with_for_update(skip_locked=True)


def beyond(after: Cursor) -> ColumnElement[bool]:
    """A keyset: strictly after (base_at, id). The first term lets every planner use the index."""
    return _following(**places(after))


def beyond_given() -> ColumnElement[bool]:
    """`beyond`, for a `Statement`; `places` are its values."""
    return _following(after_at=given("after_at"), after_id=given("after_id"), from_at=given("from_at"))


def places(after: Cursor) -> dict[str, int]:
    """The values of `beyond_given`."""
    return {"after_at": after.base_at, "after_id": after.id, "from_at": max(1, after.base_at)}


def _following(*, after_at: Number, after_id: Number, from_at: Number) -> ColumnElement[bool]:
    return (job.c.base_at >= from_at) & or_(job.c.base_at > after_at, job.c.id > after_id)
