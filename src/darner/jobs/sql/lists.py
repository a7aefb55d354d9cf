"""Pages and counts of jobs in the database: hot and warm alike, deleted ones only when asked for.

The text of a warm job is in its blob, so a search for text walks the list in its order and looks into the blobs, some hundred jobs
at a time and no further than MAX_LOOKED_AT: whoever looks for a needle gives a time range.
"""

from collections.abc import Iterator
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, union_all

from darner.core.job import Tier
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_cluster, job_payload
from darner.history.codec import Codec
from darner.history.rows import read_records
from darner.jobs.events import Job, JobQuery
from darner.jobs.sql.rows import JOB_COLUMNS, job_from

MAX_LOOKED_AT = 200_000
_CHUNK = 500
_SHOWN = (Tier.HOT, Tier.WARM)
Keyset = tuple[int, int] | None


def page_of(conn: Connection, query: JobQuery, before: Keyset, codec: Codec) -> list[tuple[Job, dict[str, Any]]]:
    """A page: jobs with their redacted args."""
    if query.text:
        fitting = _with_text(conn, query, before, codec)
        return [one for number, one in zip(range(query.offset + query.limit), fitting, strict=False) if number >= query.offset]
    return _completed(conn, list(conn.execute(page_statement(query, before)).mappings().all()), codec)


def count_jobs(conn: Connection, query: JobQuery, codec: Codec, *, at_most: int) -> int:
    """How many jobs fit, counted no further than `at_most`."""
    if query.text:
        return sum(1 for _ in zip(range(at_most), _with_text(conn, query, None, codec), strict=False))
    inner = _merged(query, at_most, keyset=None, columns=(job_table.c.id, job_table.c.created_at)).subquery()
    return int(conn.execute(select(func.count()).select_from(inner)).scalar_one())


def place_of(conn: Connection, job_id: int) -> Keyset:
    """The place of a job in lists; None if the database does not have it."""
    job = job_table.c
    row = conn.execute(select(job.created_at, job.id).where(job.id == job_id)).first()
    return None if row is None else (int(row[0]), int(row[1]))


def place_near(conn: Connection, job_id: int) -> Keyset:
    """Where a page goes on after a job that is gone: at its nearest older neighbour, which is still to be shown."""
    job = job_table.c
    row = conn.execute(select(job.created_at, job.id).where(job.id < job_id).order_by(job.id.desc()).limit(1)).first()
    return None if row is None else (int(row[0]), int(row[1]) + 1)


def page_statement(query: JobQuery, keyset: Keyset) -> Select[Any]:
    """The rows of a page; with several states one index walk each, merged, so that rare states cost no scan."""
    merged = _merged(query, query.offset + query.limit, keyset=keyset, columns=JOB_COLUMNS).subquery()
    return select(merged).order_by(merged.c.created_at.desc(), merged.c.id.desc()).limit(query.limit).offset(query.offset)


def _completed(conn: Connection, rows: list[Any], codec: Codec) -> list[tuple[Job, dict[str, Any]]]:
    """The rows with what is not in them: payloads of hot jobs, blobs of warm ones."""
    hot = [row["id"] for row in rows if row["tier"] == Tier.HOT]
    wanted = select(job_payload.c.job_id, job_payload.c.args).where(job_payload.c.job_id.in_(hot))
    args = {int(key): orjson.loads(text) for key, text in conn.execute(wanted)} if hot else {}
    rest = [row["id"] for row in rows if row["tier"] != Tier.HOT]
    records = {record.id: record for record in read_records(conn, rest, codec)} if rest else {}
    found = []
    for row in rows:
        record = records.get(row["id"])
        if record is None:
            found.append((job_from(row), args.get(row["id"], {})))
        else:
            found.append((job_from({**record.job, "tier": row["tier"]}), dict(record.args)))
    return found


def _with_text(conn: Connection, query: JobQuery, before: Keyset, codec: Codec) -> Iterator[tuple[Job, dict[str, Any]]]:
    wanted, looked_at, chunk = query.text.casefold(), 0, query.offset + query.limit
    job = job_table.c
    said = [column.icontains(query.text, autoescape=True) for column in (job.summary, job.error, job.bio)]
    maybe = or_(job.tier != int(Tier.HOT), *said)
    while looked_at < MAX_LOOKED_AT:
        merged = _merged(query, chunk, keyset=before, columns=JOB_COLUMNS, also=maybe).subquery()
        statement = select(merged).order_by(merged.c.created_at.desc(), merged.c.id.desc()).limit(chunk)
        rows = list(conn.execute(statement).mappings().all())
        if not rows:
            return
        before, looked_at = (rows[-1]["created_at"], rows[-1]["id"]), looked_at + len(rows)
        chunk = min(2 * chunk, _CHUNK)
        for one in _completed(conn, rows, codec):
            if one[0].tier == Tier.HOT or _says(one[0], wanted):
                yield one


def _says(job: Job, wanted: str) -> bool:
    return any(wanted in text.casefold() for text in (job.summary, job.error, job.bio))


def _merged(
    query: JobQuery, limit: int, *, keyset: Keyset, columns: tuple[Any, ...], also: ColumnElement[bool] | None = None
) -> Any:  # noqa: ANN401  (a select or a union of them)
    job = job_table.c
    shared = [*_conditions(query), *([also] if also is not None else [])]
    if keyset is not None:
        at, job_id = keyset
        shared += [job.created_at <= at, or_(job.created_at < at, job.id < job_id)]
    walks = [
        select(*columns).where(*where, *shared).order_by(job.created_at.desc(), job.id.desc()).limit(limit)
        for where in ([[job.state == state] for state in query.states] or [[]])
    ]
    if len(walks) == 1:
        return walks[0]
    return union_all(*(select(walk.subquery()) for walk in walks))


def _conditions(query: JobQuery) -> list[ColumnElement[bool]]:
    job = job_table.c
    found: list[ColumnElement[bool]] = [job.tier.in_([int(tier) for tier in query.tiers or _SHOWN])]
    if query.type:
        found.append(job.type == query.type)
    if query.owner:
        found.append(job.owner == query.owner)
    if query.since_ms is not None:
        found.append(job.created_at >= query.since_ms)
    if query.until_ms is not None:
        found.append(job.created_at < query.until_ms)
    if query.cluster_id is not None:
        mine = and_(job_cluster.c.job_id == job.id, job_cluster.c.cluster_id == query.cluster_id)
        found.append(exists(select(job_cluster.c.job_id).where(mine)))
    return found
