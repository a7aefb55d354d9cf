"""Jobs, parts and timelines read. Pages are newest first by (created_at, id); every statement is covered by an index."""

from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, union_all

from darner.core.errors import NotFoundError
from darner.db import Database
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_cluster, job_event, job_part, job_payload
from darner.jobs.events import Details, Job, JobQuery, Part, TimelineEvent
from darner.jobs.sql.rows import JOB_COLUMNS, event_from, job_from, part_from


class SqlHistory:
    """JobHistory over a Database."""

    def __init__(self, db: Database) -> None:
        """Use a migrated database."""
        self._db = db

    async def page(self, query: JobQuery) -> list[tuple[Job, dict[str, Any]]]:
        """Jobs and their redacted args."""
        return await self._db.read(lambda conn: _page(conn, query))

    async def count(self, query: JobQuery, *, at_most: int) -> int:
        """How many jobs fit, counted no further than `at_most`."""
        inner = _merged(query, at_most, keyset=None, columns=(job_table.c.id, job_table.c.created_at)).subquery()
        statement = select(func.count()).select_from(inner)
        return await self._db.read(lambda conn: int(conn.execute(statement).scalar_one()))

    async def details(self, job_id: int) -> Details:
        """One job. Raises NotFoundError."""
        return await self._db.read(lambda conn: _details(conn, job_id))

    async def parts(self, job_id: int, *, after_id: int = 0, limit: int = 1000) -> list[Part]:
        """Parts in the order of their ids."""
        part = job_part.c
        statement = select(job_part).where(part.job_id == job_id, part.id > after_id).order_by(part.id).limit(limit)
        return await self._db.read(lambda conn: [part_from(row) for row in conn.execute(statement).mappings()])

    async def events(self, job_id: int, *, after_id: int = 0, limit: int = 1000) -> list[TimelineEvent]:
        """Timeline lines in order, those after `after_id`."""
        event = job_event.c
        statement = select(job_event).where(event.job_id == job_id, event.id > after_id).order_by(event.id).limit(limit)
        return await self._db.read(lambda conn: [event_from(row) for row in conn.execute(statement).mappings()])


def _page(conn: Connection, query: JobQuery) -> list[tuple[Job, dict[str, Any]]]:
    keyset = None if query.before_id is None else _place(conn, query.before_id)
    rows = conn.execute(page_statement(query, keyset)).mappings().all()
    jobs = [job_from(row) for row in rows]
    wanted = select(job_payload.c.job_id, job_payload.c.args).where(job_payload.c.job_id.in_([job.id for job in jobs]))
    args = {int(key): orjson.loads(text) for key, text in conn.execute(wanted)} if jobs else {}
    return [(job, args.get(job.id, {})) for job in jobs]


def page_statement(query: JobQuery, keyset: tuple[int, int] | None) -> Select[Any]:
    """The rows of a page; with several states one index walk each, merged, so that rare states cost no scan."""
    merged = _merged(query, query.offset + query.limit, keyset=keyset, columns=JOB_COLUMNS).subquery()
    return select(merged).order_by(merged.c.created_at.desc(), merged.c.id.desc()).limit(query.limit).offset(query.offset)


def _merged(query: JobQuery, limit: int, *, keyset: tuple[int, int] | None, columns: tuple[Any, ...]) -> Any:  # noqa: ANN401
    job = job_table.c
    shared = _conditions(query)
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
    found: list[ColumnElement[bool]] = []
    if query.type:
        found.append(job.type == query.type)
    if query.owner:
        found.append(job.owner == query.owner)
    if query.since_ms is not None:
        found.append(job.created_at >= query.since_ms)
    if query.cluster_id is not None:
        mine = and_(job_cluster.c.job_id == job.id, job_cluster.c.cluster_id == query.cluster_id)
        found.append(exists(select(job_cluster.c.job_id).where(mine)))
    if query.text:
        found.append(or_(*(column.icontains(query.text, autoescape=True) for column in (job.summary, job.error, job.bio))))
    return found


def _place(conn: Connection, before_id: int) -> tuple[int, int]:
    # The job may be gone meanwhile: then the page goes on at its nearest older neighbour, which is still to be shown.
    job = job_table.c
    nearest = select(job.created_at, job.id).where(job.id <= before_id).order_by(job.id.desc()).limit(1)
    row = conn.execute(nearest).first()
    if row is None:
        return 0, 0
    return int(row[0]), int(row[1]) if row[1] == before_id else int(row[1]) + 1


def _details(conn: Connection, job_id: int) -> Details:
    joined = job_table.join(job_payload, job_payload.c.job_id == job_table.c.id)
    statement = select(*JOB_COLUMNS, job_payload.c.args, job_payload.c.result).select_from(joined).where(job_table.c.id == job_id)
    row = conn.execute(statement).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}")
    clusters = select(job_cluster.c.cluster_id).where(job_cluster.c.job_id == job_id).order_by(job_cluster.c.cluster_id)
    return Details(
        job=job_from(row),
        args=orjson.loads(row["args"]),
        result=None if row["result"] is None else orjson.loads(row["result"]),
        cluster_ids=tuple(int(key) for key in conn.execute(clusters).scalars()),
    )
