"""Hot jobs made warm: their rows beside `job` become one blob."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, update

from darner.core.job import Tier
from darner.db.tables.jobs import job, job_event, job_part, job_payload, job_secret
from darner.history.codec import Codec
from darner.history.rows import FOLDED, REDACTED, blob_of, insert_folds, read_records

_EMPTIED = (job_payload, job_secret, job_part, job_event)


def fold_jobs(conn: Connection, ids: Sequence[int], codec: Codec) -> int:
    """Fold ended hot jobs, in the caller's transaction, which has locked and judged them; the bytes that this freed.

    Secrets and signed query strings do not come along (`history.redact`). Jobs that are not hot are left alone.
    """
    records = [record for record in read_records(conn, ids, codec, REDACTED) if record.job["tier"] == Tier.HOT]
    folds = {record.id: codec.fold(str(record.job["type"]), blob_of(record)) for record in records}
    if not folds:
        return 0
    insert_folds(conn, folds)
    for table in _EMPTIED:
        conn.execute(delete(table).where(table.c.job_id.in_(list(folds))))
    conn.execute(update(job).where(job.c.id.in_(list(folds))).values(tier=int(Tier.WARM), **FOLDED))
    return sum(one.raw_len - len(one.body) for one in folds.values())
