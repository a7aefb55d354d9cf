"""How fast a long history is forgotten, and how long others wait meanwhile: Darner's sweeper beside upstream's way, in one run.

    python bench/retention_load.py [--jobs 100000] [--due 10] [--database sqlite|postgresql|mariadb|URL] [--directory DIR]

A history of `--jobs` jobs (1.8 KB of arguments and results each) of which `--due` percent are over their time is swept by a
policy like `dragonfly` (gone at once), while another process inserts, updates and lists jobs, 100 operations a second. Upstream's
way (manager/gc/job.go of v2.5: one TTL, transactions of 5,000 ids by `created_at` without an index, three statements each)
does the same to the same payload in upstream's tables. Printed: rows and jobs per second, the foreground's p50, p99 and worst with
and without each, the ratio between the two, what an empty sweep takes over what is kept, and list pages by each indexed filter.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from sqlalchemy import Connection, insert, text, update

from darner.core.job import DetailState
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import JOB_TABLES, job, job_payload
from darner.jobs.events import JobQuery
from darner.jobs.sql.lists import page_statement
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.testing.databases import MariaDb, PostgreSql
from darner.testing.history import Shape, fill

RATE = 100
LEAST = 30
QUIET_S = 5.0
UPSTREAM_BATCH = 5_000
STEP_MS = 500.0
HOUR_MS = 3_600_000
PAGES = 300
EMPTY = 9
# As in production: every commit on disk, memory for a few GiB of data.
SERVERS = {
    "postgresql": (PostgreSql, ("fsync=on", "synchronous_commit=on", "shared_buffers=2GB", "max_wal_size=4GB")),
    "mariadb": (
        MariaDb,
        (
            "innodb-flush-log-at-trx-commit=1", "innodb-flush-method=fsync", "innodb-buffer-pool-size=4G",
            "innodb-log-file-size=1G", "sync-binlog=1", "binlog-format=ROW",
        ),
    ),
}  # fmt: skip
SECONDS = dict[str, list[float]]


# The foreground: a process of its own, as the others that use the database are.


def foreground(url: str, pipe: Pipe) -> None:
    """Insert, update and list in turn until told to stop; send the latencies by operation."""
    db = Database.open(url)
    taken: SECONDS = {"insert": [], "update": [], "list": []}
    ids: list[int] = []
    operations: list[tuple[str, Callable[[], None]]] = [
        ("insert", lambda: ids.append(db.write_sync(_insert))),
        ("update", lambda: db.write_sync(lambda conn: _update(conn, ids[-1]))),
        ("list", lambda: db.read_sync(_list)),
    ]
    pipe.send("ready")
    turn, due = 0, time.perf_counter()
    while not pipe.poll() or turn < LEAST:
        name, operation = operations[turn % 3]
        began = time.perf_counter()
        operation()
        taken[name].append(time.perf_counter() - began)
        turn, due = turn + 1, max(due + 1 / RATE, time.perf_counter())
        time.sleep(max(0.0, due - time.perf_counter()))
    pipe.send(taken)
    db.close()


def _insert(conn: Connection) -> int:
    now = db_now_ms(conn)
    times = {"created_at": now, "updated_at": now, "deadline_at": now + HOUR_MS}
    made = conn.execute(insert(job).values(uuid=f"{random.getrandbits(128):032x}", type="preheat", state="QUEUED", **times))
    key = int((made.inserted_primary_key or [0])[0])
    conn.execute(insert(job_payload).values(job_id=key, args=f'{{"x": "{random.getrandbits(4000):x}"}}'))
    return key


def _update(conn: Connection, key: int) -> None:
    conn.execute(update(job).where(job.c.id == key).values(state="RUNNING", updated_at=db_now_ms(conn)))


def _list(conn: Connection) -> None:
    conn.execute(page_statement(JobQuery(states=(DetailState.FAILED,), limit=20), None)).all()


@contextmanager
def beside(url: str, found: SECONDS) -> Iterator[None]:
    """Run the foreground beside the body; its latencies are in `found` afterwards."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=foreground, args=(url, there), daemon=True)
    process.start()
    there.close()  # so that its death is an end of file here, and not a wait for ever
    try:
        here.recv()
        try:
            yield
        finally:
            here.send("stop")
            found.update(here.recv())
            process.join()
    except (EOFError, BrokenPipeError):
        process.join()
        raise SystemExit(f"the foreground ended with {process.exitcode}; what it wrote is above") from None


def told_speed(jobs: int, rows_per_job: int, took_s: float, cpu_s: float) -> str:
    """Rates by the wall, and what a job took of this process's processor time, which a busy machine changes less."""
    rate = jobs / took_s
    spent = f"{cpu_s / max(1, jobs) * 1e6:.0f} us of this process's cpu per job"
    return f"{jobs} jobs in {took_s:.1f} s: {rate:.0f} jobs/s, {rate * rows_per_job:.0f} rows/s; {spent}"


def told(name: str, found: SECONDS) -> None:
    """Print p50, p99 and the worst of writes and lists."""
    for what, seconds in (("writes", found["insert"] + found["update"]), ("lists", found["list"])):
        ranked = sorted(seconds)
        p50, p99 = ranked[len(ranked) // 2] * 1000, ranked[len(ranked) * 99 // 100] * 1000
        print(f"  {name}: {what} p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {ranked[-1] * 1000:.1f} ms ({len(ranked)})")


# Upstream's way.


def upstream_tables(db: Database, cut_ms: int) -> None:
    """Upstream's job table with its two join tables: what is due, and as much of what is kept as is due again."""
    big = {"sqlite": "TEXT", "mysql": "LONGTEXT", "postgresql": "TEXT"}[db.dialect]

    def make(conn: Connection) -> None:
        conn.execute(text("CREATE TABLE u_job (id BIGINT PRIMARY KEY, created_at BIGINT NOT NULL, type VARCHAR(256), "
                          f"state VARCHAR(256), args {big}, result {big})"))  # fmt: skip
        conn.execute(text("CREATE INDEX u_task ON u_job (type)"))
        for name in ("u_seed", "u_scheduler"):
            conn.execute(text(f"CREATE TABLE {name} (job_id BIGINT, cluster_id BIGINT, PRIMARY KEY (job_id, cluster_id))"))
        conn.execute(text("INSERT INTO u_job SELECT j.id, j.created_at, j.type, j.state, p.args, p.result FROM job j "
                          "JOIN job_payload p ON p.job_id = j.id WHERE j.created_at < :cut"), {"cut": cut_ms})  # fmt: skip
        for name in ("u_seed", "u_scheduler"):
            conn.execute(text(f"INSERT INTO {name} SELECT id, 1 FROM u_job"))  # noqa: S608

    db.write_sync(make, durable=False)


def upstream_sweep(db: Database, cut_ms: int) -> int:
    """What upstream does: transactions of 5,000 ids until nothing is left; the number of jobs."""

    def batch(conn: Connection) -> int:
        found = conn.execute(text(f"SELECT id FROM u_job WHERE created_at < :cut LIMIT {UPSTREAM_BATCH}"), {"cut": cut_ms})  # noqa: S608
        ids = [int(key) for key in found.scalars()]
        if ids:
            listed = ",".join(str(key) for key in ids)
            for table, column in (("u_seed", "job_id"), ("u_scheduler", "job_id"), ("u_job", "id")):
                conn.execute(text(f"DELETE FROM {table} WHERE {column} IN ({listed})"))  # noqa: S608
        return len(ids)

    removed = 0
    while done := db.write_sync(batch):
        removed += done
    return removed


# The measurement.


@dataclass(frozen=True)
class Speed:
    """Jobs and rows per second."""

    jobs: float
    rows: float


def measure_upstream(db: Database, url: str, cut_ms: int) -> Speed:
    """Upstream's sweep beside the foreground."""
    upstream_tables(db, cut_ms + (cut_ms - _oldest(db)))
    found: SECONDS = {}
    with beside(url, found):
        began, cpu = time.perf_counter(), time.process_time()
        removed = upstream_sweep(db, cut_ms)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"upstream's way: {told_speed(removed, 3, took, cpu)}")
    told("foreground", found)
    for table in ("u_job", "u_seed", "u_scheduler"):
        db.write_sync(lambda conn, table=table: conn.execute(text(f"DROP TABLE {table}")), durable=False)  # type: ignore[misc]
    return Speed(removed / took, 3 * removed / took)


def _oldest(db: Database) -> int:
    return db.read_sync(lambda conn: int(conn.execute(text("SELECT MIN(created_at) FROM job")).scalar_one()))


async def measure_darner(db: Database, url: str, shape: Shape, hours: float) -> Speed:
    """Our sweep beside the foreground, then an empty one."""
    async with RetentionEngine(db, config=SweepConfig(first_after_s=(3600, 3600))) as engine:
        rule = {"name": "all", "basis": "created", "hot": f"{int(hours * 60)}m"}
        await engine.set_policy({"rules": [rule]}, by="bench")
        found: SECONDS = {}
        with beside(url, found):
            await asyncio.sleep(QUIET_S)
        told("foreground alone", found)
        began = time.perf_counter()
        await engine.run(dry_run=True, by="bench")
        print(f"sorting all jobs into classes: {shape.jobs / (time.perf_counter() - began):.0f} jobs/s")
        with beside(url, found):
            began, cpu = time.perf_counter(), time.process_time()
            removed = await _swept(engine)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
        rows = removed * shape.rows_per_job
        print(f"darner: {told_speed(removed, shape.rows_per_job, took, cpu)}")
        told("foreground", found)
        await engine.set_policy({"rules": [{**rule, "hot": f"{int(hours * 60) + 60}m"}]}, by="bench")
        empty = []
        for _ in range(EMPTY):
            began, cpu_s = time.perf_counter(), time.process_time()
            await engine.sweep_by_clock()
            empty.append((time.perf_counter() - began, time.process_time() - cpu_s))
        wall_s, cpu_s = (sorted(one)[EMPTY // 2] * 1000 for one in zip(*empty, strict=True))
        print(f"empty sweep over {shape.jobs - removed} kept jobs: {wall_s:.1f} ms, {cpu_s:.1f} ms of this process's cpu")
    return Speed(removed / took, rows / took)


async def _swept(engine: RetentionEngine) -> int:
    run = await engine.run(dry_run=False, by="bench", yes=True)
    while run.finished_at is None:
        await asyncio.sleep(0.01)
        run = await engine.find_run(run.id)
    if run.state != "DONE":
        raise SystemExit(f"the sweep ended {run.state}: {run.error}")
    return run.removed


def analyze(db: Database) -> None:
    """What servers find out about new rows by themselves, some time later. SQLite stays without, as it is in production."""
    words = {"postgresql": "ANALYZE", "mysql": "ANALYZE TABLE"}.get(db.dialect)
    for table in JOB_TABLES if words else ():
        db.write_sync(lambda conn, table=table: conn.execute(text(f"{words} {table.name}")).close())  # type: ignore[misc]


def measure_lists(db: Database, shape: Shape) -> None:
    """Keyset pages by each indexed filter, from places all over the history."""
    queries = {
        "all": JobQuery(limit=20),
        "state": JobQuery(states=(DetailState.FAILED,), limit=20),
        "two states": JobQuery(states=(DetailState.FAILED, DetailState.PARTIAL), limit=20),
        "type": JobQuery(type="gc", limit=20),
        "owner": JobQuery(owner="user-7", limit=20),
    }
    dice = random.Random(1)  # noqa: S311  (test data)
    for name, query in queries.items():
        taken = []
        for _ in range(PAGES):
            at = shape.newest_ms - int(dice.random() * shape.jobs * shape.step_ms * 0.9)
            statement = page_statement(query, (at, 2**40))
            began = time.perf_counter()
            db.read_sync(lambda conn, statement=statement: conn.execute(statement).all())  # type: ignore[misc]
            taken.append(time.perf_counter() - began)
        ranked = sorted(taken)
        print(f"list page by {name}: p50 {ranked[PAGES // 2] * 1000:.1f} ms, p99 {ranked[PAGES * 99 // 100] * 1000:.1f} ms")


def run(url: str, jobs: int, due: float) -> None:
    """All of it on one database."""
    db = Database.open(url)
    try:
        migrate(db)
        now = db.read_sync(db_now_ms)
        shape = Shape(jobs=jobs, newest_ms=now - 3 * HOUR_MS, step_ms=STEP_MS)
        began = time.perf_counter()
        fill(db, shape)
        print(f"{db.dialect}: {jobs} jobs, {jobs * shape.rows_per_job} rows, filled in {time.perf_counter() - began:.0f} s")
        analyze(db)
        measure_lists(db, shape)
        cut = now - 3 * HOUR_MS - int(jobs * STEP_MS * (1 - due / 100))
        theirs = measure_upstream(db, url, cut)
        if db.dialect == "sqlite":  # or our sweep would give back the room of upstream's tables, too
            while asyncio.run(db.return_space(pages=10_000)):
                pass
        ours = asyncio.run(measure_darner(db, url, shape, (now - cut) / HOUR_MS))
        print(f"darner / upstream's way: {ours.jobs / theirs.jobs:.2f} x jobs/s, {ours.rows / theirs.rows:.2f} x rows/s")
    finally:
        db.close()


def main(arguments: Sequence[str]) -> None:
    """Find or start the database, and measure."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--due", type=float, default=10.0, help="percent of the jobs")
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql, mariadb, or the URL of an empty database")
    parser.add_argument("--directory", type=Path, default=None, help="where the data lies (default: a temporary directory)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        if "://" in options.database:
            run(options.database, options.jobs, options.due)
        elif options.database in SERVERS:
            kind, settings = SERVERS[options.database]
            # The server's own directory is made in TMPDIR; it runs as another user.
            Path(directory).chmod(0o711)
            tempfile.tempdir = directory
            with kind(*settings) as server:
                run(server.create(), options.jobs, options.due)
        else:
            run(f"sqlite:///{directory}/history.db", options.jobs, options.due)


if __name__ == "__main__":
    main(sys.argv[1:])
