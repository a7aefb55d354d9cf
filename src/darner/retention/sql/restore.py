"""Jobs brought back from where lists do not show them."""

from sqlalchemy import Connection, select

from darner.core.errors import ConflictError
from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.jobs import job
from darner.retention.sql.holds import hold_one
from darner.retention.values import HoldRow


def bring_back(conn: Connection, job_id: int, *, by: str) -> HoldRow | None:
    """Show a hidden job again, or keep one that was just put back by the archive; None: it is not in the database.

    It is held, because its ages are over and the next sweep would hide it again. ConflictError if it was never hidden.
    """
    row = conn.execute(select(job.c.tier, job.c.hold_reason).where(job.c.id == job_id).with_for_update()).one_or_none()
    if row is None:
        return None
    if row.tier != Tier.DELETED and not row.hold_reason.startswith("restored"):
        raise ConflictError(f"Job {job_id} is not deleted; it is in the {Tier(row.tier).word} tier.")
    return hold_one(conn, job_id, reason=f"restored by {by}", by=by, until=None, now_ms=db_now_ms(conn))
