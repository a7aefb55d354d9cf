"""A segment made: written from the database, read back, stored, and told to the catalogue."""

import asyncio
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from darner.core.errors import DarnerError, NotFoundError, StorageFullError, TimedOutError, UnavailableError
from darner.history.codec import Codec
from darner.history.record import JobRecord
from darner.history.redact import redact_record
from darner.history.rows import read_records
from darner.kit.log import get_logger
from darner.retention.archive import catalog
from darner.retention.archive.catalog import Segment
from darner.retention.archive.segment import Entry, Facts, Writer, verify
from darner.retention.archive.storage import Storage
from darner.retention.sweep.work import SweepContext

_log = get_logger("archive")
_READ_AT_ONCE = 500
# Not the fault of a job.
_AWAY = (UnavailableError, TimedOutError, StorageFullError)


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
    try:
        for start in range(0, len(ids), _READ_AT_ONCE):
            records = await sweep.db.read(partial(_read, codec, ids[start : start + _READ_AT_ONCE]))
            await asyncio.to_thread(_add, writer, records)
        facts = await asyncio.to_thread(writer.close)
    except BaseException:
        await asyncio.to_thread(writer.give_up)
        raise
    return await asyncio.to_thread(verify, file, facts)


def _read(codec: Codec, ids: Sequence[int], conn: Connection) -> list[JobRecord]:
    """Records of jobs. One that cannot be read stays where it is, and does not keep the others from leaving."""
    try:
        return read_records(conn, ids, codec)
    except _AWAY:
        raise
    except DarnerError as error:
        if len(ids) == 1:
            _log.warning("a job cannot be read, so it is not archived", job=ids[0], reason=error.message)
            return []
        half = len(ids) // 2
        return [*_read(codec, ids[:half], conn), *_read(codec, ids[half:], conn)]


def _add(writer: Writer, records: Sequence[JobRecord]) -> None:
    for record in records:
        try:
            writer.add([redact_record(record)])
        except _AWAY:
            raise
        except DarnerError as error:
            _log.warning("a job is not archived", job=record.id, reason=error.message)


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
