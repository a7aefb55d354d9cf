"""A process that dies at a chosen step of its database or of its archive, and what must be true whenever it did."""

import contextlib
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, insert, select, update
from tests.integration.retention.history import History, open_history
from tests.integration.retention.sweeping import Boot

from darner.core.job import Tier
from darner.db import Database
from darner.db.tables.archive import archive_segment
from darner.db.tables.jobs import job, job_event
from darner.db.tables.retention import lease
from darner.history.codec import Codec
from darner.history.record import JobRecord, RecordQuery
from darner.history.rows import read_records
from darner.jobs.events import JobQuery
from darner.jobs.sql import SqlHistory
from darner.retention.archive.catalog import SegmentState
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.engine import Archive
from darner.retention.archive.storage import DirectoryStorage, Storage, Stored, Wanted
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.policy import HOUR_MS
from darner.retention.ports import RetentionParts
from darner.retention.works.fold import fold_work

SMALL = SweepConfig(min_pause_s=0.0, first_batch=4, min_batch=4, max_batch=4, first_after_s=(9_999, 9_999), prompt_s=9_999)
POLICY: dict[str, Any] = {
    "rules": [
        {"name": "failures", "match": {"states": ["FAILED"]}, "hot": "2h", "warm": "4h", "archive": "60h", "undo": "3h"},
        {"name": "rest", "hot": "3h", "archive": "keep"},
    ]
}


class Crash(BaseException):
    """The process is gone."""


class Deaths:
    """The process dies at the n-th step from when it is armed: a statement, a commit, or either side of a call to the store."""

    def __init__(self, db: Database) -> None:
        self._left: int | None = None
        self.steps = 0
        event.listen(db.engine, "before_cursor_execute", lambda *_: self.step())
        event.listen(db.engine, "commit", self._commit)

    def arm(self, after: int | None) -> None:
        self._left, self.steps = after, 0

    def step(self) -> None:
        self.steps += 1
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0:
            self._left = None
            raise Crash

    def _commit(self, conn: Connection) -> None:
        """After a commit: it is done, but nobody heard."""
        if self._left == 1:
            self._left = None
            conn.connection.commit()
            raise Crash
        self.step()


class Mortal:
    """A storage whose process can die before and after each call."""

    def __init__(self, storage: Storage, deaths: Deaths) -> None:
        self._storage = storage
        self._deaths = deaths
        self.root = storage.root

    def claim(self, owner: str, *, fresh: bool) -> None:
        self._deaths.step()
        self._storage.claim(owner, fresh=fresh)
        self._deaths.step()

    def put(self, name: str, file: Path) -> None:
        self._deaths.step()
        self._storage.put(name, file)
        self._deaths.step()

    @contextlib.contextmanager
    def reading(self, files: Sequence[Wanted]) -> Iterator[list[Path]]:
        self._deaths.step()
        with self._storage.reading(files) as found:
            yield found

    def delete(self, name: str) -> None:
        self._deaths.step()
        self._storage.delete(name)
        self._deaths.step()

    def names(self) -> Iterator[Stored]:
        self._deaths.step()
        yield from self._storage.names()

    def scratch(self) -> Path:
        self._deaths.step()
        return self._storage.scratch()

    def keep_only(self, names: set[str]) -> None:
        self._storage.keep_only(names)


@dataclass
class World:
    """A database, its archive, and what the test knows of the jobs."""

    history: History
    root: Path
    dice: random.Random
    known: dict[int, Any] = field(default_factory=dict)
    ages_h: dict[int, float] = field(default_factory=dict)
    crashes: int = 0
    maybe: set[int] = field(default_factory=set)
    yes: bool = True

    def __post_init__(self) -> None:
        self.deaths = Deaths(self.history.db)
        self.storage = Mortal(DirectoryStorage(self.root), self.deaths)
        self.config = ArchiveConfig(url=str(self.root), segment_jobs=3, least_jobs=1)

    def ended(self, count: int, *, ages: Sequence[float] = (1, 3.5, 5, 8)) -> None:
        for _ in range(count):
            state, age = self.dice.choice(("FAILED", "SUCCEEDED", "CANCELLED")), self.dice.choice(ages)
            key = self.history.add(state, ended_h=age, parts=self.dice.randrange(3), url=f"http://x/{self.dice.randrange(9)}")
            self.ages_h[key] = age
            self.known[key] = None

    def time_passes(self, hours: float) -> None:
        """All that happened is longer ago now, but for what files say."""
        ms = int(hours * HOUR_MS)
        jobs = {name: job.c[name] - ms for name in ("created_at", "started_at", "finished_at", "base_at", "updated_at")}
        names = ("max_base_at", "created_at", "sealed_at", "expired_at")
        segments = {name: archive_segment.c[name] - ms for name in names}
        for statement in (update(job).values(jobs), update(archive_segment).values(segments)):
            self.history.db.write_sync(lambda conn, one=statement: conn.execute(one), durable=False)  # type: ignore[misc]
        self.ages_h = {key: age + hours for key, age in self.ages_h.items()}

    def change_something(self) -> None:
        """People do things between the steps of a dead sweep and the next."""
        keys = [key for key, tier in self.history.tiers().items() if tier in {Tier.HOT, Tier.WARM}]
        if not keys:
            return
        key = self.dice.choice(keys)

        def hold(conn: Connection) -> None:
            conn.execute(update(job).where(job.c.id == key).values(held=1))
            conn.execute(insert(job_event).values(job_id=key, at=1, kind="held", message="by the story"))

        def release(conn: Connection) -> None:
            conn.execute(update(job).values(held=0))

        self.history.db.write_sync(self.dice.choice((hold, release)), durable=False)
        self.known[key] = None

    async def sweep(self, after: int | None = None) -> bool:
        """One sweep of a new process, and whether it lived to its end."""
        self.history.db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)), durable=False)
        codec = Codec()
        async with Archive(self.history.db, self.config, codec, self.storage) as archive:
            works = [lambda: fold_work(codec), *archive.works()]
            parts = RetentionParts(works=works, restore_archived=archive.restore)
            engine = RetentionEngine(self.history.db, config=SMALL, boot_clock=Boot(), parts=parts)
            try:
                self.deaths.arm(after)
                run = await engine.run(dry_run=False, by="story", yes=self.yes)
                if engine.sweeping is not None:
                    engine.sweeping.result()
                assert (run.state, run.error) == ("DONE", "")
            except Crash:
                self.crashes += 1
                return False
            finally:
                self.deaths.arm(None)
        return True

    async def check(self, *, forgotten: Sequence[int] = ()) -> None:
        """Each job is seen exactly once, as it was, in lists and by itself."""
        codec = Codec()
        async with Archive(self.history.db, self.config, codec, self.storage) as archive:
            seen = SqlHistory(self.history.db, codec, archive)
            both = [one.id for one, _ in await seen.page(JobQuery(limit=1_000))]
            assert len(both) == len(set(both))
            listed = [key for key in both if key not in self.maybe or key in forgotten]
            wanted = sorted(set(self.known) - set(forgotten))
            assert sorted(listed) == wanted, (set(listed) ^ set(wanted), self.states())
            here = self.history.db.read_sync(lambda conn: read_records(conn, wanted, codec))
            for record in (*here, *await archive.page(RecordQuery(limit=1_000))):
                now = _told(record)
                assert self.known.get(record.id) in {None, now}, (record.id, now)
                if record.id in self.known:
                    self.known[record.id] = now
            if wanted:
                some = self.dice.choice(wanted)
                assert (await seen.details(some)).job.id == some
            for key in forgotten:
                assert await archive.find(key) is None
        assert self.history.orphans() == 0

    def states(self) -> dict[int, str]:
        rows = select(archive_segment.c.id, archive_segment.c.state)
        return self.history.db.read_sync(lambda conn: {int(key): str(state) for key, state in conn.execute(rows)})

    def files(self) -> set[str]:
        return {one.name for one in DirectoryStorage(self.root).names()} if self.root.exists() else set()

    def tidy(self) -> None:
        """After undisturbed sweeps every segment is settled, and there is no file but theirs."""
        assert set(self.states().values()) <= {SegmentState.LIVE, SegmentState.REPLACED, SegmentState.EXPIRED, SegmentState.DROPPED}
        there = select(archive_segment.c.location).where(archive_segment.c.state != SegmentState.DROPPED)
        known = set(self.history.db.read_sync(lambda conn: list(conn.execute(there).scalars())))
        assert self.files() == known


def _told(record: JobRecord) -> str:
    """All that must not change on the way."""
    names = ("uuid", "state", "owner", "part_count", "summary")
    parts = [(one["id"], one["url"], one["hosts"]) for one in record.parts]
    events = [(one["id"], one["kind"], one["message"]) for one in record.events]
    return repr(([record.job[name] for name in names], record.args, record.result, parts, events, record.clusters))


async def prepared(directory: Path) -> Path:
    """A database file with the policy in force, to be copied."""
    file = directory / "made.db"
    history = open_history(file)
    async with RetentionEngine(history.db, config=SMALL, boot_clock=Boot()) as engine:
        await engine.set_policy(POLICY, by="story")
        await engine.run(dry_run=False, by="story")
    history.db.close()
    return file


def world_of(made: Path, directory: Path, seed: int) -> World:
    """A world of its own."""
    directory.mkdir(parents=True)
    for one in made.parent.glob(f"{made.name}*"):
        shutil.copy(one, directory / one.name.replace(made.name, "darner.db"))
    history = open_history(directory / "darner.db")
    return World(history=history, root=directory / "archive", dice=random.Random(seed))  # noqa: S311
