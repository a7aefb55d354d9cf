"""Which jobs a move may take now: the one predicate for previews, dry runs, and the moves themselves."""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, literal, or_, select

from darner.core.job import END_STATES, Tier
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job
from darner.retention.policy import FLOOR_MS, Basis
from darner.retention.rules import Move
from darner.retention.sql.facts import FACTS
from darner.retention.values import Cursor

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


def acknowledged(sink: str) -> ColumnElement[bool]:
    """Whether a sink has a job."""
    row = (export_outbox.c.job_id == job.c.id, export_outbox.c.sink == sink, export_outbox.c.acked_at.is_not(None))
    return exists(select(export_outbox.c.id).where(*row))


def ripe_where(move: Move, member: ColumnElement[bool], now_ms: int) -> ColumnElement[bool]:
    """`due_where` but for the sink."""
    ripe = now_ms - move.age.ms
    counts_from_end = move.rule.basis == Basis.FINISHED and move.start != Tier.DELETED
    terms: list[ColumnElement[bool]] = [
        member,
        job.c.tier == int(move.start),
        job.c.base_at <= (min(ripe, now_ms - FLOOR_MS) if counts_from_end else ripe),
        job.c.state.in_(sorted(END_STATES)),
        job.c.held == 0,
        job.c.finished_at <= now_ms - FLOOR_MS,
    ]
    if move.before is not None:
        terms.append(job.c.base_at > now_ms - move.before.ms)
    return and_(*terms)


def due_statement(move: Move, class_id: int, now_ms: int, *, after: Cursor, limit: int) -> Select[Any]:
    """The next jobs that are ripe for a move, oldest first; locked on servers. `may_leave` 0: the sink does not have it yet.

    That is a column, not a condition, so that one statement never looks at more than `limit` jobs while a sink is away.
    """
    where = and_(ripe_where(move, job_class == class_id, now_ms), beyond(after))
    may_leave = case((acknowledged(move.rule.export), 1), else_=0) if is_gated(move) else literal(1)
    found = select(*FACTS, may_leave.label("may_leave")).where(where).order_by(*ORDER_BY).limit(limit)
    return found.with_for_update(skip_locked=True)


def beyond(after: Cursor) -> ColumnElement[bool]:
    """A keyset: strictly after (base_at, id). The first term lets every planner use the index."""
    later = or_(job.c.base_at > after.base_at, job.c.id > after.id)
    start = job.c.base_at >= max(1, after.base_at)
    return start & later
