"""Archived jobs whose time is over: hidden with their whole segment, and after `undo` gone with its file."""

import asyncio
import hashlib
import json
from collections.abc import MutableMapping, Sequence
from typing import Any

from sqlalchemy import Connection

from darner.core.job import Tier
from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment, SegmentState
from darner.retention.archive.owner import claim
from darner.retention.archive.segment import Row, rows
from darner.retention.archive.storage import Storage
from darner.retention.rules import Order, Selector, fits
from darner.retention.sql import runs
from darner.retention.sql.facts import JobRow
from darner.retention.sweep.work import Done, SweepContext

_log = get_logger("archive")
_ALL = 1_000_000
_LOOKED_AT = ("id", "type", "state", "owner", "tag", "application", "labels", "importance", "created_at", "finished_at", "clusters")
# Whether selectors hold a job of a segment, by both: asked at each sweep for as long as they do.
HeldSegments = MutableMapping[tuple[int, tuple[Selector, ...]], bool]


class ExpiryWork:
    """Hides segments whose rule's time is over, and drops those that nobody can bring back any more.

    A segment whose rule there is no longer is kept: nobody said for how long. So is one with a job that a selector holds.
    """

    name = "archive expiry"
    removes = True

    def __init__(self, storage: Storage, held: HeldSegments) -> None:
        """The storage is used in threads."""
        self._storage = storage
        self._held = held

    def rows_due_anew(self, conn: Connection, order: Order, now_ms: int, *, before: Order, then_ms: int) -> int:
        """How many jobs would be hidden or gone under an order at a moment, and not under another at another, for the guard."""

        def goes(one: Segment, by: Order, at_ms: int) -> bool:
            return _is_over(one, by, at_ms) or _is_past_undo(one, by, at_ms)

        there = catalog.in_state(conn, SegmentState.LIVE, SegmentState.EXPIRED, limit=_ALL)
        anew = [one for one in there if goes(one, order, now_ms) and not goes(one, before, then_ms)]
        return sum(one.row_count - one.skipped for one in anew)

    async def batch(self, sweep: SweepContext, limit: int) -> Done:  # noqa: ARG002  (a segment is one thing)
        """One segment."""
        segment = await self._next(sweep)
        if segment is None:
            return Done()

        def act(conn: Connection) -> int:
            now_ms = sweep.fence(conn)
            found = catalog.find(conn, segment.id)
            if found is None or not (_is_over(found, sweep.order, now_ms) or _is_past_undo(found, sweep.order, now_ms)):
                return 0
            return _hide(conn, sweep, found, now_ms) if found.state == SegmentState.LIVE else _give_up(conn, sweep, found, now_ms)

        changed = await sweep.db.write(act)
        return Done(examined=changed, changed=changed, more=True)

    async def _next(self, sweep: SweepContext) -> Segment | None:
        def over(conn: Connection) -> list[Segment]:
            now_ms = sweep.fence(conn)
            live = catalog.in_state(conn, SegmentState.LIVE, limit=_ALL)
            gone = catalog.in_state(conn, SegmentState.EXPIRED, limit=_ALL)
            past = [one for one in gone if _is_past_undo(one, sweep.order, now_ms)]
            return [one for one in live if _is_over(one, sweep.order, now_ms)] + past

        for segment in await sweep.db.write(over, durable=False):
            if not await self._is_held(sweep, segment):
                return segment
        return None

    async def _is_held(self, sweep: SweepContext, segment: Segment) -> bool:
        """Whether a selector holds one of its jobs; the file is asked only if the catalogue cannot rule it out."""
        selectors = tuple(one for one in sweep.order.selectors if _may_hold(segment, one))
        if not selectors:
            return False
        key = (segment.id, selectors)
        if key not in self._held:
            await claim(sweep.db, self._storage)
            absent = await sweep.db.read(lambda conn: catalog.absent_from(conn, segment.id))
            self._held[key] = await asyncio.to_thread(self._holds, segment, selectors, set(absent))
            if self._held[key]:
                _log.info("a segment outlives its time: a hold is on some of its jobs", segment=segment.id, rule=segment.rule)
        return self._held[key]

    def _holds(self, segment: Segment, selectors: Sequence[Selector], absent: set[int]) -> bool:
        with self._storage.reading([(segment.location, segment.sha256)]) as (file,):
            shown = (_fact(row) for row in rows(file, _LOOKED_AT) if row[0] not in absent)
            return any(fits(one, selector.match) for one in shown for selector in selectors)


def _hide(conn: Connection, sweep: SweepContext, segment: Segment, now_ms: int) -> int:
    count = catalog.expire(conn, segment.id, now_ms)
    sweep.count(conn, hidden=count)
    _audit(conn, sweep, "hide", segment, count, 0, now_ms)
    _log.info("a segment of the archive is hidden", segment=segment.id, rule=segment.rule, jobs=count)
    return count


def _give_up(conn: Connection, sweep: SweepContext, segment: Segment, now_ms: int) -> int:
    count = segment.row_count - len(catalog.absent_from(conn, segment.id))
    catalog.dropping(conn, segment.id)
    sweep.count(conn, removed=count, bytes=segment.bytes)
    _audit(conn, sweep, "delete", segment, count, segment.bytes, now_ms)
    _log.info("a segment of the archive is given up", segment=segment.id, rule=segment.rule, jobs=count)
    return max(1, count)


def _audit(conn: Connection, sweep: SweepContext, action: str, segment: Segment, count: int, freed: int, now_ms: int) -> None:
    runs.audit(
        conn,
        {
            "run_id": sweep.run_id, "rule": segment.rule, "action": action, "at": now_ms, "removed": count, "bytes": freed,
            "policy_version": sweep.policy_version, "epoch": sweep.lease.epoch, "oldest_at": segment.min_created_at,
            "newest_at": segment.max_created_at, "ids_digest": hashlib.sha256(segment.sha256.encode()).hexdigest(),
        },
    )  # fmt: skip


def _is_over(segment: Segment, order: Order, now_ms: int) -> bool:
    rule = order.policy.rule(segment.rule)
    live = segment.state == SegmentState.LIVE
    return live and rule is not None and rule.ends is not None and segment.max_base_at + rule.ends.ms <= now_ms


def _is_past_undo(segment: Segment, order: Order, now_ms: int) -> bool:
    rule = order.policy.rule(segment.rule)
    if rule is None or segment.state != SegmentState.EXPIRED or segment.expired_at is None:
        return False
    return segment.expired_at + (rule.undo.ms if rule.undo else 0) <= now_ms


def _may_hold(segment: Segment, selector: Selector) -> bool:
    match = selector.match
    asked = {"types": match.types, "states": match.states, "owners": match.owners, "tags": match.tags,
             "applications": match.applications, "clusters": match.clusters}  # fmt: skip
    known = segment.facets
    return all(not wanted or name not in known or set(wanted) & set(known[name]) for name, wanted in asked.items())


def _fact(row: Row) -> JobRow:
    values: dict[str, Any] = dict(zip(_LOOKED_AT, row, strict=True))
    values |= {"labels": json.loads(values["labels"]) if values["labels"] else {}, "clusters": tuple(values["clusters"])}
    return JobRow(**values, base_at=None, held=0, tier=int(Tier.ARCHIVE), part_count=0, class_id=0)
