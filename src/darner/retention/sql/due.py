"""Which jobs a move may take now: the one predicate for previews, dry runs, and the moves themselves."""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select

from darner.core.job import END_STATES, Tier
from darner.db.tables.jobs import job
from darner.retention.policy import FLOOR_MS, Basis
from darner.retention.rules import Move
from darner.retention.sql.facts import FACTS
from darner.retention.values import Cursor

ORDER_BY = (job.c.base_at, job.c.id)
job_class = job.c["class"]


def due_where(move: Move, member: ColumnElement[bool], now_ms: int) -> ColumnElement[bool]:
    """The jobs that a move may take. `member`: which jobs are of its rule (by class, or by a match for previews).

    The floor, the end states and `held = 0` are always part of it, whatever the policy says.
    """
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
    """The next jobs that a move may take, oldest first; locked on servers."""
    where = and_(due_where(move, job_class == class_id, now_ms), beyond(after))
    return select(*FACTS).where(where).order_by(*ORDER_BY).limit(limit).with_for_update(skip_locked=True)


def beyond(after: Cursor) -> ColumnElement[bool]:
    """A keyset: strictly after (base_at, id). The first term lets every planner use the index."""
    later = or_(job.c.base_at > after.base_at, job.c.id > after.id)
    start = job.c.base_at >= max(1, after.base_at)
    return start & later
