"""Hot jobs made warm: their rows beside `job` become one blob."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update

from darner.core.errors import NotFoundError
from darner.core.job import Tier
from darner.db import lean_binlog
from darner.db.tables.jobs import job, job_event, job_fold, job_part, job_payload, job_secret
from darner.history.codec import Codec
from darner.history.redact import redact_text
from darner.history.rows import FOLDED, REDACTED, blob_of, insert_folds, parsed, read_records

_EMPTIED = (job_payload, job_secret, job_part, job_event)


def fold_jobs(conn: Connection, ids: Sequence[int], codec: Codec) -> int:
    """Fold ended hot jobs, in the caller's transaction, which has locked and judged them; the bytes that this freed.

    Secrets and signed query strings do not come along (`history.redact`). Jobs that are not hot are left alone.
    """
    records = [record for record in read_records(conn, ids, codec, REDACTED) if record.job["tier"] == Tier.HOT]
    folds = {record.id: codec.fold(str(record.job["type"]), blob_of(record)) for record in records}
    if not folds:
        return 0
    lean_binlog(conn)
    insert_folds(conn, folds)
    for table in _EMPTIED:
        conn.execute(delete(table).where(table.c.job_id.in_(list(folds))))
    conn.execute(update(job).where(job.c.id.in_(list(folds))).values(tier=int(Tier.WARM), **FOLDED))
    return sum(one.raw_len - len(one.body) for one in folds.values())


def change_fold(conn: Connection, job_id: int, codec: Codec, **columns: Any) -> None:  # noqa: ANN401  (values of columns)
    """Change texts of `job` that a folded job has in its blob. NotFoundError if it is not folded."""
    statement = select(job_fold.c.dict_id, job_fold.c.body).where(job_fold.c.job_id == job_id).with_for_update()
    row = conn.execute(statement).one_or_none()
    if row is None:
        raise NotFoundError(f"job {job_id} is not folded")
    codec.learn(conn, {row.dict_id})
    blob = parsed(codec.unfold(row.dict_id, bytes(row.body)))
    for name, value in columns.items():
        blob["j"][name] = redact_text(value) if isinstance(value, str) else value
        if value == FOLDED[name]:
            del blob["j"][name]
    folded = codec.refold(row.dict_id, orjson.dumps(blob))
    conn.execute(update(job_fold).where(job_fold.c.job_id == job_id).values(raw_len=folded.raw_len, body=folded.body))
