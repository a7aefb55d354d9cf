"""One suite for every ArchiveReader: what is found, in which order, and that records are whole."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import job
from darner.history.codec import Codec
from darner.history.fold import fold_jobs
from darner.history.ports import ArchiveReader
from darner.history.record import JobRecord, RecordQuery
from darner.history.rows import read_records
from darner.history.twins import ArchiveTwin, fits
from darner.testing.history import Shape, fill

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.integration.retention.archive.keeping import kept  # noqa: E402
from tests.integration.retention.history import History  # noqa: E402

JOBS = 240
HOUR_MS = 3_600_000


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A reader and what it holds."""

    reader: ArchiveReader
    records: Sequence[JobRecord]


@pytest.fixture(params=["twin", "directory"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    async with AsyncExitStack() as stack:
        db = Database.open(f"sqlite:///{tmp_path}/darner.db")
        stack.callback(db.close)
        migrate(db)
        # Three jobs each are as old as one another.
        fill(db, Shape(jobs=JOBS, newest_ms=db.read_sync(db_now_ms) - 8 * HOUR_MS, step_ms=1000))
        at = job.c.created_at - job.c.id % 3 * 1000
        db.write_sync(lambda conn: conn.execute(update(job).values(created_at=at, bio="", error=job.c.error)))
        db.write_sync(lambda conn: conn.execute(update(job).where(job.c.id % 40 == 0).values(bio="Größtes Bild 100%_x")))
        codec = Codec()
        db.write_sync(lambda conn: fold_jobs(conn, range(1, JOBS, 2), codec))
        # Redaction leaves these as they are, so what is read before is what must be read after.
        records = db.read_sync(lambda conn: read_records(conn, range(1, JOBS + 1), codec))
        if request.param == "twin":
            yield Shelf(reader=ArchiveTwin(records), records=records)
            return
        archive = await stack.enter_async_context(kept(History(db), tmp_path / "archive"))
        await archive.sweep()
        assert db.read_sync(lambda conn: conn.execute(select(job.c.id)).all()) == []
        yield Shelf(reader=archive.archive, records=records)


QUERIES = (
    RecordQuery(limit=JOBS),
    RecordQuery(limit=7),
    RecordQuery(states=("FAILED",), limit=JOBS),
    RecordQuery(states=("FAILED", "PARTIAL", "CANCELLED"), limit=9),
    RecordQuery(types=("gc",), limit=JOBS),
    RecordQuery(types=("gc", "get_task"), limit=JOBS),
    RecordQuery(owner="user-7", limit=JOBS),
    RecordQuery(owner="nobody", limit=JOBS),
    RecordQuery(tag="tag-7", limit=JOBS),
    RecordQuery(cluster_id=1, limit=50),
    RecordQuery(cluster_id=2, limit=50),
    RecordQuery(text="SVC-1/blobs", limit=JOBS),
    RecordQuery(text="answered 503", limit=JOBS),
    RecordQuery(text="Größtes", limit=JOBS),
    RecordQuery(text="100%_x", limit=JOBS),
    RecordQuery(text="100_", limit=JOBS),
    RecordQuery(text="'; DROP TABLE job; --", limit=JOBS),
    RecordQuery(text="registry-3", states=("SUCCEEDED",), types=("preheat",), owner="user-7", limit=JOBS),
)


async def test_what_fits_is_found_newest_first(shelf: Shelf) -> None:
    ranked = sorted(shelf.records, key=lambda one: (one.job["created_at"], one.id), reverse=True)
    for query in QUERIES:
        found = await shelf.reader.page(query)
        assert [one.id for one in found] == [one.id for one in ranked if fits(one, query)][: query.limit], query


async def test_bounds_of_time_and_the_keyset(shelf: Shelf) -> None:
    ranked = sorted(shelf.records, key=lambda one: (one.job["created_at"], one.id), reverse=True)
    middle = ranked[100]
    since, until = int(ranked[150].job["created_at"]), int(ranked[50].job["created_at"])
    for query in (
        RecordQuery(since_ms=since, limit=JOBS),
        RecordQuery(until_ms=until, limit=JOBS),
        RecordQuery(since_ms=since, until_ms=until, limit=JOBS),
        RecordQuery(before=(int(middle.job["created_at"]), middle.id), limit=20),
        RecordQuery(before=(int(middle.job["created_at"]), 0), limit=20),
        RecordQuery(before=(0, 0), limit=20),
    ):
        found = [one.id for one in await shelf.reader.page(query)]
        assert found == [one.id for one in ranked if fits(one, query)][: query.limit]
    walked: list[int] = []
    query = RecordQuery(limit=11)
    while page := await shelf.reader.page(query):
        walked += [one.id for one in page]
        query = replace(query, before=(int(page[-1].job["created_at"]), page[-1].id))
    assert walked == [one.id for one in ranked]


async def test_a_record_is_found_by_its_id_and_whole(shelf: Shelf) -> None:
    for record in shelf.records[::37]:
        found = await shelf.reader.find(record.id)
        assert found is not None
        for name in ("args", "result", "clusters", "parts", "events"):
            assert getattr(found, name) == getattr(record, name), name
        kept_columns = ("uuid", "type", "state", "owner", "summary", "error", "bio", "created_at", "started_at", "finished_at")
        assert [found.job[name] for name in kept_columns] == [record.job[name] for name in kept_columns]
    assert await shelf.reader.find(JOBS + 1) is None
    assert await shelf.reader.find(2**62) is None
