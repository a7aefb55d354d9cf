"""What a batch of each step of the sweeper costs: processor time per batch and per job, and statements, at a few batch sizes.

    python bench/sweep_cost.py [--database sqlite|postgresql|mariadb|URL] [--jobs 60000] [--directory DIR] [STEP…]

Times are of this thread (`time.thread_time`), so a busy machine changes them little; on SQLite the database's own work is part of
them, on servers it is not, and the wall time is printed too. The steps run one after the other on the same jobs: sorted, sorted
with groups of which the last are kept, folded, hidden, erased while hidden and warm, erased while hot.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, text

from darner.core.job import Tier
from darner.db import Database, db_now_ms, migrate
from darner.history.codec import Codec
from darner.history.dictionary import store, train_type, types_to_train
from darner.history.fold import fold_jobs
from darner.retention import records
from darner.retention.clock import BootReading
from darner.retention.config import SweepConfig
from darner.retention.export.outbox import enqueue
from darner.retention.parse import policy_from_json
from darner.retention.rules import Move, moves
from darner.retention.sql.classify import Sorting, classify_batch
from darner.retention.sql.remove import erase_jobs, hide_jobs
from darner.retention.sql.step import Act, move_batch
from darner.retention.sweep.begin import Ask, Beginner
from darner.retention.sweep.context import Sweep
from darner.retention.sweep.warm import WarmArgs
from darner.retention.values import Batch, Cursor
from darner.retention.witness import Witness
from darner.testing.databases import MariaDb, PostgreSql
from darner.testing.history import Shape, fill

HOUR_MS = 3_600_000
SIZES = (20, 200, 1_000)
SERVERS = {"postgresql": PostgreSql, "mariadb": MariaDb}
PLAIN = {"rules": [{"name": "all", "hot": "6h", "warm": "7h", "undo": "1h"}]}
FOLDING = {"rules": [{"name": "all", "hot": "6h", "warm": "30d", "undo": "1h"}]}
DIRECT = {"rules": [{"name": "all", "hot": "6h"}]}
SEVERAL = {
    "rules": [
        {"name": "gc", "match": {"types": ["gc"]}, "hot": "6h"},
        {"name": "forever", "match": {"owners": ["user-1"]}, "hot": "keep"},
        {"name": "failures", "match": {"states": ["FAILED", "PARTIAL"]}, "hot": "6h", "warm": "30d"},
        {"name": "rest", "hot": "6h", "warm": "7d"},
    ]
}
GROUPED = {"rules": [{"name": "all", "hot": "6h", "keep_last": {"count": 3, "per": "image"}}]}
EXPORTED = {"rules": [{"name": "all", "hot": "6h", "export": "logs"}]}


@dataclass
class Cost:
    """Sums over some batches."""

    jobs: int = 0
    batches: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    statements: int = 0

    def told(self) -> str:
        """One line."""
        per = max(1, self.batches)
        return (
            f"{self.batches:3d} batches: {self.cpu_s / per * 1000:7.2f} ms cpu, {self.wall_s / per * 1000:7.2f} ms wall, "
            f"{self.statements / per:5.1f} statements each; {self.jobs / max(self.cpu_s, 1e-9):8.0f} jobs/s cpu"
        )


@dataclass
class Bench:
    """A database full of ended jobs."""

    db: Database
    jobs: int
    codec: Codec = field(default_factory=Codec)
    statements: int = 0

    def __post_init__(self) -> None:
        def count(*_: Any) -> None:  # noqa: ANN401
            self.statements += 1

        event.listen(self.db.engine, "before_cursor_execute", count)

    def begin(self, policy: dict[str, Any]) -> Sweep:
        """A sweep under a policy."""

        def put(conn: Connection) -> None:
            records.add_policy(conn, policy_from_json(policy), origin="user", by="bench", reason="bench")

        self.db.write_sync(put)
        beginner = Beginner(
            db=self.db, config=SweepConfig(lease_ttl_s=3600), holder="bench", boot_clock=_boot, witness=Witness(None)
        )
        sweep = self.db.write_sync(lambda conn: beginner._begin(conn, Ask(trigger="bench"), _boot()))  # noqa: SLF001
        if sweep is None or sweep.refused:
            raise SystemExit(f"no sweep: {sweep}")
        return sweep

    def measure(self, step: Callable[[Connection, Cursor, int], Batch], sizes: Sequence[int] = SIZES) -> Iterator[tuple[int, Cost]]:
        """Batches of each size; a tenth of the jobs, two thirds of them in the largest."""
        cursor = Cursor()
        asyncio.run(self.db.checkpoint())  # what prepared the rows is no part of the first batches
        for size in sizes:
            cost = Cost()
            for turn in range(6):
                self.statements, cpu, wall = 0, time.thread_time(), time.perf_counter()
                done = self.db.write_sync(lambda conn, after=cursor, size=size: step(conn, after, size), durable=False)  # type: ignore[misc]
                cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
                if done.cursor is None:
                    break
                cursor = done.cursor
                if turn:  # the first one fills caches
                    cost.jobs, cost.batches = cost.jobs + done.examined, cost.batches + 1
                    cost.cpu_s, cost.wall_s, cost.statements = (
                        cost.cpu_s + cpu,
                        cost.wall_s + wall,
                        cost.statements + self.statements,
                    )
                self.last = done
            yield size, cost

    def tell(self, name: str, step: Callable[[Connection, Cursor, int], Batch], sizes: Sequence[int] = SIZES) -> None:
        """Print what each size costs."""
        for size, cost in self.measure(step, sizes):
            print(f"{name:26s} {size:5d} at once, {cost.told()}", flush=True)


def _boot() -> BootReading:
    return BootReading(boot_id="bench", ms=int(time.monotonic() * 1000))


def sorting(bench: Bench, name: str, policy: dict[str, Any]) -> None:
    """Sort new jobs."""
    bench.db.write_sync(lambda conn: conn.execute(text("UPDATE job SET class = 0")))
    sweep = bench.begin(policy)
    how = Sorting(order=sweep.order, ids=sweep.classes, stale=0, tier=Tier.HOT, enqueue=enqueue, read_args=WarmArgs())

    def step(conn: Connection, after: Cursor, limit: int) -> Batch:
        now_ms = sweep.fence(conn)
        done = classify_batch(conn, how, after=after, limit=limit, now_ms=now_ms)
        sweep.count(conn, classified=done.changed, examined=done.examined)
        return done

    bench.tell(name, step)


def moving(bench: Bench, name: str, policy: dict[str, Any], which: Callable[[Move], bool], act: Act) -> None:
    """Move jobs that were sorted; a policy with the same scheme keeps them so."""
    sweep = bench.begin(policy)
    class_id = sweep.classes["all"]
    move = next(one for one in moves(sweep.order.policy.rules[0]) if which(one))
    bench.db.write_sync(lambda conn: conn.execute(text(f"UPDATE job SET class = {class_id}")))  # noqa: S608

    def step(conn: Connection, after: Cursor, limit: int) -> Batch:
        return move_batch(conn, sweep, move=move, class_id=class_id, act=act, after=after, limit=limit)

    bench.tell(name, step)


def acknowledge(bench: Bench) -> None:
    """As if a sink had every job."""

    def put(conn: Connection) -> None:
        conn.execute(text("DELETE FROM export_outbox"))
        columns = "job_id, sink, created_at, not_before, acked_at"
        conn.execute(text(f"INSERT INTO export_outbox ({columns}) SELECT id, 'logs', 1, 1, 2 FROM job"))  # noqa: S608

    bench.db.write_sync(put)


def fold(bench: Bench) -> None:
    """Train, then fold."""
    now = bench.db.read_sync(db_now_ms)
    for job_type in bench.db.read_sync(lambda conn: types_to_train(conn, now)):
        trained = bench.db.read_sync(lambda conn, kind=job_type: train_type(conn, kind, bench.codec))  # type: ignore[misc]
        bench.db.write_sync(lambda conn, trained=trained: store(conn, trained, now))  # type: ignore[misc]
    bench.db.read_sync(bench.codec.refresh)
    moving(bench, "fold", FOLDING, lambda move: move.to == Tier.WARM, lambda conn, ids, _now: fold_jobs(conn, ids, bench.codec))


def steps(bench: Bench) -> dict[str, Callable[[], None]]:
    """All measurements, in an order in which each leaves something for the next."""

    def hot(move: Move) -> bool:
        return move.start == Tier.HOT

    def hidden() -> None:
        bench.db.write_sync(lambda conn: conn.execute(text("UPDATE job SET base_at = 1 WHERE tier = 3")))
        moving(bench, "delete hidden warm", PLAIN, lambda move: move.start == Tier.DELETED, erase_jobs)

    def exported() -> None:
        acknowledge(bench)
        moving(bench, "delete hot, exported", EXPORTED, hot, erase_jobs)

    return {
        "sort": lambda: sorting(bench, "sort", PLAIN),
        "sort-several": lambda: sorting(bench, "sort, 4 rules", SEVERAL),
        "sort-export": lambda: sorting(bench, "sort, export", EXPORTED),
        "sort-groups": lambda: sorting(bench, "sort, keep_last", GROUPED),
        "delete-groups": lambda: moving(bench, "delete hot, keep_last", GROUPED, hot, erase_jobs),
        "fold": lambda: fold(bench),
        "hide": lambda: moving(bench, "hide warm", PLAIN, lambda move: move.start == Tier.WARM and move.removes, hide_jobs),
        "delete-hidden": hidden,
        "delete-export": exported,
        "delete": lambda: moving(bench, "delete hot", DIRECT, hot, erase_jobs),
    }


def run(url: str, jobs: int, names: Sequence[str]) -> None:
    """All of it on one database."""
    db = Database.open(url)
    try:
        migrate(db)
        fill(db, Shape(jobs=jobs, newest_ms=db.read_sync(db_now_ms) - 30 * HOUR_MS))
        bench = Bench(db, jobs)
        for name, step in steps(bench).items():
            if not names or name in names:
                step()
    finally:
        db.close()


@contextmanager
def opened(database: str, directory: Path | None) -> Iterator[str]:
    """The URL of an empty database."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        if "://" in database:
            yield database
        elif database in SERVERS:
            with SERVERS[database]() as server:
                yield server.create()
        else:
            yield f"sqlite:///{scratch}/history.db"


def main(arguments: Sequence[str]) -> None:
    """Find or start the database, and measure."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=60_000)
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql, mariadb, or the URL of an empty database")
    parser.add_argument("--directory", type=Path, default=None, help="where the data lies (default: a temporary directory)")
    parser.add_argument("steps", nargs="*", help="only these")
    options = parser.parse_args(arguments)
    with opened(options.database, options.directory) as url:
        run(url, options.jobs, options.steps)


if __name__ == "__main__":
    main(sys.argv[1:])
