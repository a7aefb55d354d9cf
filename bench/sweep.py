"""How fast the sweeper forgets ended jobs, and how long a person's write waits meanwhile.

Every job has a payload of 2 KB, a cluster, two parts and six timeline lines. Printed: jobs and rows per second, the latency of 50
durable writes per second of the same process without and during the sweep, and ratios to a bare loop that deletes the same rows in
batches of 500 without fence, audit, classification or pauses (the sweeper works at most half of the time, so 0.5 is its ceiling).
`python bench/sweep.py [JOBS]`
"""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select

from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import JOB_TABLES, job, job_cluster, job_event, job_part, job_payload
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine

JOBS = 50_000
CHUNK = 2_000
BATCH = 500
WRITE_EVERY_S = 0.02
QUIET_S = 3.0
ENDED_AGO_MS = 7 * 3_600_000
ROWS_PER_JOB = 11


def rows(first: int, count: int, now: int) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """Ended jobs and all that is theirs."""
    dice = random.Random(first)  # noqa: S311  (test data)
    ids = range(first, first + count)
    at = now - ENDED_AGO_MS - 60_000
    times = {"created_at": at, "updated_at": at, "finished_at": at + 50_000}
    ages = {"base_at": at + 50_000}
    facts = {"type": "preheat", "state": "SUCCEEDED", "owner": "ann", "cluster_count": 1, "part_count": 2, "deadline_at": at + 99}
    yield (
        job,
        [
            {"id": key, "uuid": f"{dice.getrandbits(128):032x}", "summary": f"http://x/{key}", **facts, **times, **ages}
            for key in ids
        ],
    )
    yield (
        job_payload,
        [{"job_id": key, "args": f"{dice.getrandbits(4096):x}", "result": f"{dice.getrandbits(4096):x}"} for key in ids],
    )
    yield job_cluster, [{"job_id": key, "cluster_id": 1} for key in ids]
    part = {"cluster_id": 1, "state": "SUCCEEDED", "hosts": b"[" + b"x" * 200 + b"]", **times}
    yield job_part, [{"job_id": key, "ordinal": n, "url": f"http://x/{key}/{n}", **part} for key in ids for n in range(2)]
    line = {"at": at, "kind": "state", "message": "SUCCEEDED: succeeded: every target host holds every byte"}
    yield job_event, [{"job_id": key, **line} for key in ids for _ in range(6)]


def fill(db: Database, count: int) -> None:
    """Write them in large transactions."""

    def write(conn: Connection, first: int) -> None:
        for table, values in rows(first, min(CHUNK, count - first + 1), db_now_ms(conn)):
            conn.execute(insert(table), values)

    for first in range(1, count + 1, CHUNK):
        db.write_sync(lambda conn, first=first: write(conn, first), durable=False)  # type: ignore[misc]


def bare(db: Database, count: int) -> float:
    """Jobs per second of the bare loop."""

    def remove(conn: Connection) -> bool:
        ids = list(conn.execute(select(job.c.id).where(job.c.id <= count).order_by(job.c.id).limit(BATCH)).scalars())
        for table in reversed(JOB_TABLES):
            key = table.c.id if table is job else table.c.job_id
            conn.execute(delete(table).where(key.in_(ids)))
        return bool(ids)

    began = time.perf_counter()
    while db.write_sync(remove, durable=False):
        pass
    return count / (time.perf_counter() - began)


async def write_on(db: Database, seconds: list[float]) -> None:
    """A person's write, again and again until cancelled: the latency of each."""

    def put(conn: Connection) -> None:
        now = db_now_ms(conn)
        times = {"created_at": now, "updated_at": now, "deadline_at": now + 3_600_000}
        conn.execute(insert(job).values(uuid=str(random.getrandbits(100)), type="preheat", state="QUEUED", **times))

    while True:
        began = time.perf_counter()
        await db.write(put)
        took = time.perf_counter() - began
        seconds.append(took)
        await asyncio.sleep(max(WRITE_EVERY_S - took, 0))


def told(seconds: list[float]) -> str:
    """p50, p99 and the worst of latencies."""
    ranked = sorted(seconds)
    p50, p99 = ranked[len(ranked) // 2], ranked[len(ranked) * 99 // 100]
    return f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, worst {ranked[-1] * 1000:.1f} ms, {len(ranked)} writes"


async def sweep(db: Database, count: int, bare_rate: float) -> None:
    """Sweep beside a writer, and print."""
    engine = RetentionEngine(db, config=SweepConfig(first_after_s=(3600, 3600)))
    async with engine:
        await engine.set_policy({"rules": [{"name": "all", "hot": "6h"}]}, by="bench")
        quiet: list[float] = []
        writer = asyncio.create_task(write_on(db, quiet))
        await asyncio.sleep(QUIET_S)
        writer.cancel()
        busy: list[float] = []
        writer = asyncio.create_task(write_on(db, busy))
        began = time.perf_counter()
        run = await engine.run(dry_run=False, by="bench", yes=True)
        while run.finished_at is None:
            await asyncio.sleep(0.05)
            run = await engine.find_run(run.id)
        took = time.perf_counter() - began
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await writer
    rate = run.removed / took
    print(f"sweep: {run.removed} of {count} jobs in {took:.1f} s: {rate:.0f} jobs/s, {rate * ROWS_PER_JOB:.0f} rows/s")
    print(f"  {rate / bare_rate:.2f} × the bare loop ({bare_rate:.0f} jobs/s, {bare_rate * ROWS_PER_JOB:.0f} rows/s)")
    print(f"  writes without a sweep: {told(quiet)}")
    print(f"  writes during the sweep: {told(busy)}")


def main() -> None:
    """Fill one database, delete from a copy by the bare loop, sweep the other."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    with tempfile.TemporaryDirectory() as directory:
        first, second = Path(directory) / "a.db", Path(directory) / "b.db"
        db = Database.open(f"sqlite:///{first}")
        migrate(db)
        fill(db, count)
        db.close()
        shutil.copyfile(first, second)
        print(f"{count} jobs, {first.stat().st_size / 2**20:.0f} MiB")
        db = Database.open(f"sqlite:///{second}")
        rate = bare(db, count)
        db.close()
        db = Database.open(f"sqlite:///{first}")
        try:
            asyncio.run(sweep(db, count, rate))
        finally:
            db.close()


if __name__ == "__main__":
    main()
