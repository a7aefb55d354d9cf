"""Hot jobs made warm: their rows beside `job` become one blob."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, select, update

from darner.core.errors import NotFoundError
from darner.core.job import Tier
from darner.db import Keys, among, delete_among, lean_binlog
from darner.db.tables.jobs import job, job_event, job_fold, job_part, job_payload, job_secret
from darner.history.codec import Codec
from darner.history.redact import redact_job, redact_text
from darner.history.rows import FOLDED, REDACTED, blob_of, insert_folds, parsed, read_records

_EMPTIED = (job_payload, job_secret, job_part, job_event)
# Texts that stay in a warm job's row, for filters and rules; they must be as clean as its blob.
_LEFT_TEXTS = ("tag", "application", "labels", "hold_reason")
_UNTOUCHED_ROWS = replace(REDACTED, job=dict)


def fold_jobs(conn: Connection, ids: Sequence[int], codec: Codec) -> int:
    """Fold ended hot jobs, in the caller's transaction, which has locked and judged them; the bytes that this freed.

    Secrets and signed query strings do not come along (`history.redact`). Jobs that are not hot are left alone.
    """
    records = [record for record in read_records(conn, ids, codec, _UNTOUCHED_ROWS) if record.job["tier"] == Tier.HOT]
    folds, changed = {}, []
    for record in records:
        columns = redact_job(record.job)
        folds[record.id] = codec.fold(str(record.job["type"]), blob_of(replace(record, job=columns)))
        left = {name: columns[name] for name in _LEFT_TEXTS if columns[name] != record.job[name]}
        changed += [(record.id, left)] if left else []
    if not folds:
        return 0
    lean_binlog(conn)
    insert_folds(conn, folds)
    keys = Keys(folds)
    for table in _EMPTIED:
        delete_among(conn, table, table.c.job_id, keys)
    conn.execute(update(job).where(among(conn, job.c.id, folds)).values(tier=int(Tier.WARM), **FOLDED))
    for key, left in changed:
        conn.execute(update(job).where(job.c.id == key).values(**left))
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
