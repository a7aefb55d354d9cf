"""Jobs taken out of the archive: put back into the database, or erased. Each function is one transaction."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError
from darner.db import db_now_ms
from darner.db.tables.archive import archive_erasure
from darner.db.tables.jobs import job
from darner.history.codec import Codec
from darner.history.record import JobRecord
from darner.history.rows import put_record
from darner.retention.archive import catalog
from darner.retention.archive.catalog import ERASED, SegmentState

RESTORED = "restored"
_REASON_LIMIT = 512
_AT_ONCE = 1_000


def put_back(conn: Connection, found: Sequence[tuple[int, JobRecord]], codec: Codec, reason: str) -> bool:
    """A job as a warm and held row again; False if its segments are not what they were when it was read."""
    record = found[0][1]
    states = (*catalog.READABLE, SegmentState.EXPIRED)
    numbers = {one.id for one in catalog.with_job(conn, record.id, *states, lock=True)}
    if not {number for number, _ in found} <= numbers:
        return False
    if conn.execute(select(job.c.id).where(job.c.id == record.id)).first():
        raise ConflictError(f"Job {record.id} is in the database already.")
    codec.refresh(conn)
    put_record(conn, record, codec, now_ms=db_now_ms(conn), values={"held": 1, "hold_reason": reason[:_REASON_LIMIT]})
    for number, _ in found:
        catalog.mark_absent(conn, number, [record.id], RESTORED)
    return True


def erase(conn: Connection, found: Sequence[tuple[int, JobRecord]], ids: Sequence[int], *, reason: str, by: str) -> dict[str, Any]:
    """Hide jobs, and have their files written anew without them; the audit says how many, why, and for whom."""
    if not 0 < len(set(ids)) <= _AT_ONCE:
        raise InvalidInputError(f"1 to {_AT_ONCE} jobs can be erased at once.", field="ids")
    if not reason.strip():
        raise InvalidInputError("Say why: others will wonder later.", field="reason")
    here = sorted(conn.execute(select(job.c.id).where(job.c.id.in_(list(set(ids))))).scalars())
    if here:
        shown = ", ".join(str(one) for one in here[:10])
        raise ConflictError(f"In the database, not only in the archive: {shown}. Remove these jobs first, or leave them away.")
    segments = {one.id: one for one in catalog.locked(conn, sorted({number for number, _ in found}))}
    erased = {record.id for _, record in found}
    if not erased:
        raise NotFoundError("None of these jobs is in the archive.")
    for number, record in found:
        if number in segments and segments[number].state not in {SegmentState.DROPPING, SegmentState.DROPPED}:
            catalog.mark_absent(conn, number, [record.id], ERASED, anew=True)
    told = {"jobs": len(erased), "segments": len(segments)}
    values = {"at": db_now_ms(conn), "by": by[:128], "reason": reason[:_REASON_LIMIT], **told, "ids": json.dumps(sorted(erased))}
    conn.execute(insert(archive_erasure).values(**values))
    return {**told, "missing": sorted(set(ids) - erased)}
