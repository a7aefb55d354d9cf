"""Jobs hidden for a time, brought back, and gone for good. Each repeats the conditions that nothing may pass."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from darner.core.errors import DarnerError
from darner.core.job import END_STATES, Tier
from darner.db import among, bounded_delete, delete_among, lean_binlog
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import JOB_TABLES, job, job_event, job_fold, job_part, job_payload
from darner.retention.policy import FLOOR_MS

# A warm job has no rows in these.
_HOT_ONLY = (job_payload, job_part)
# What goes with every job. A row of the outbox that a sink has not acknowledged never gets here (`sql.due`).
_CHILDREN = (*(table for table in JOB_TABLES if table not in {job, job_fold, *_HOT_ONLY}), export_outbox)
# What a row takes beside its texts: fixed columns, index entries, and the page's share (spec/retention.md, fact 7).
_ROW_BYTES = {job.name: 500, job_payload.name: 40, job_part.name: 360, job_event.name: 150, job_fold.name: 40}


def erase_jobs(conn: Connection, ids: Sequence[int], now_ms: int) -> int:
    """Delete jobs with all that is theirs; about how many bytes they took."""
    lean_binlog(conn)
    freed = _text_bytes(conn, ids)
    folds = delete_among(conn, job_fold, job_fold.c.job_id, ids)
    freed += folds * _ROW_BYTES[job_fold.name]
    for table in (*_CHILDREN, *(_HOT_ONLY if folds < len(ids) else ())):
        gone = delete_among(conn, table, table.c.job_id, ids)
        freed += gone * _ROW_BYTES.get(table.name, 60)
    removed = bounded_delete(conn, job, _may_go(conn, ids, now_ms), limit=len(ids), order_by=[job.c.id])
    _all_or_nothing(len(ids), removed)
    return freed + removed * _ROW_BYTES[job.name]


def hide_jobs(conn: Connection, ids: Sequence[int], now_ms: int) -> int:
    """Soft-delete jobs: lists stop showing them, and from now on counts the time in which they can be restored."""
    hidden = conn.execute(update(job).where(_may_go(conn, ids, now_ms)).values(tier=int(Tier.DELETED), base_at=now_ms)).rowcount
    _all_or_nothing(len(ids), hidden)
    return 0


def _text_bytes(conn: Connection, ids: Sequence[int]) -> int:
    """The long texts of jobs; by far the most of what they take."""
    asked = func.length(job_payload.c.args) + func.coalesce(func.length(job_payload.c.result), 0)
    sums = (
        select(func.coalesce(func.sum(asked), 0)).where(among(conn, job_payload.c.job_id, ids)),
        select(func.coalesce(func.sum(func.length(job_fold.c.body)), 0)).where(among(conn, job_fold.c.job_id, ids)),
    )
    return sum(int(conn.execute(one).scalar_one()) for one in sums)


def _may_go(conn: Connection, ids: Sequence[int], now_ms: int) -> ColumnElement[bool]:
    ended = job.c.state.in_(sorted(END_STATES))
    return and_(among(conn, job.c.id, ids), ended, job.c.held == 0, job.c.finished_at <= now_ms - FLOOR_MS)


def _all_or_nothing(wanted: int, done: int) -> None:
    if done != wanted:
        raise DarnerError(f"{wanted} jobs were due and {done} could be removed; nothing was changed.")
