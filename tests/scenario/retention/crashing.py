"""A database whose process dies at a chosen moment, and the story of jobs that are swept across many deaths."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, func, select, update
from tests.integration.retention.history import History, open_history
from tests.integration.retention.sweeping import Boot

from darner.core.job import Tier
from darner.db import Database
from darner.db.tables.jobs import job
from darner.db.tables.retention import lease, retention_batch, retention_run
from darner.history.codec import Codec
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.policy import HOUR_MS
from darner.retention.ports import RetentionParts
from darner.retention.works.fold import fold_work

SMALL = SweepConfig(min_pause_s=0.0, first_batch=4, min_batch=4, max_batch=4, first_after_s=(9_999, 9_999), prompt_s=9_999)
# Failures are folded, hidden, and then gone; successes go at once, but for the last two; what ann owns stays.
POLICY: dict[str, Any] = {
    "rules": [
        {"name": "ann", "match": {"owners": ["ann"]}, "hot": "2h", "warm": "keep"},
        {"name": "failures", "match": {"states": ["FAILED"]}, "hot": "2h", "warm": "10h", "undo": "3h"},
        {"name": "rest", "hot": "5h", "keep_last": {"count": 2}},
    ]
}


# The story's time stands still while the test runs, the database's does not: so much nearer to a limit a job may be.
REAL_H = 0.05


class Crash(BaseException):
    """The process is gone."""


class Deaths:
    """Lets the process die at the n-th statement or commit from when it is armed. After a commit: it is done, but nobody heard."""

    def __init__(self, db: Database) -> None:
        self._left: int | None = None
        event.listen(db.engine, "before_cursor_execute", self._statement)
        event.listen(db.engine, "commit", self._commit)

    def arm(self, after: int | None) -> None:
        self._left = after

    def _statement(self, *_: object) -> None:
        self._tick()

    def _commit(self, conn: Connection) -> None:
        if self._left == 1:
            self._left = None
            conn.connection.commit()
            raise Crash
        self._tick()

    def _tick(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0:
            self._left = None
            raise Crash


@dataclass
class Told:
    """What the test knows of a job. `hidden_at`: hours of the story, when it was first seen hidden."""

    state: str
    owner: str
    ended_h: float
    url: str
    hidden_h: float | None = None
    gone: bool = False


@dataclass
class Story:
    """Jobs end, time passes (all rows get older), sweeps die and are begun again; after each the world is checked."""

    history: History
    dice: random.Random
    now_h: float = 0.0
    jobs: dict[int, Told] = field(default_factory=dict)
    deaths_met: int = 0

    def ended(self, count: int) -> None:
        for _ in range(count):
            state = self.dice.choice(("FAILED", "FAILED", "SUCCEEDED", "CANCELLED"))
            owner = self.dice.choice(("ann", "bob", "cid"))
            ago = self.dice.choice((0.5, 1.5, 3, 6, 11))
            url = f"http://x/{self.dice.randrange(2)}"
            key = self.history.add(state, ended_h=ago, parts=self.dice.randrange(3), url=url, owner=owner)
            self.jobs[key] = Told(state=state, owner=owner, ended_h=round(self.now_h - ago, 6), url=url)

    def time_passes(self, hours: float) -> None:
        """All that happened is longer ago now."""
        ms = int(hours * HOUR_MS)
        values = {name: job.c[name] - ms for name in ("created_at", "started_at", "finished_at", "base_at", "updated_at")}
        self.history.db.write_sync(lambda conn: conn.execute(update(job).values(values)), durable=False)
        groups = "UPDATE job_group SET finished_at = finished_at - ?"
        self.history.db.write_sync(lambda conn: conn.exec_driver_sql(groups, (ms,)), durable=False)
        self.now_h += hours

    async def sweep(self, holder: str, deaths: Deaths | None = None, after: int = 0) -> bool:
        """One sweep of a new process; whether it lived to its end. `after`: when it dies."""
        self.history.db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)), durable=False)
        engine = RetentionEngine(self.history.db, holder=holder, config=SMALL, boot_clock=Boot(), parts=parts_of())
        try:
            if deaths is not None:
                deaths.arm(after)
            run = await engine.run(dry_run=False, by="story")
            if engine.sweeping is not None:
                engine.sweeping.result()  # raises what the sweep died of
            assert run.state == "DONE", run
        except Crash:
            self.deaths_met += 1
            return False
        finally:
            if deaths is not None:
                deaths.arm(None)
        return True

    def check(self) -> None:
        """Nothing lost, early or half gone; what is gone was told once."""
        tiers, shown = self.history.tiers(), {}
        for key, told in self.jobs.items():
            age = self.now_h - told.ended_h
            tier = tiers.get(key)
            if tier is None:
                self._may_be_gone(key, told, age)
                told.gone = True
                continue
            assert not told.gone, "a job came back"
            shown[key] = tier
            if tier == Tier.DELETED:
                assert (told.state, told.owner != "ann") == ("FAILED", True)
                assert age >= 10 - REAL_H
                told.hidden_h = self.now_h if told.hidden_h is None else told.hidden_h
            else:
                assert told.hidden_h is None, "a hidden job is shown again"
            if tier == Tier.WARM:
                assert age >= 2 - REAL_H
        assert self.history.orphans() == 0
        self._audit_agrees()

    def _newer(self, key: int) -> int:
        """How many successes of its group ended after a job's end."""
        one = self.jobs[key]
        ruled = {k: other for k, other in self.jobs.items() if other.owner != "ann"}
        group = {k: other for k, other in ruled.items() if (other.url, other.state) == (one.url, one.state)}
        return sum((other.ended_h, k) > (one.ended_h, key) for k, other in group.items())

    def _may_be_gone(self, key: int, told: Told, age: float) -> None:
        assert told.owner != "ann"
        if told.state == "FAILED":
            assert told.gone or told.hidden_h is not None, "gone without having been hidden"
            assert told.gone or self.now_h - (told.hidden_h or 0) >= 3 - REAL_H
            return
        assert age >= 5 - REAL_H
        assert told.gone or told.state != "SUCCEEDED" or self._newer(key) >= 2, "one of the last two is gone"

    def _audit_agrees(self) -> None:
        gone = sum(told.gone for told in self.jobs.values())
        hidden = sum(told.hidden_h is not None for told in self.jobs.values())
        assert self.audited("delete") == gone
        assert self.audited("hide") == hidden
        counted = select(func.sum(retention_run.c.removed), func.sum(retention_run.c.hidden))
        removed, hid = self.history.db.read_sync(lambda conn: conn.execute(counted).one())
        assert (removed or 0, hid or 0) == (gone, hidden)

    def audited(self, action: str) -> int:
        total = select(func.coalesce(func.sum(retention_batch.c.removed), 0)).where(retention_batch.c.action == action)
        return self.history.db.read_sync(lambda conn: int(conn.execute(total).scalar_one()))

    def settled(self) -> None:
        """After undisturbed sweeps all is as the policy says."""
        tiers = self.history.tiers()
        for key, told in self.jobs.items():
            age, tier = self.now_h - told.ended_h, tiers.get(key)
            if any(abs(age - limit) < REAL_H for limit in (2, 5, 10)):
                continue
            if told.owner == "ann":
                assert tier == (Tier.WARM if age >= 2 else Tier.HOT)
            elif told.state == "FAILED":
                assert tier in ({Tier.DELETED, None} if age >= 10 else {Tier.WARM} if age >= 2 else {Tier.HOT})
            elif age < 5:
                assert tier == Tier.HOT
            elif told.state == "CANCELLED" or self._newer(key) >= 2:
                assert tier is None
            else:
                assert tier == Tier.HOT


def parts_of() -> RetentionParts:
    """A sweeper that can fold."""
    codec = Codec()
    return RetentionParts(works=[lambda: fold_work(codec)])


async def begun(file: Path, seed: int) -> Story:
    """A story with its policy, settled."""
    history = open_history(file)
    async with RetentionEngine(history.db, config=SMALL, boot_clock=Boot(), parts=parts_of()) as engine:
        await engine.set_policy(POLICY, by="story")
        await engine.run(dry_run=False, by="story")
    return Story(history=history, dice=random.Random(seed))  # noqa: S311
