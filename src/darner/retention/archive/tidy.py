"""Files that are in the archive's way: those that were replaced, those of segments that are given up, and strays."""

import asyncio
import re
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.owner import claim
from darner.retention.archive.storage import TEMPORARY, Storage, Stored
from darner.retention.policy import DAY_MS
from darner.retention.sql.marks import mark, set_mark
from darner.retention.sweep.work import Done, SweepContext

_log = get_logger("archive")
STRAYS = "archive-strays"
_STRAY_FOR_MS = 7 * DAY_MS
_READ_ON_MS = DAY_MS
_TOLD_OF = 1_000
# Nothing else is ever removed: somebody may keep other files there.
_OURS = re.compile(
    rf"(\d{{4}}/\d\d/[A-Za-z0-9_-]+-\d{{8}}T\d{{6}}-[0-9a-f]{{8}}\.parquet|{re.escape(TEMPORARY)}/\d+\.\d+\.parquet)"
)


class TidyWork:
    """Drops the files of replaced segments after a day, and strays a week after they were first seen.

    A week, because a database that was restored from a backup does not know its newest segments; it is counted from when they were
    seen first, because they can be old by then.
    """

    name = "archive tidying"
    removes = False

    def __init__(self, storage: Storage) -> None:
        """The storage is used in threads."""
        self._storage = storage
        self._left: list[Segment] | None = None

    async def batch(self, sweep: SweepContext, limit: int) -> Done:  # noqa: ARG002  (a file is one thing)
        """A file that is to go, and at last a look at all others."""
        if self._left is None:
            self._left = await sweep.db.write(lambda conn: _ripe(conn, sweep.fence(conn)), durable=False)
            if not await sweep.db.read(_has_files):
                return Done()
            await claim(sweep.db, self._storage)
        if self._left:
            await self._drop(sweep, self._left.pop())
            return Done(examined=1, more=True)
        await self._strays(sweep)
        return Done()

    async def _drop(self, sweep: SweepContext, segment: Segment) -> None:
        """First nobody reads it, then its file goes: whatever a stale process does after that harms nothing."""

        def begin(conn: Connection) -> None:
            sweep.fence(conn)
            catalog.dropping(conn, segment.id)

        def end(conn: Connection) -> None:
            sweep.fence(conn)
            catalog.dropped(conn, segment.id)

        if segment.state != SegmentState.DROPPING:
            await sweep.db.write(begin)
        await asyncio.to_thread(self._storage.delete, segment.location)
        await sweep.db.write(end)

    async def _strays(self, sweep: SweepContext) -> None:
        now_ms = await sweep.db.write(sweep.fence, durable=False)
        known = await sweep.db.read(catalog.locations)
        files = await asyncio.to_thread(lambda: [one for one in self._storage.names() if _OURS.fullmatch(one.name)])
        strays = [one for one in files if one.name not in known and not _is_made_now(one, now_ms)]
        seen: Mapping[str, int] = (await sweep.db.read(lambda conn: mark(conn, STRAYS))).get("files", {})
        ripe = [one for one in strays if seen.get(one.name, now_ms) + _STRAY_FOR_MS <= now_ms]
        for one in ripe:
            await asyncio.to_thread(self._storage.delete, one.name)
            _log.warning("a file that the archive's catalogue does not know was removed", file=one.name, bytes=one.bytes)
        await self._remember(sweep, seen, [one for one in strays if one not in ripe], now_ms)

    async def _remember(self, sweep: SweepContext, seen: Mapping[str, int], strays: Sequence[Stored], now_ms: int) -> None:
        left = {one.name: seen.get(one.name, now_ms) for one in strays[:_TOLD_OF]}
        if left == seen:
            return

        def write(conn: Connection) -> None:
            sweep.fence(conn)
            set_mark(conn, STRAYS, {"files": left}, by="system")

        await sweep.db.write(write)
        for name in left.keys() - seen.keys():
            _log.warning("the archive has a file that its catalogue does not know; it is removed in a week", file=name)


def _has_files(conn: Connection) -> bool:
    return bool(catalog.locations(conn))


def _ripe(conn: Connection, now_ms: int) -> list[Segment]:
    """Segments whose files are to go."""
    found = catalog.in_state(conn, SegmentState.DROPPING)
    erased = {one.id for one in catalog.to_erase(conn)}
    for one in catalog.in_state(conn, SegmentState.REPLACED):
        if (one.expired_at or 0) + _READ_ON_MS <= now_ms or one.id in erased:
            found.append(one)
    return found


def _is_made_now(file: Stored, now_ms: int) -> bool:
    """A file that a process is making, or has just put there; the catalogue is told afterwards."""
    return file.changed_ms + DAY_MS > now_ms and file.name.startswith(TEMPORARY)
