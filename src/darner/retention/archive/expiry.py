"""What becomes of segments: their time ends, their files go, small ones are merged, and stray files are found."""

import asyncio

from sqlalchemy import Connection

from darner.history.codec import Codec
from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.storage import TEMPORARY, Storage
from darner.retention.policy import DAY_MS, HOUR_MS, Rule
from darner.retention.rules import Order
from darner.retention.sweep.work import Done, SweepContext

_log = get_logger("archive")
_STRAY_FOR_MS = 7 * DAY_MS
_READ_ON_MS = 24 * HOUR_MS


class ExpiryWork:
    """Hides segments whose rule's time is over, and drops their files when nobody can bring them back any more.

    A segment whose rule there is no longer is kept: nobody said for how long.
    """

    name = "archive expiry"
    removes = True

    def __init__(self, storage: Storage) -> None:
        """The storage is used in threads."""
        self._storage = storage

    def due_rows(self, conn: Connection, order: Order, now_ms: int) -> int:
        """How many jobs would be hidden under an order at a moment, for the guard."""
        live = catalog.in_state(conn, SegmentState.LIVE, limit=100_000)
        return sum(segment.row_count - segment.skipped for segment in live if _is_over(segment, order, now_ms))

    async def batch(self, sweep: SweepContext, limit: int) -> Done:  # noqa: ARG002  (a segment is one thing)
        """One segment."""

        def hide(conn: Connection) -> int | None:
            now_ms = sweep.fence(conn)
            for segment in catalog.in_state(conn, SegmentState.LIVE, limit=100_000):
                if _is_over(segment, sweep.order, now_ms):
                    count = catalog.expire(conn, segment.id, now_ms)
                    sweep.count(conn, hidden=count)
                    return count
            return None

        hidden = await sweep.db.write(hide)
        if hidden is not None:
            return Done(examined=hidden, changed=hidden, more=True)
        gone = await self._drop(sweep)
        return Done(examined=gone, changed=gone, more=gone > 0)

    async def _drop(self, sweep: SweepContext) -> int:
        def ripe(conn: Connection) -> Segment | None:
            now_ms = sweep.fence(conn)
            expired = catalog.in_state(conn, SegmentState.EXPIRED, limit=100_000)
            return next((one for one in expired if _is_past_undo(one, sweep.order, now_ms)), None)

        segment = await sweep.db.write(ripe)
        if segment is None:
            return 0
        await asyncio.to_thread(self._storage.delete, segment.location)
        gone = segment.row_count - segment.skipped

        def drop(conn: Connection) -> None:
            sweep.fence(conn)
            catalog.dropped(conn, segment.id)
            sweep.count(conn, removed=gone, bytes=segment.bytes)

        await sweep.db.write(drop)
        _log.info("a segment of the archive is gone", segment=segment.id, rule=segment.rule, jobs=gone)
        return gone


class TidyWork:
    """Drops the files of merged segments after a day, and those that the catalogue does not know after a week."""

    name = "archive tidying"
    removes = False

    def __init__(self, *, storage: Storage, codec: Codec, config: ArchiveConfig) -> None:
        """The storage is used in threads."""
        self._storage = storage
        self._codec = codec
        self._config = config

    async def batch(self, sweep: SweepContext, limit: int) -> Done:  # noqa: ARG002  (files are few)
        """All of it."""
        now_ms = await sweep.db.write(sweep.fence, durable=False)
        for segment in await sweep.db.read(lambda conn: catalog.in_state(conn, SegmentState.REPLACED)):
            if (segment.expired_at or 0) + _READ_ON_MS <= now_ms:
                await asyncio.to_thread(self._storage.delete, segment.location)
                await sweep.db.write(lambda conn, number=segment.id: catalog.dropped(conn, number))  # type: ignore[misc]
        known = await sweep.db.read(catalog.locations)
        files = await asyncio.to_thread(lambda: list(self._storage.names()))
        for file in files:
            if file.name in known or file.changed_ms + _STRAY_FOR_MS > now_ms:
                continue
            _log.warning("a file that the archive's catalogue does not know is removed", file=file.name, bytes=file.bytes)
            await asyncio.to_thread(self._storage.delete, file.name)
        strays = sum(1 for file in files if file.name not in known and not file.name.startswith(TEMPORARY))
        if strays:
            _log.warning("the archive has files that its catalogue does not know; they go after a week", files=strays)
        return Done()


def _rule(segment: Segment, order: Order) -> Rule | None:
    return next((rule for rule in order.policy.rules if rule.name == segment.rule), None)


def _is_over(segment: Segment, order: Order, now_ms: int) -> bool:
    rule = _rule(segment, order)
    return rule is not None and rule.ends is not None and segment.max_base_at + rule.ends.ms <= now_ms


def _is_past_undo(segment: Segment, order: Order, now_ms: int) -> bool:
    rule = _rule(segment, order)
    if rule is None or segment.expired_at is None:
        return False
    return segment.expired_at + (rule.undo.ms if rule.undo else 0) <= now_ms
