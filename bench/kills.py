"""Real deaths: a process that sweeps, folds, archives and removes is killed with SIGKILL at random moments, again and again.

    python bench/kills.py [KILLS] [--seed N]

After each death every job that was ever made is looked for, as a reader would: one that is not yet due to be forgotten must be
there exactly once, in the database or in the archive; one that was never due must not have been hidden or removed. Then more jobs
are made and the next process goes on. Printed: kills, jobs, where they ended, and how many were lost, seen twice or forgotten early
(all must be 0; the exit code says so).
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, select, update

from darner.core.job import Tier
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.archive import archive_absent
from darner.db.tables.jobs import job
from darner.history.codec import Codec
from darner.retention.archive import catalog
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.engine import Archive
from darner.retention.archive.segment import entries_of
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.ports import RetentionParts
from darner.retention.sweep.work import Work
from darner.retention.works.dictionaries import DictionaryWork
from darner.retention.works.fold import fold_work
from darner.testing.history import Shape, rows_of

HOUR_MS = 3_600_000
NEW_JOBS = 120
MARGIN_MS = 60_000
# A new process waits for the lease of the killed one (0.4 s), then is busy for half a second.
LIVES_S = (0.3, 1.0)
RULES = [
    {"name": "rest", "match": {"states": ["FAILED", "CANCELLED", "PARTIAL"]}, "hot": "6h"},
    {"name": "success", "hot": "6h", "warm": "48h", "archive": "30d", "undo": "24h"},
]
ENDS_MS = {"rest": 6 * HOUR_MS, "success": 30 * 24 * HOUR_MS}
PACE = SweepConfig(
    first_after_s=(0.0, 0.0),
    interval_s=0.02,
    prompt_s=0.05,
    lease_ttl_s=0.4,
    min_pause_s=0.0,
    first_batch=10,
    min_batch=5,
    max_batch=30,
)


@dataclass
class Tally:
    """What was found."""

    made: int = 0
    lost: list[int] = field(default_factory=list)
    twice: list[int] = field(default_factory=list)
    early: list[int] = field(default_factory=list)
    forgotten: int = 0
    where: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> int:
        """How many jobs something went wrong with."""
        return len(self.lost) + len(self.twice) + len(self.early)


class Kills:
    """One database, one archive, many processes."""

    def __init__(self, directory: Path, seed: int) -> None:
        """Make the database."""
        self._url = f"sqlite:///{directory / 'history.db'}"
        self._archive = directory / "archive"
        self._dice = random.Random(seed)  # noqa: S311  (not secret)
        self._ends: dict[int, int] = {}
        self.tally = Tally()
        self.db = Database.open(self._url)
        migrate(self.db)

    def feed(self) -> None:
        """More jobs, between two hours and forty days old."""

        def put(conn: Connection) -> None:
            now = db_now_ms(conn)
            first = self.tally.made + 1
            shape = Shape(jobs=self.tally.made + NEW_JOBS, newest_ms=now)
            for table, rows in rows_of(shape, first, NEW_JOBS):
                conn.execute(table.insert(), rows)
            for key in range(first, first + NEW_JOBS):
                ended = now - int(HOUR_MS * self._dice.choice((2, 5, 7, 24, 47, 50, 240, 700, 960)) * self._dice.uniform(0.97, 1.0))
                changed = update(job).where(job.c.id == key).values(finished_at=ended, base_at=ended, created_at=ended - 1000)
                conn.execute(changed)
                state = conn.execute(select(job.c.state).where(job.c.id == key)).scalar_one()
                self._ends[key] = ended + ENDS_MS["success" if state == "SUCCEEDED" else "rest"]

        self.db.write_sync(put)
        self.tally.made += NEW_JOBS

    def life(self, seconds: float) -> None:
        """One process, until it is killed."""
        self.db.close()  # a fork beside its threads would take their locks along
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(here)
            try:
                asyncio.run(self._live(there))
            finally:
                os._exit(1)
        os.close(there)
        if os.read(here, 1) != b"r":
            raise SystemExit("a sweeping process did not start")
        os.close(here)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.db = Database.open(self._url)

    async def _live(self, ready: int) -> None:
        if "DARNER_KILLS_TALK" not in os.environ:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        db = Database.open(self._url)
        codec = Codec()
        db.read_sync(codec.refresh)
        archive = Archive(db, ArchiveConfig(url=str(self._archive), least_jobs=1, segment_jobs=60), codec)
        works: tuple[Callable[[], Work], ...] = (partial(DictionaryWork, codec), partial(fold_work, codec), *archive.works())
        parts = RetentionParts(works=works, restore_archived=archive.restore)
        async with RetentionEngine(db, config=PACE, parts=parts):
            os.write(ready, b"r")
            await asyncio.Event().wait()

    def look(self) -> None:
        """Every job must be where its age says, and once."""
        tiers, archived, now = self.db.read_sync(self._seen)
        copies = Counter(key for keys in archived.values() for key in keys)
        for key, ends in list(self._ends.items()):
            tier = tiers.get(key)
            visible = tier in {Tier.HOT, Tier.WARM}
            if tier is None and copies[key] > 1:
                self.tally.twice.append(key)
            if ends > now + MARGIN_MS:
                if tier == Tier.DELETED:
                    self.tally.early.append(key)
                elif not visible and not copies[key]:
                    self.tally.lost.append(key)
            elif tier is None and not copies[key]:
                self.tally.forgotten += 1
                del self._ends[key]
        self.tally.where = Counter(
            Tier(tiers[key]).word if key in tiers else "archive" if copies[key] else "nowhere" for key in self._ends
        )

    def _seen(self, conn: Connection) -> tuple[dict[int, int], dict[int, set[int]], int]:
        tiers = {int(key): int(tier) for key, tier in conn.execute(select(job.c.id, job.c.tier))}
        absent = {(row.segment_id, row.job_id) for row in conn.execute(select(archive_absent))}
        archived = {}
        for segment in catalog.in_state(conn, *catalog.READABLE, limit=10**6):
            ids = {entry.id for entry in entries_of(self._archive / segment.location)}
            archived[segment.id] = {key for key in ids if (segment.id, key) not in absent}
        return tiers, archived, db_now_ms(conn)

    def set_policy(self) -> None:
        """The rules of the trial."""

        async def put() -> None:
            await RetentionEngine(self.db, config=PACE).set_policy({"rules": RULES}, by="bench")

        asyncio.run(put())


def main() -> None:
    """Kill and look."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)  # noqa: S311  (not secret)
    with tempfile.TemporaryDirectory() as directory:
        trial = Kills(Path(directory), options.seed)
        trial.set_policy()
        began = time.monotonic()
        for number in range(1, options.kills + 1):
            trial.feed()
            trial.life(dice.uniform(*LIVES_S))
            trial.look()
            if number % 50 == 0 or number == options.kills or trial.tally.bad:
                where = ", ".join(f"{count} {place}" for place, count in sorted(trial.tally.where.items()))
                print(
                    f"{number} kills, {trial.tally.made} jobs: {where}, {trial.tally.forgotten} forgotten in their time", flush=True
                )
            if trial.tally.bad:
                break
        found = trial.tally
        print(f"lost {len(found.lost)}, seen twice {len(found.twice)}, early {len(found.early)}; {time.monotonic() - began:.0f} s")
        if found.bad:
            print("first:", (found.lost + found.twice + found.early)[:5])
        sys.stdout.flush()
        trial.db.close()
        sys.exit(1 if found.bad else 0)


if __name__ == "__main__":
    main()
