"""Finds archived jobs: the catalogue rules segments out, a search reads what is left, and the database takes precedence."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, select

from darner.core.errors import DarnerError, StorageFullError, TimedOutError, UnavailableError
from darner.db import Database
from darner.db.tables.jobs import job
from darner.history.record import JobRecord, RecordQuery
from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.search import Search, Stop, may_have
from darner.retention.archive.segment import LibraryMissingError
from darner.retention.archive.storage import Storage

_log = get_logger("archive")
_FILES_AT_ONCE = 8
_SEGMENTS_AT_ONCE = 256
_THREADS = 4
_KEYS = 2_000
# Not the fault of a file.
_ELSEWHERE = (UnavailableError, TimedOutError, StorageFullError, LibraryMissingError)
# A record, and the segment that has it.
Found = tuple[int, JobRecord]
_Ask = Callable[[Sequence[tuple[int, Path]], Stop], list[Found]]


class Reader:
    """Asks in threads, so that the event loop never waits. A call that is cancelled stops its search at once."""

    def __init__(self, db: Database, storage: Storage, search: Search, *, within_s: float) -> None:
        """A page that takes longer than `within_s` is given up."""
        self._db = db
        self._storage = storage
        self._search = search
        self._within_s = within_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="archive")

    async def close(self) -> None:
        """Wait for searches, which were cancelled before."""
        await asyncio.to_thread(self._threads.shutdown)

    async def page(self, query: RecordQuery) -> list[JobRecord]:
        """Records, newest first; those that are in the database are left to it."""
        deadline = time.monotonic() + self._within_s
        found: dict[int, JobRecord] = {}
        after: tuple[int, int] | None = None
        while True:
            segments = await self._segments(query, after)
            for start in range(0, len(segments), _FILES_AT_ONCE):
                some = segments[start : start + _FILES_AT_ONCE]
                ranked = sorted(found.values(), key=_place, reverse=True)[: query.limit]
                if len(ranked) == query.limit and some[0].max_created_at < _place(ranked[-1])[0]:
                    return ranked
                for record in await self._in_time(some, query, deadline):
                    found[record.id] = record
            if len(segments) < _SEGMENTS_AT_ONCE:
                return sorted(found.values(), key=_place, reverse=True)[: query.limit]
            after = (segments[-1].max_created_at, segments[-1].id)

    async def stream(self, query: RecordQuery) -> AsyncIterator[list[JobRecord]]:
        """All that fit, a list per file that has any."""
        after: tuple[int, int] | None = None
        while segments := await self._segments(query, after):
            for one in segments:
                before = query.before
                while records := await self.page_of([one], replace(query, before=before)):
                    yield records
                    before = _place(records[-1])
                    if len(records) < query.limit:
                        break
            after = (segments[-1].max_created_at, segments[-1].id)

    async def find(self, job_id: int) -> JobRecord | None:
        """One record; None if the archive does not have it, or the database has it. DarnerError if its file cannot be read."""
        segments = await self._db.read(lambda conn: catalog.with_job(conn, job_id))
        found = await self._read(segments, lambda files, stop: self._search.some(files, [job_id], stop), strict=True)
        shown = await self._shown(segments, found)
        return shown[0] if shown else None

    async def everywhere(self, job_id: int, *, hidden: bool = False) -> list[Found]:
        """A job in each segment that has it, also where its time is over but can be brought back; `hidden`: where absent too."""
        states = (*catalog.READABLE, SegmentState.EXPIRED, *((SegmentState.REPLACED,) if hidden else ()))
        segments = await self._db.read(lambda conn: catalog.with_job(conn, job_id, *states))
        found = await self._read(segments, lambda files, stop: self._search.some(files, [job_id], stop), strict=True)
        absent = await self._db.read(lambda conn: catalog.absent(conn, [one.id for one in segments], [job_id]))
        return [one for one in found if hidden or (one[0], job_id) not in absent]

    async def _segments(self, query: RecordQuery, after: tuple[int, int] | None) -> list[Segment]:
        before_ms = min((at for at in (query.until_ms, query.before[0] if query.before else None) if at is not None), default=None)
        limit = _SEGMENTS_AT_ONCE

        def read(conn: Connection) -> list[Segment]:
            return catalog.between(conn, since_ms=query.since_ms, before_ms=before_ms, after=after, limit=limit)

        return await self._db.read(read)

    async def _in_time(self, some: Sequence[Segment], query: RecordQuery, deadline: float) -> list[JobRecord]:
        wanted = [one for one in some if may_have(one, query)]
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, deadline - time.monotonic())):
                return await self.page_of(wanted, query)
        except TimeoutError as error:
            raise TimedOutError(
                f"The search in the archive took longer than {self._within_s:.0f} s. Narrow it down: a time range, a state, a type."
            ) from error

    async def page_of(self, segments: Sequence[Segment], query: RecordQuery) -> list[JobRecord]:
        """Records of some segments that are to be found here, newest first: not absent from their segment, not in the database."""
        limit, search = query.limit, self._search
        found = await self._read(segments, lambda files, stop: search.page(files, query, limit, stop), limit)
        shown = await self._shown(segments, found)
        if len(shown) >= limit or len(found) < limit:
            return shown
        # While jobs are handed over, many are in both: look at ids only until there are enough.
        while len(shown) < limit and len(found) >= limit:
            later = replace(query, before=_place(found[-1][1]))
            found = await self._read(segments, lambda files, stop, q=later: search.page(files, q, _KEYS, stop, keys=True), _KEYS)  # type: ignore[misc]
            wanted = [record.id for record in (await self._shown(segments, found))][: limit - len(shown)]
            if wanted:
                records = await self._read(segments, lambda files, stop, ids=wanted: search.some(files, ids, stop), _KEYS)  # type: ignore[misc]
                shown += await self._shown(segments, records)
        return shown

    async def _shown(self, segments: Sequence[Segment], found: Sequence[Found]) -> list[JobRecord]:
        ids = [record.id for _, record in found]
        absent, here = await self._db.read(lambda conn: _hidden(conn, segments, ids))
        seen = {record.id: record for number, record in found if (number, record.id) not in absent and record.id not in here}
        return list(seen.values())

    async def _read(self, segments: Sequence[Segment], ask: _Ask, limit: int | None = None, *, strict: bool = False) -> list[Found]:
        """What a search finds. A file that cannot be read is left away, and told; with `strict` it is an error."""
        if not segments:
            return []
        try:
            found = await self._in_thread(segments, ask)
        except _ELSEWHERE:
            raise
        except DarnerError:
            still = await self._db.read(lambda conn: catalog.still_there(conn, [one.id for one in segments]))
            if strict and len(segments) == 1 and still:
                raise
        else:
            await self._fine_again(segments)
            return found
        found = []
        for one in segments:
            if one.id in still:
                found += await self._read_alone(one, ask, strict=strict)
        return sorted(found, key=lambda one: _place(one[1]), reverse=True)[:limit]

    async def _read_alone(self, segment: Segment, ask: _Ask, *, strict: bool) -> list[Found]:
        try:
            found = await self._in_thread([segment], ask)
            await self._fine_again([segment])
            return found
        except _ELSEWHERE:
            raise
        except DarnerError as error:
            if strict:
                raise
            _log.error("a file of the archive cannot be read; its jobs are not shown", segment=segment.id, reason=error.message)
            told = f"Segment {segment.id} ({segment.location}) cannot be read, so its jobs are not shown: {error.message}"
            if segment.error != told:
                await self._db.write(lambda conn: catalog.told_error(conn, segment.id, told))
            return []

    async def _fine_again(self, segments: Sequence[Segment]) -> None:
        """What was wrong with files that can be read is over, but for those that wait for a person."""
        for one in segments:
            if one.error and one.state != SegmentState.SEALED:
                await self._db.write(lambda conn, number=one.id: catalog.told_error(conn, number, ""), durable=False)  # type: ignore[misc]

    async def _in_thread(self, segments: Sequence[Segment], ask: _Ask) -> list[Found]:
        stop = Stop()

        def read() -> list[Found]:
            with self._storage.reading([(one.location, one.sha256) for one in segments]) as files:
                return ask([(one.id, file) for one, file in zip(segments, files, strict=True)], stop)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        finally:
            stop.now()


def _hidden(conn: Connection, segments: Sequence[Segment], ids: Sequence[int]) -> tuple[set[tuple[int, int]], set[int]]:
    here = set(conn.execute(select(job.c.id).where(job.c.id.in_(ids))).scalars()) if ids else set()
    return catalog.absent(conn, [one.id for one in segments], ids), here


def _place(record: JobRecord) -> tuple[int, int]:
    return int(record.job["created_at"]), record.id
