"""A segment made: written from the database, read back, stored, and told to the catalogue."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from darner.core.errors import DarnerError, NotFoundError, StorageFullError, TimedOutError, UnavailableError
from darner.db.tables.jobs import job, job_cluster, job_event
from darner.history.codec import Codec
from darner.history.record import JobRecord
from darner.history.rows import REDACTED, read_fold_texts, read_records
from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment
from darner.retention.archive.segment import LEFT, Entry, Facts, Row, Writer, row_of, row_of_fold, verify
from darner.retention.archive.storage import Storage
from darner.retention.sweep.work import SweepContext

_log = get_logger("archive")
_READ_AT_ONCE = 500
# Not the fault of a job.
_AWAY = (UnavailableError, TimedOutError, StorageFullError)
# The columns that a warm job's row has, its clusters, and its blob.
_Warm = tuple[tuple[Any, ...], tuple[int, ...], bytes]


async def plan(sweep: SweepContext, rule: str) -> Segment:
    """Take a name for a segment to come."""

    def take(conn: Connection) -> Segment:
        now_ms = sweep.fence(conn)
        values = {"rule": rule, "policy_version": sweep.policy_version, "epoch": sweep.lease.epoch}
        number = catalog.plan(conn, **values, location=_name(rule, now_ms), now_ms=now_ms)  # type: ignore[arg-type]
        return _found(conn, number)

    return await sweep.db.write(take)


async def write(sweep: SweepContext, codec: Codec, ids: Sequence[int], file: Path) -> tuple[Facts, list[Entry]]:
    """A file of jobs of the database, read back: its facts, and its jobs in its order."""
    writer = await asyncio.to_thread(Writer, file)
    stamps: dict[int, int] = {}
    try:
        for start in range(0, len(ids), _READ_AT_ONCE):
            some = ids[start : start + _READ_AT_ONCE]
            found = await sweep.db.read(lambda conn, some=some: current_rows(conn, some, codec))  # type: ignore[misc]
            await asyncio.to_thread(_add, writer, found, stamps)
        facts = await asyncio.to_thread(writer.close)
    except BaseException:
        await asyncio.to_thread(writer.give_up)
        raise
    checked = await asyncio.to_thread(verify, file, facts, writer.tables)
    return checked, [replace(one, stamp=stamps[one.id]) for one in writer.entries]


def current_rows(conn: Connection, ids: Sequence[int], codec: Codec) -> list[tuple[Row, int]]:
    """Jobs of the database as rows, redacted, in the order of `ids`, each with its stamp (0: none); see `current_stamps`.

    One that cannot be read or written is left away.
    """
    damaged: dict[int, str] = {}
    warm = _warm(conn, ids, codec, damaged)
    found: dict[int, tuple[Row, int]] = {}
    for key, one in warm.items():
        try:
            found[key] = (row_of_fold(*one), hash(one))
        except DarnerError as error:
            damaged[key] = error.message
    for key, reason in damaged.items():
        _log.warning("a job cannot be read, so it is not archived", job=key, reason=reason)
    others = [key for key in ids if key not in warm and key not in damaged]
    found |= {row[0]: (row, 0) for row in _other_rows(conn, others, codec)}
    return [found[key] for key in ids if key in found]


def current_stamps(conn: Connection, ids: Sequence[int], codec: Codec) -> dict[int, int]:
    """What tells within this process that a warm job is still the same, much quicker than its row: by id, of warm jobs only."""
    return {key: hash(one) for key, one in _warm(conn, ids, codec, {}).items()}


def _warm(conn: Connection, ids: Sequence[int], codec: Codec, damaged: dict[int, str]) -> dict[int, _Warm]:
    """Jobs whose blob is all there is to them, unread; it was redacted when it was made."""
    texts = read_fold_texts(conn, ids, codec, damaged=damaged)
    told_since = select(job_event.c.job_id).where(job_event.c.job_id.in_(list(texts))).distinct()
    for key in conn.execute(told_since).scalars().all():
        del texts[key]
    clusters: dict[int, list[int]] = {}
    of = select(job_cluster.c.job_id, job_cluster.c.cluster_id).where(job_cluster.c.job_id.in_(list(texts)))
    for key, cluster in conn.execute(of):
        clusters.setdefault(key, []).append(cluster)
    columns = select(*(job.c[name] for name in LEFT)).where(job.c.id.in_(list(texts)))
    return {one[0]: (tuple(one), tuple(sorted(clusters.get(one[0], ()))), texts[one[0]]) for one in conn.execute(columns)}


def _other_rows(conn: Connection, ids: Sequence[int], codec: Codec) -> list[Row]:
    if not ids:
        return []
    try:
        found = read_records(conn, ids, codec, REDACTED)
    except _AWAY:
        raise
    except DarnerError as error:
        if len(ids) == 1:
            _log.warning("a job cannot be read, so it is not archived", job=ids[0], reason=error.message)
            return []
        half = len(ids) // 2
        return [*_other_rows(conn, ids[:half], codec), *_other_rows(conn, ids[half:], codec)]
    made = (_row(record) for record in found)
    return [row for row in made if row is not None]


def _row(record: JobRecord) -> Row | None:
    try:
        return row_of(record)
    except DarnerError as error:
        _log.warning("a job is not archived", job=record.id, reason=error.message)
        return None


def _add(writer: Writer, found: Sequence[tuple[Row, int]], stamps: dict[int, int]) -> None:
    for row, stamp in found:
        writer.add(row)
        stamps[row[0]] = stamp


async def store(sweep: SweepContext, storage: Storage, segment: Segment, file: Path, facts: Facts) -> None:
    """Put a verified file into the store, and tell the catalogue; nobody sees it yet."""
    await asyncio.to_thread(storage.put, segment.location, file)

    def tell(conn: Connection) -> None:
        sweep.fence(conn)
        catalog.written(conn, segment.id, facts)

    await sweep.db.write(tell)


async def seal(sweep: SweepContext, segment: Segment) -> Segment:
    """From now on readers see it, but of jobs that are in the database too."""

    def show(conn: Connection) -> Segment:
        catalog.seal(conn, segment.id, sweep.fence(conn))
        return _found(conn, segment.id)

    return await sweep.db.write(show)


async def throw_away(sweep: SweepContext, storage: Storage, segment: Segment) -> None:
    """Give up a segment that nobody has seen, with its file."""
    await asyncio.to_thread(storage.delete, segment.location)
    await asyncio.to_thread(_clear_scratch, storage, segment.id)

    def forget(conn: Connection) -> None:
        sweep.fence(conn)
        catalog.forget(conn, segment.id)

    await sweep.db.write(forget)


async def scratch_of(sweep: SweepContext, storage: Storage, segment: Segment) -> Path:
    """Where a segment's file is made. No other process makes one there."""
    return (await asyncio.to_thread(storage.scratch)) / f"{segment.id}.{sweep.lease.epoch}.parquet"


def _clear_scratch(storage: Storage, segment_id: int) -> None:
    for file in storage.scratch().glob(f"{segment_id}.*"):
        file.unlink(missing_ok=True)


def _found(conn: Connection, segment_id: int) -> Segment:
    found = catalog.find(conn, segment_id)
    if found is None:
        raise NotFoundError(f"Segment {segment_id} is gone from the catalogue.")
    return found


def _name(rule: str, now_ms: int) -> str:
    """`2026/11/success-20261125T101500-1a2b3c4d.parquet`: never the same twice."""
    at = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    return f"{at:%Y/%m}/{rule}-{at:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.parquet"
