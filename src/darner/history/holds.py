"""Holds on single jobs: in the job's row, where every move asks for it, and in `retention_hold`, where people look.

A hold shows a hidden (soft-deleted) job again. Each of these is a step of the caller's transaction, and is told in the timeline.
"""

from sqlalchemy import Connection, delete, insert, select, update

from darner.core.errors import InvalidInputError, NotFoundError
from darner.core.job import Tier
from darner.db.tables.jobs import job, job_event
from darner.db.tables.retention import retention_hold
from darner.history.rows import is_folded
from darner.kit.moments import rfc3339

REASON_LIMIT = 512
_MESSAGE_LIMIT = 1024
# The class is a consequence of the hold, so the sweeper gives it anew.
_UNSORTED = {"class": 0}


def hold_job(conn: Connection, job_id: int, *, reason: str, by: str, until: int | None, now_ms: int) -> int:
    """Keep a job whatever the policy says, to `until` (unix ms; None: to a release); the id of the hold, which replaces others.

    NotFoundError if it is not in the database; InvalidInputError for an end that is over.
    """
    if until is not None and until <= now_ms:
        raise InvalidInputError("The end of the hold is in the past.", field="until")
    tier = conn.execute(select(job.c.tier).where(job.c.id == job_id).with_for_update()).scalar_one_or_none()
    if tier is None:
        raise NotFoundError(f"there is no job {job_id}")
    if tier == Tier.DELETED:
        show_again(conn, job_id, by=by, now_ms=now_ms)
    told = reason[:REASON_LIMIT]
    conn.execute(update(job).where(job.c.id == job_id).values({**_UNSORTED, "held": 1, "hold_reason": told}))
    conn.execute(delete(retention_hold).where(retention_hold.c.job_id == job_id))
    row = {"job_id": job_id, "reason": told, "created_at": now_ms, "created_by": by[:128], "until": until}
    made = conn.execute(insert(retention_hold).values(**row)).inserted_primary_key
    ends = "" if until is None else f" until {rfc3339(until, 'seconds')}"
    _tell(conn, job_id, "held", f"held by {by}{ends}: {reason}", now_ms)
    return int((made or [0])[0])


def release_job(conn: Connection, job_id: int, *, by: str = "", now_ms: int = 0) -> bool:
    """Let the policy decide again; whether the job was held. `by`: who released it, for the timeline."""
    conn.execute(delete(retention_hold).where(retention_hold.c.job_id == job_id))
    released = {**_UNSORTED, "held": 0, "hold_reason": ""}
    was_held = bool(conn.execute(update(job).where(job.c.id == job_id, job.c.held == 1).values(released)).rowcount)
    if was_held and by:
        _tell(conn, job_id, "released", f"released by {by}", now_ms)
    return was_held


def hide_job(conn: Connection, job_id: int, *, by: str, now_ms: int) -> None:
    """Hide a job that a person removed: lists stop showing it, and from now on counts the time in which it can be restored.

    The caller has locked it, and knows that it has ended and is not held.
    """
    conn.execute(update(job).where(job.c.id == job_id).values(tier=int(Tier.DELETED), base_at=now_ms))
    _tell(conn, job_id, "removed", f"removed by {by}", now_ms)


def show_again(conn: Connection, job_id: int, *, by: str, now_ms: int) -> None:
    """Show a hidden job again, in the tier that its rows are in."""
    tier = Tier.WARM if is_folded(conn, job_id) else Tier.HOT
    values = {**_UNSORTED, "tier": int(tier), "base_at": job.c.finished_at}
    conn.execute(update(job).where(job.c.id == job_id).values(values))
    _tell(conn, job_id, "restored", f"restored by {by}", now_ms)


def _tell(conn: Connection, job_id: int, kind: str, message: str, now_ms: int) -> None:
    conn.execute(insert(job_event).values(job_id=job_id, at=now_ms, kind=kind, message=message[:_MESSAGE_LIMIT]))
