"""Jobs hidden for a time, brought back, and gone for good. Each repeats the conditions that nothing may pass."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, delete, update

from darner.core.errors import DarnerError
from darner.core.job import END_STATES, Tier
from darner.db import bounded_delete
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import JOB_TABLES, job
from darner.retention.policy import FLOOR_MS

# What goes with a job. A row of the outbox that a sink has not acknowledged never gets here (`sql.due`).
_CHILDREN = (*(table for table in JOB_TABLES if table is not job), export_outbox)


def erase_jobs(conn: Connection, ids: Sequence[int], now_ms: int) -> int:
    """Delete jobs with all that is theirs."""
    for table in _CHILDREN:
        conn.execute(delete(table).where(table.c.job_id.in_(ids)))
    removed = bounded_delete(conn, job, _may_go(ids, now_ms), limit=len(ids), order_by=[job.c.id])
    _all_or_nothing(len(ids), removed)
    return 0


def hide_jobs(conn: Connection, ids: Sequence[int], now_ms: int) -> int:
    """Soft-delete jobs: lists stop showing them, and from now on counts the time in which they can be restored."""
    hidden = conn.execute(update(job).where(_may_go(ids, now_ms)).values(tier=int(Tier.DELETED), base_at=now_ms)).rowcount
    _all_or_nothing(len(ids), hidden)
    return 0


def _may_go(ids: Sequence[int], now_ms: int) -> ColumnElement[bool]:
    return and_(job.c.id.in_(ids), job.c.state.in_(sorted(END_STATES)), job.c.held == 0, job.c.finished_at <= now_ms - FLOOR_MS)


def _all_or_nothing(wanted: int, done: int) -> None:
    if done != wanted:
        raise DarnerError(f"{wanted} jobs were due and {done} could be removed; nothing was changed.")
