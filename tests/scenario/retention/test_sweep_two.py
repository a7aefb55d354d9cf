"""Two managers whose clocks are ten minutes apart, and whose lease is torn away: nothing stale, nothing early.

SQLite's clock is the function `julianday`; each manager's connections have their own. Triggers see every row with the true clock.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, update
from tests.integration.retention.history import History, open_history
from tests.integration.retention.sweeping import seeded, sweep

from darner.core.errors import DarnerError
from darner.db import Database
from darner.db.tables.retention import lease
from darner.retention.clock import BootReading
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine

UNIX_EPOCH_DAYS = 2440587.5
DAY_S = 86_400
SMALL = SweepConfig(min_pause_s=0.001, first_batch=4, min_batch=4, max_batch=4, first_after_s=(9_999, 9_999), prompt_s=0.05)
WATCH = """
CREATE TABLE stale (epoch INTEGER);
CREATE TABLE early (id INTEGER);
CREATE TRIGGER watch_epoch AFTER INSERT ON retention_batch
  WHEN NEW.epoch != (SELECT epoch FROM lease WHERE name = 'retention-sweep')
  BEGIN INSERT INTO stale VALUES (NEW.epoch); END;
CREATE TRIGGER watch_age BEFORE DELETE ON job
  WHEN OLD.finished_at > true_now_ms() - 6 * 3600000
  BEGIN INSERT INTO early VALUES (OLD.id); END;
"""


class Clock:
    """A database's clock as one manager sees it, off by so many seconds."""

    def __init__(self, db: Database) -> None:
        self.off_s = 0.0
        db.engine.dispose()
        event.listen(db.engine, "connect", self._on_connect)

    def _on_connect(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.create_function("julianday", 1, lambda _: UNIX_EPOCH_DAYS + (time.time() + self.off_s) / DAY_S)
        connection.create_function("true_now_ms", 0, lambda: int(time.time() * 1000))


def boot() -> BootReading:
    """Both live on one machine."""
    return BootReading(boot_id="one", ms=int(time.monotonic() * 1000))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[History, History, Clock, Clock]]:
    one, other = open_history(tmp_path / "darner.db"), open_history(tmp_path / "darner.db")
    clocks = Clock(one.db), Clock(other.db)
    with sqlite3.connect(tmp_path / "darner.db") as plain:
        plain.executescript(WATCH)
    plain.close()
    yield one, other, *clocks
    one.db.close()
    other.db.close()


def count(db: Database, table: str) -> int:
    return db.read_sync(lambda conn: int(conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()))  # noqa: S608  (a constant)


@pytest.mark.parametrize("seed", range(4))
async def test_lost_leases_and_clocks_ten_minutes_apart(two: tuple[History, History, Clock, Clock], seed: int) -> None:
    one, other, *clocks = two
    dice = random.Random(seed)  # noqa: S311
    await seeded(one.db)
    await sweep(one.db, boot=boot)
    for index in range(150):
        one.add("SUCCEEDED", ended_h=6.01 + index / 50, parts=0)
    young = [one.add("FAILED", ended_h=5.87 + index / 1000, parts=0) for index in range(40)]  # due within ten minutes
    engines = [
        RetentionEngine(history.db, holder=name, config=SMALL, boot_clock=boot) for history, name in ((one, "m1"), (other, "m2"))
    ]
    ended = asyncio.Event()

    async def keep_sweeping(engine: RetentionEngine) -> None:
        while not ended.is_set():
            try:
                run = await engine.run(dry_run=False, by="t")
            except DarnerError:
                run = None
            if run is None or run.state != "DONE":
                await asyncio.sleep(0.01)

    async with asyncio.timeout(60), engines[0], engines[1]:
        sweeping = [asyncio.create_task(keep_sweeping(engine)) for engine in engines]
        while set(one.left()) - set(young) or dice.random() < 0.5:
            await asyncio.sleep(dice.random() * 0.05)
            dice.choice((tear_away, skew(dice, clocks), right(clocks)))(one.db)
        right(clocks)(one.db)
        ended.set()
        await asyncio.gather(*sweeping)
    assert count(one.db, "stale") == 0
    assert count(one.db, "early") == 0
    assert one.left() == young
    assert one.orphans() == 0


def tear_away(db: Database) -> None:
    """The lease is over, as after a long pause of its holder."""
    db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)))


def skew(dice: random.Random, clocks: list[Clock]) -> Callable[[Database], None]:
    """One manager's clock is off by ten minutes."""

    def act(_: Database) -> None:
        dice.choice(clocks).off_s = dice.choice((600.0, -600.0))

    return act


def right(clocks: list[Clock]) -> Callable[[Database], None]:
    """Both clocks are right again."""

    def act(_: Database) -> None:
        for clock in clocks:
            clock.off_s = 0.0

    return act


async def test_the_watch_sees_what_is_stale_or_early(two: tuple[History, History, Clock, Clock]) -> None:
    one, _, clock, _ = two
    await seeded(one.db)
    one.add("FAILED", ended_h=5.9, parts=0)
    clock.off_s = 600.0
    await sweep(one.db, boot=lambda: BootReading(boot_id="another", ms=1))
    assert count(one.db, "early") == 1
