"""The archive: how fast jobs are written and verified, what they take, and how long searches last.

    python bench/archive.py [--rows 100000] [--segment 1000] [--keep DIR]

The first segment is made from real rows of a database; for more rows it is copied with other ids and times, which takes a minute
per ten million. Searches are shown beside the same question put to all files without the catalogue. Figures are of this machine, in
this minute; only the ratios say much.
"""

import argparse
import asyncio
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import compute, parquet
from sqlalchemy import delete, insert

from darner.db import Database, db_now_ms, migrate
from darner.db.tables.archive import archive_segment
from darner.db.tables.jobs import JOB_TABLES
from darner.history.codec import Codec
from darner.history.dictionary import store, train_type, types_to_train
from darner.history.fold import fold_jobs
from darner.history.record import RecordQuery
from darner.retention.archive import catalog
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.engine import Archive
from darner.retention.archive.making import current_rows
from darner.retention.archive.segment import ROW_GROUP, Facts, Row, Writer, verify
from darner.testing.history import Shape, fill

T = TypeVar("T")
DAY_MS = 86_400_000
SPAN_DAYS = 180
AT_ONCE = 500


def make_warm(db: Database, codec: Codec, rows: int) -> None:
    """As jobs are when their time in the archive begins."""
    for job_type in db.read_sync(lambda conn: types_to_train(conn, db_now_ms(conn))):
        trained = db.read_sync(lambda conn, name=job_type: train_type(conn, name, codec))  # type: ignore[misc]
        db.write_sync(lambda conn, one=trained: store(conn, one, 1))  # type: ignore[misc]
    db.read_sync(codec.refresh)
    for start in range(1, rows + 1, AT_ONCE):
        ids = list(range(start, min(start + AT_ONCE, rows + 1)))
        db.write_sync(lambda conn, ids=ids: fold_jobs(conn, ids, codec), durable=False)  # type: ignore[misc]


def write_first(db: Database, file: Path, rows: int) -> Facts:
    """The first segment, written as a handover does it; what that took."""
    codec = Codec()
    make_warm(db, codec, rows)
    took, worked = {"read": 0.0, "write": 0.0, "verify": 0.0}, time.process_time()
    writer = Writer(file)
    for start in range(1, rows + 1, AT_ONCE):
        ids = list(range(start, min(start + AT_ONCE, rows + 1)))
        found = timed(took, "read", lambda ids=ids: db.read_sync(lambda conn: current_rows(conn, ids, codec)))  # type: ignore[misc]
        timed(took, "write", lambda found=found: add_all(writer, found))  # type: ignore[misc]
    facts = timed(took, "write", writer.close)
    facts = timed(took, "verify", lambda: verify(file, facts, writer.tables))
    total, worked = sum(took.values()), time.process_time() - worked
    print(f"warm jobs written and verified: {rows / total:,.0f} rows/s ({', '.join(f'{k} {v:.2f} s' for k, v in took.items())})")
    print(f"  {rows / worked:,.0f} rows per second of processor; {facts.bytes / rows:.0f} B/job in the archive")
    return facts


def add_all(writer: Writer, found: list[tuple[Row, int]]) -> None:
    for row, _ in found:
        writer.add(row)


def timed(took: dict[str, float], name: str, act: Callable[[], T]) -> T:
    began = time.perf_counter()
    found = act()
    took[name] += time.perf_counter() - began
    return found


def copy(source: pa.Table, file: Path, *, ids: int, ms: int) -> int:
    """A segment with other ids and times; its bytes."""
    table = source
    for name, by in (("id", ids), ("created_at", ms), ("finished_at", ms), ("base_at", ms)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), compute.add(table[name], by))
    plain = [name for name in table.schema.names if name not in {"id", "uuid", "summary", "body", "clusters"}]
    parquet.write_table(table, file, compression="zstd", compression_level=3, use_dictionary=plain, row_group_size=ROW_GROUP)
    return file.stat().st_size


def prepare(db: Database, root: Path, rows: int, segment: int) -> list[dict[str, Any]]:
    """All segments with their rows of the catalogue."""
    now = db.read_sync(db_now_ms)
    step = SPAN_DAYS * DAY_MS / rows
    segment = min(segment, rows)
    fill(db, Shape(jobs=segment, newest_ms=now - int((rows - segment) * step), step_ms=step, block=min(segment, 20_000)))
    facts = write_first(db, root / "0.parquet", segment)
    for one in JOB_TABLES:
        db.write_sync(lambda conn, table=one: conn.execute(delete(table)))  # type: ignore[misc]
    table = parquet.read_table(root / "0.parquet")
    made = []
    for number in range(max(1, rows // segment)):
        ids, ms = number * segment, -int(number * segment * step) + int((rows - segment) * step)
        name = f"{number}.parquet" if number else "made.parquet"
        size = copy(table, root / name, ids=ids, ms=ms)
        made.append(
            {
                "state": "LIVE", "rule": "all", "policy_version": 1, "epoch": 1, "location": name, "row_count": segment,
                "bytes": size, "deleted": segment, "created_at": now, "min_id": facts.min_id + ids, "max_id": facts.max_id + ids,
                "min_created_at": facts.min_created_at + ms, "max_created_at": facts.max_created_at + ms,
                "max_base_at": facts.max_base_at + ms, "facets": "{}", "sealed_at": now,
            }
        )  # fmt: skip
    db.write_sync(lambda conn: conn.execute(insert(archive_segment), made))
    (root / "0.parquet").unlink()
    return made


async def lasts(times: int, ask: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Median and 95th percentile in ms."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took), statistics.quantiles(took, n=20)[-1]


async def search(archive: Archive, db: Database, made: list[dict[str, Any]], segment: int) -> None:
    dice = random.Random(7)  # noqa: S311
    newest = max(int(one["max_created_at"]) for one in made)
    oldest = min(int(one["min_created_at"]) for one in made)
    everything = db.read_sync(lambda conn: catalog.between(conn, since_ms=None, before_ms=None, after=None, limit=10_000))

    def some_id() -> int:
        return dice.randrange(1, segment * len(made) + 1)

    def within(days: float, **more: Any) -> RecordQuery:  # noqa: ANN401
        start = dice.randrange(oldest, max(oldest + 1, newest - int(days * DAY_MS)))
        return RecordQuery(since_ms=start, until_ms=start + int(days * DAY_MS), limit=20, **more)

    async def without(query: RecordQuery) -> None:
        await archive._reader.page_of(everything, query)  # noqa: SLF001

    async def without_id() -> None:
        number = some_id()
        await archive._reader._read(everything, lambda files, stop: archive._search.some(files, [number], stop))  # noqa: SLF001

    await archive.find(some_id())
    cases: list[tuple[str, Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]] = [
        ("by id", lambda: archive.find(some_id()), without_id),
        ("newest 20 failures within 7 days", *both(archive, without, lambda: within(7, states=("FAILED",)))),
        ("newest 20 of an owner within 7 days", *both(archive, without, lambda: within(7, owner=f"user-{dice.randrange(50)}"))),
        ("newest 20 with a text within a day", *both(archive, without, lambda: within(1, text="answered 503"))),
        ("newest page of all", *both(archive, without, lambda: RecordQuery(limit=20))),
    ]
    print(f"{len(made)} segments of {segment:,} jobs; p50 / p95 in ms, with the catalogue | without it | ratio of the medians")
    for name, ask, baseline in cases:
        fast, slow = await lasts(40, ask), await lasts(10, baseline)
        print(f"  {name:36} {fast[0]:7.1f} / {fast[1]:7.1f} | {slow[0]:7.1f} / {slow[1]:7.1f} | {slow[0] / fast[0]:.1f}x")
    await unbounded(archive)


def both(
    archive: Archive, without: Callable[[RecordQuery], Awaitable[object]], query: Callable[[], RecordQuery]
) -> tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]:
    return lambda: archive.page(query()), lambda: without(query())


async def unbounded(archive: Archive) -> None:
    """A text that is nowhere, through everything; one that is often; and a search that is given up."""
    began = time.perf_counter()
    await archive.page(RecordQuery(text="this text is nowhere", limit=20))
    print(f"  text that is nowhere, all files: {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    async for _ in archive.stream(RecordQuery(text="answered 503", limit=20)):
        break
    print(f"  first hits of a text in all files: {time.perf_counter() - began:.2f} s")
    task = asyncio.create_task(archive.page(RecordQuery(text="this text is nowhere", limit=20)))
    await asyncio.sleep(0.05)
    began = time.perf_counter()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    waited = time.perf_counter() - began
    await archive.find(1)
    print(f"  cancelled: {waited * 1000:.0f} ms; a job by id was answered {(time.perf_counter() - began) * 1000:.0f} ms after that")
    print(f"  peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--segment", type=int, help="jobs per file (default: a hundredth of the rows)")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    segment = min(asked.rows, asked.segment or max(1_000, asked.rows // 100))
    place = asked.keep or Path(tempfile.mkdtemp(prefix="darner-bench-"))
    root = place / "archive"
    root.mkdir(parents=True)
    db = Database.open(f"sqlite:///{place / 'darner.db'}")
    try:
        migrate(db)
        made = prepare(db, root, asked.rows, segment)
        async with Archive(db, ArchiveConfig(url=str(root)), Codec()) as archive:
            await search(archive, db, made, segment)
    finally:
        db.close()
        if asked.keep is None:
            shutil.rmtree(place)


if __name__ == "__main__":
    asyncio.run(main())
