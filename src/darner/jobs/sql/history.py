"""Jobs, parts and timelines read, in whatever tier they rest. Pages are newest first by (created_at, id).

Every statement is covered by an index. What lists filter by is in a warm job's row too; what they show comes from its blob.
Archived jobs are merged in by the same order; a job that is in both (it moves just now) is the database's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson
from sqlalchemy import Connection, RowMapping, select

from darner.core.errors import DarnerError, NotFoundError
from darner.core.job import Tier
from darner.db import Database
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_cluster, job_event, job_part, job_payload
from darner.history.codec import Codec
from darner.history.ports import ArchiveReader
from darner.history.record import JobRecord, RecordQuery
from darner.history.rows import is_folded, read_records
from darner.jobs.events import Details, Job, JobPage, JobQuery, Part, TimelineEvent
from darner.jobs.sql.lists import LOOK_AT_MOST, count_jobs, page_of, place_near, place_of
from darner.jobs.sql.rows import JOB_COLUMNS, event_from, job_from, part_from
from darner.kit.log import get_logger

T = TypeVar("T")
_log = get_logger("jobs")


class SqlHistory:
    """JobHistory over a Database, and an archive if there is one."""

    def __init__(
        self, db: Database, codec: Codec | None = None, archive: ArchiveReader | None = None, *, look_at_most: int = LOOK_AT_MOST
    ) -> None:
        """Use a migrated database. `look_at_most`: into how many jobs a search for text looks for one page."""
        self._db = db
        self._codec = codec or Codec()
        self._archive = archive
        self._look_at_most = look_at_most

    async def page(self, query: JobQuery) -> JobPage:
        """Jobs and their redacted args."""
        before = None if query.before_id is None else await self._place(query.before_id)
        if set(query.tiers) == {Tier.ARCHIVE}:
            return await self._with_archived(JobPage(), query, before)
        found = await self._db.read(lambda conn: page_of(conn, query, before, self._codec, look_at_most=self._look_at_most))
        # Pages by number stay in the database: the archive is walked by keyset only.
        if query.offset or (query.tiers and Tier.ARCHIVE not in query.tiers):
            return found
        try:
            # The archive after the database: a job that moves there meanwhile is in both, never in none.
            return await self._with_archived(found, query, before)
        except DarnerError as error:
            _log.warning("archived jobs are missing in a list", reason=error.message)
            return JobPage(found, stopped_at=found.stopped_at, missing=f"archived jobs are missing: {error.message}")

    async def _with_archived(self, found: JobPage, query: JobQuery, before: tuple[int, int] | None) -> JobPage:
        if self._archive is None:
            return found
        wanted = _archive_query(query, before)
        if len(found) == query.limit:
            # Older ones than the last of a full page do not matter: mostly that is the whole archive, and none of it is opened.
            oldest = found[-1][0].created_at
            wanted = replace(wanted, since_ms=max(oldest, wanted.since_ms or 0))
        return _merged(found, await self._archive.page(wanted), query.limit)

    async def count(self, query: JobQuery, *, at_most: int) -> int:
        """How many jobs of the database fit, counted no further than `at_most`."""
        if set(query.tiers) == {Tier.ARCHIVE}:
            return 0
        return await self._db.read(lambda conn: count_jobs(conn, query, self._codec, at_most=at_most))

    async def details(self, job_id: int) -> Details:
        """One job, a removed one too. Raises NotFoundError."""
        return await self._either(job_id, lambda conn: _details(conn, job_id, self._codec), details_of)

    async def parts(self, job_id: int, *, after_id: int = 0, limit: int = 1000) -> list[Part]:
        """Parts in the order of their ids."""

        def read(conn: Connection) -> list[Part] | None:
            part = job_part.c
            statement = select(job_part).where(part.job_id == job_id, part.id > after_id).order_by(part.id).limit(limit)
            plain = [part_from(row) for row in conn.execute(statement).mappings()]
            # Afterwards: if it is not folded then, these were all.
            folded, record = self._folded(conn, job_id)
            return plain if folded is False else None if record is None else parts_of_record(record)

        found = await self._either(job_id, read, parts_of_record)
        return [part for part in found if part.id > after_id][:limit]

    async def events(self, job_id: int, *, after_id: int = 0, limit: int = 1000) -> list[TimelineEvent]:
        """Timeline lines in order, those after `after_id`."""

        def read(conn: Connection) -> list[TimelineEvent] | None:
            event = job_event.c
            statement = select(job_event).where(event.job_id == job_id, event.id > after_id).order_by(event.id).limit(limit)
            plain = [event_from(row) for row in conn.execute(statement).mappings()]
            folded, record = self._folded(conn, job_id)
            return plain if folded is False else None if record is None else events_of_record(record)

        found = await self._either(job_id, read, events_of_record)
        return [event for event in found if event.id > after_id][:limit]

    async def _either(self, job_id: int, read: Callable[[Connection], T | None], of: Callable[[JobRecord], T]) -> T:
        """What the database says of a job, else the archive. NotFoundError."""
        found = await self._db.read(read)
        if found is None and self._archive is not None:
            record = await self._archive.find(job_id)
            # Between the two looks it may have been restored.
            found = await self._db.read(read) if record is None else of(record)
        if found is None:
            raise NotFoundError(f"there is no job {job_id}")
        return found

    def _folded(self, conn: Connection, job_id: int) -> tuple[bool | None, JobRecord | None]:
        """Whether a job is folded (None: there is no such job), and its record if so."""
        tier = conn.execute(select(job_table.c.tier).where(job_table.c.id == job_id)).scalar_one_or_none()
        if tier is None:
            return None, None
        if tier == Tier.HOT or not is_folded(conn, job_id):
            return False, None
        return True, next(iter(read_records(conn, [job_id], self._codec)), None)

    async def _place(self, before_id: int) -> tuple[int, int]:
        """Where a page goes on: (created_at, id) of that job, wherever it is."""
        place = await self._db.read(lambda conn: place_of(conn, before_id))
        if place is None and self._archive is not None:
            record = await self._archive.find(before_id)
            place = None if record is None else (int(record.job["created_at"]), record.id)
        return place or await self._db.read(lambda conn: place_near(conn, before_id)) or (0, 0)


def job_of(record: JobRecord, tier: Tier | None = None) -> Job:
    """A record's job; `tier` where it is not the one of its row."""
    return job_from({**record.job, "tier": record.job["tier"] if tier is None else tier})


def details_of(record: JobRecord, tier: Tier = Tier.ARCHIVE) -> Details:
    """A record as details."""
    return Details(job=job_of(record, tier), args=record.args, result=record.result, cluster_ids=record.clusters)


def parts_of_record(record: JobRecord) -> list[Part]:
    """A record's parts."""
    return [part_from({**part, "job_id": record.id}) for part in record.parts]


def events_of_record(record: JobRecord) -> list[TimelineEvent]:
    """A record's timeline."""
    return [event_from({**event, "job_id": record.id}) for event in record.events]


def _merged(found: JobPage, archived: Sequence[JobRecord], limit: int) -> JobPage:
    mine = {job.id for job, _ in found}
    more = [(job_of(record, Tier.ARCHIVE), dict(record.args)) for record in archived if record.id not in mine]
    stop = found.stopped_at
    if stop is not None:
        # Older ones would be shown before jobs of the database that were not looked at.
        more = [one for one in more if _place_of(one[0]) > stop]
    ranked = sorted([*found, *more], key=lambda one: _place_of(one[0]), reverse=True)
    return JobPage(ranked[:limit], stopped_at=stop if len(ranked) < limit else None)


def _place_of(job: Job) -> tuple[int, int]:
    return job.created_at, job.id


def _archive_query(query: JobQuery, before: tuple[int, int] | None) -> RecordQuery:
    return RecordQuery(
        states=tuple(str(state) for state in query.states), types=(query.type,) if query.type else (), owner=query.owner,
        cluster_id=query.cluster_id, text=query.text, since_ms=query.since_ms, until_ms=query.until_ms, before=before,
        limit=query.limit,
    )  # fmt: skip


def _details(conn: Connection, job_id: int, codec: Codec) -> Details | None:
    row = conn.execute(select(*JOB_COLUMNS).where(job_table.c.id == job_id)).mappings().one_or_none()
    if row is None:
        return None
    payload = conn.execute(select(job_payload.c.args, job_payload.c.result).where(job_payload.c.job_id == job_id)).one_or_none()
    if payload is None:
        return _folded_details(conn, row, codec)
    clusters = select(job_cluster.c.cluster_id).where(job_cluster.c.job_id == job_id).order_by(job_cluster.c.cluster_id)
    return Details(
        job=job_from(row),
        args=orjson.loads(payload.args),
        result=None if payload.result is None else orjson.loads(payload.result),
        cluster_ids=tuple(int(key) for key in conn.execute(clusters).scalars()),
    )


def _folded_details(conn: Connection, row: RowMapping, codec: Codec) -> Details | None:
    try:
        record = next(iter(read_records(conn, [row["id"]], codec)), None)
    except DarnerError as error:
        # What is left of it is worth more than a failure: that it was, when, of whom, and what is wrong.
        return Details(job=job_from({**row, "error": error.message}), args={}, result={}, cluster_ids=())
    return None if record is None else details_of(record, Tier(row["tier"]))
