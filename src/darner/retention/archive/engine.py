"""The archive as others see it: works for the sweeper, a reader for lists, restore, erase, and figures."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, select

from darner.core.errors import ConflictError, DarnerError, NotFoundError
from darner.db import Database, db_now_ms
from darner.db.tables.jobs import job
from darner.history.codec import Codec
from darner.history.record import JobRecord, RecordQuery
from darner.history.rows import put_record
from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.expiry import ExpiryWork, HeldSegments
from darner.retention.archive.handover import HandoverWork
from darner.retention.archive.objects import open_storage
from darner.retention.archive.search import Search, may_have
from darner.retention.archive.storage import Storage
from darner.retention.archive.tidy import TidyWork
from darner.retention.sweep.work import Work

_log = get_logger("archive")
_FILES_AT_ONCE = 8
_SEGMENTS_SHOWN = 200


class Archive:
    """`ArchiveReader`, and what the retention engine needs. `async with` opens it; it makes nothing until jobs come."""

    def __init__(self, db: Database, config: ArchiveConfig, codec: Codec, storage: Storage | None = None) -> None:
        """InvalidInputError for an address that cannot be used. `db` must have been migrated."""
        self._db = db
        self._config = config
        self._codec = codec
        self._storage = storage or open_storage(config)
        self._search = Search(config, [self._storage.root])
        self._held: HeldSegments = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._search.close)

    def works(self) -> Sequence[Callable[[], Work]]:
        """Makers of works: handing over, expiry, and tidying up."""
        keep = {"storage": self._storage, "codec": self._codec, "config": self._config}
        return (
            partial(HandoverWork, **keep),  # type: ignore[arg-type]
            partial(TidyWork, self._storage),
            partial(ExpiryWork, self._storage, self._held),
        )

    async def page(self, query: RecordQuery) -> list[JobRecord]:
        """Records, newest first; those that are in the database too are left to it."""
        before_ms = min((at for at in (query.until_ms, query.before[0] if query.before else None) if at is not None), default=None)
        segments = await self._db.read(lambda conn: catalog.between(conn, since_ms=query.since_ms, before_ms=before_ms))
        waiting = [segment for segment in segments if may_have(segment, query)]
        found: dict[int, JobRecord] = {}
        while waiting:
            ranked = sorted(found.values(), key=_place, reverse=True)[: query.limit]
            if len(ranked) == query.limit and waiting[0].max_created_at < _place(ranked[-1])[0]:
                break
            some, waiting = waiting[:_FILES_AT_ONCE], waiting[_FILES_AT_ONCE:]
            for record in await self._visible(some, lambda files, limit: self._search.page(files, query, limit), query.limit):
                found[record.id] = record
        return sorted(found.values(), key=_place, reverse=True)[: query.limit]

    async def find(self, job_id: int) -> JobRecord | None:
        """One record; None if the archive does not have it, or the database has it."""
        segments = await self._db.read(lambda conn: catalog.with_job(conn, job_id))
        found = await self._visible(segments, lambda files, _: self._search.one(files, job_id), 1)
        return found[0] if found else None

    async def restore(self, job_id: int, *, reason: str = "restored from the archive") -> bool:
        """Bring a job back into the database, warm and held; False if the archive does not have it."""
        segments = await self._db.read(lambda conn: catalog.with_job(conn, job_id, *catalog.READABLE, SegmentState.EXPIRED))
        found = await self._read(segments, lambda files, _: self._search.one(files, job_id), 1)
        absent = await self._db.read(lambda conn: catalog.absent(conn, [one.id for one in segments], [job_id]))
        record = next((record for segment_id, record in found if (segment_id, job_id) not in absent), None)
        if record is None:
            return False

        def put(conn: Connection) -> None:
            if conn.execute(select(job.c.id).where(job.c.id == job_id)).first():
                raise ConflictError(f"Job {job_id} is in the database already.")
            put_record(conn, record, self._codec, now_ms=db_now_ms(conn), values={"held": 1, "hold_reason": reason[:512]})
            for segment_id, _ in found:
                catalog.mark_absent(conn, segment_id, [job_id], "restored")

        await self._db.write(put)
        _log.info("a job was restored from the archive", job_id=job_id)
        return True

    async def segments(self) -> list[Segment]:
        """The newest segments."""
        return await self._db.read(lambda conn: catalog.newest(conn, _SEGMENTS_SHOWN))

    async def figures(self) -> dict[str, Any]:
        """`{segments, jobs, bytes, problems}` of what can be read; problems: errors that segments had last."""
        found: dict[str, Any] = await self._db.read(catalog.figures)
        sealed = await self._db.read(lambda conn: catalog.in_state(conn, SegmentState.SEALED))
        return {**found, "problems": [segment.error for segment in sealed if segment.error]}

    async def _visible(self, segments: Sequence[Segment], ask: "_Ask", limit: int) -> list[JobRecord]:
        """Records that are to be found here: not absent from their segment, not in the database."""
        extra = 0
        while True:
            found = await self._read(segments, ask, limit + extra)
            ids = [record.id for _, record in found]

            def hidden(conn: Connection, ids: Sequence[int] = ids) -> tuple[set[tuple[int, int]], set[int]]:
                here = set(conn.execute(select(job.c.id).where(job.c.id.in_(ids))).scalars()) if ids else set()
                return catalog.absent(conn, [one.id for one in segments], ids), here

            absent, here = await self._db.read(hidden)
            seen = {record.id: record for number, record in found if (number, record.id) not in absent and record.id not in here}
            if len(seen) >= limit or len(found) < limit + extra:
                return list(seen.values())[:limit]
            extra = max(2 * extra, limit)

    async def _read(self, segments: Sequence[Segment], ask: "_Ask", limit: int) -> list[tuple[int, JobRecord]]:
        if not segments:
            return []

        def read() -> list[tuple[int, JobRecord]]:
            with self._storage.reading([(one.location, one.sha256) for one in segments]) as files:
                return ask([(one.id, file) for one, file in zip(segments, files, strict=True)], limit)

        try:
            return await asyncio.to_thread(read)
        except NotFoundError as error:
            _log.error("a file of the archive is missing", reason=error.message)
            raise DarnerError(f"{error.message} Jobs in it cannot be shown.") from error


_Ask = Callable[[Sequence[tuple[int, Path]], int], list[tuple[int, JobRecord]]]


def _place(record: JobRecord) -> tuple[int, int]:
    return int(record.job["created_at"]), record.id
