"""The archive as others see it: works for the sweeper, a reader for lists, restore, erase, and figures."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Self

from sqlalchemy import Connection

from darner.core.errors import DarnerError, NotFoundError
from darner.db import Database
from darner.history.codec import Codec
from darner.history.record import JobRecord, RecordQuery
from darner.kit.log import get_logger
from darner.retention.archive import catalog, removing
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.expiry import ExpiryWork, HeldSegments
from darner.retention.archive.figures import figures
from darner.retention.archive.handover import HandoverWork
from darner.retention.archive.objects import open_storage
from darner.retention.archive.reading import Found, Reader
from darner.retention.archive.rewriting import RewriteWork
from darner.retention.archive.search import Search
from darner.retention.archive.storage import Storage
from darner.retention.archive.tidy import TidyWork
from darner.retention.sweep.work import Work

_log = get_logger("archive")
_TRIES = 5
_CLEAN_EVERY_S = 600.0


class Archive:
    """`ArchiveReader`, and what the retention engine needs. `async with` opens it; it makes nothing until jobs come."""

    def __init__(self, db: Database, config: ArchiveConfig, codec: Codec, storage: Storage | None = None) -> None:
        """InvalidInputError for an address that cannot be used. `db` must have been migrated."""
        self._db = db
        self._config = config
        self._codec = codec
        self._storage = storage or open_storage(config)
        self._search = Search(config, [self._storage.root])
        self._reader = Reader(db, self._storage, self._search, within_s=config.search_time)
        self._held: HeldSegments = {}
        self._busy: set[int] = set()
        self._cleaning: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._cleaning = asyncio.create_task(self._clean(), name="archive-copies")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.gather(self._cleaning, return_exceptions=True)
        await self._reader.close()
        await asyncio.to_thread(self._search.close)

    def works(self) -> Sequence[Callable[[], Work]]:
        """Makers of works: handing over, writing anew, tidying up, and expiry."""
        return (
            partial(HandoverWork, storage=self._storage, codec=self._codec, config=self._config, busy=self._busy),
            partial(RewriteWork, storage=self._storage, config=self._config, busy=self._busy),
            partial(TidyWork, self._storage),
            partial(ExpiryWork, self._storage, self._held),
        )

    async def page(self, query: RecordQuery) -> list[JobRecord]:
        """Records, newest first; those that are in the database are left to it.

        UnavailableError while the store does not answer, TimedOutError for a search that takes too long.
        """
        return await self._reader.page(query)

    def stream(self, query: RecordQuery) -> AsyncIterator[list[JobRecord]]:
        """The same without an end but the archive's, as they are found: newest files first, in order within each list."""
        return self._reader.stream(query)

    async def find(self, job_id: int) -> JobRecord | None:
        """One record; None if the archive does not have it, or the database has it."""
        return await self._reader.find(job_id)

    async def restore(self, job_id: int, *, reason: str = "restored from the archive") -> bool:
        """Bring a job back into the database, warm and held; False if the archive does not have it."""
        for _ in range(_TRIES):
            found = await self._reader.everywhere(job_id)
            if not found:
                return False
            if await self._db.write(lambda conn, found=found: removing.put_back(conn, found, self._codec, reason)):  # type: ignore[misc]
                _log.info("a job was restored from the archive", job_id=job_id)
                return True
        raise NotFoundError(f"Job {job_id} is on its way from file to file; try again.")

    async def erase(self, ids: Sequence[int], *, reason: str, by: str) -> dict[str, Any]:
        """Have jobs forgotten at once, and taken out of the files by the next sweep: `{jobs, segments, missing}`.

        ConflictError for jobs that are in the database, where they are removed by other means; NotFoundError if none is archived.
        """
        where: list[Found] = []
        for one in dict.fromkeys(ids):
            where += await self._reader.everywhere(one, hidden=True)
        told = await self._db.write(lambda conn: removing.erase(conn, where, list(ids), reason=reason, by=by))
        _log.warning("jobs are erased from the archive", by=by, reason=reason, **{**told, "missing": len(told["missing"])})
        return told

    async def segments(self, *, before: int | None = None, limit: int = 200) -> list[Segment]:
        """Segments, newest first."""
        return await self._db.read(lambda conn: catalog.newest(conn, limit, before=before))

    async def figures(self) -> dict[str, Any]:
        """`{segments, jobs, bytes, …}` of what can be read, and `problems`: sentences for people."""
        return await self._db.read(figures)

    async def _clean(self) -> None:
        """Copies of files that are gone go too, on every manager's machine."""
        while True:
            await asyncio.sleep(_CLEAN_EVERY_S)
            with contextlib.suppress(DarnerError):
                kept = await self._db.read(_files)
                await asyncio.to_thread(self._storage.keep_only, kept)


def _files(conn: Connection) -> set[str]:
    shown = (SegmentState.SEALED, SegmentState.LIVE, SegmentState.EXPIRED)
    return {one.location for one in catalog.in_state(conn, *shown, limit=1_000_000)}
