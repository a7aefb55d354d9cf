"""How many bytes a job takes in the database: the average of some, by type and tier. An estimate, and called one."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, func, select

from darner.core.job import Tier
from darner.db.tables.jobs import job, job_event, job_fold, job_part, job_payload

_SAMPLE = 64
# What a row takes beside its texts: fixed columns, index entries, and the page's share (spec/retention.md, fact 7).
_JOB, _PAYLOAD, _PART, _EVENT, _FOLD = 420, 40, 360, 90, 40


def bytes_per_job(conn: Connection, kind: str, tier: Tier, first_id: int, last_id: int) -> float:
    """The average over a few jobs of that type and tier from an id on; 0 if there are none."""
    # No index on the type is of use here: walking by id finds some soon.
    these = (func.coalesce(job.c.type, "") == kind, job.c.tier == int(tier), job.c.id.between(first_id, last_id))
    ids = [int(key) for key in conn.execute(select(job.c.id).where(*these).order_by(job.c.id).limit(_SAMPLE)).scalars()]
    if not ids:
        return 0.0
    texts = (job.c.summary, job.c.error, job.c.tag, job.c.application, job.c.labels, job.c.bio)
    total = _weight(conn, job, ids, job.c.id, _JOB, texts)
    total += _weight(conn, job_payload, ids, job_payload.c.job_id, _PAYLOAD, (job_payload.c.args, job_payload.c.result))
    total += _weight(conn, job_part, ids, job_part.c.job_id, _PART, (job_part.c.url, job_part.c.error, job_part.c.hosts))
    total += _weight(conn, job_event, ids, job_event.c.job_id, _EVENT, (job_event.c.message,))
    total += _weight(conn, job_fold, ids, job_fold.c.job_id, _FOLD, (job_fold.c.body,))
    return total / len(ids)


def _weight(conn: Connection, table: Table, ids: Sequence[int], key: Column[Any], row: int, texts: Sequence[Column[Any]]) -> int:
    lengths = [func.coalesce(func.sum(func.length(text)), 0) for text in texts]
    counted = conn.execute(select(func.count(), *lengths).select_from(table).where(key.in_(ids))).one()
    return int(counted[0]) * row + sum(int(one) for one in counted[1:])
