import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, update
from tests.integration.retention.history import History

from darner.core.errors import InvalidInputError
from darner.db import Database, acquire_lease, db_now_ms, migrate
from darner.db.tables.growth import growth_sample
from darner.db.tables.jobs import job
from darner.retention.growth import store
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.counting import count_jobs
from darner.retention.growth.growth import Growth
from darner.retention.growth.ladder import Stage
from darner.retention.growth.measure import sizes_of
from darner.retention.growth.values import HOUR_MS, Counts, Disk, Sample, Seen, Sizes
from darner.retention.growth.watch import LEASE
from darner.retention.sql import marks
from darner.testing.clock import VirtualClock
from darner.testing.history import Shape, fill

NOW = 1_790_000_000_000
QUIET = GrowthConfig(reserve_bytes=0)


@pytest.fixture
async def growth(history: History) -> AsyncIterator[Growth]:
    async with Growth(history.db, clock=VirtualClock(), config=QUIET) as opened:
        yield opened


def earlier(db: Database, hours: int = 1) -> None:
    """The last sample was taken some hours ago."""

    def move(conn: Connection) -> None:
        last = store.last_sample(conn)
        assert last is not None
        conn.execute(delete(growth_sample).where(growth_sample.c.slot == last.slot))
        store.add_sample(conn, Sample.from_json({**last.to_json(), "at": last.at - hours * HOUR_MS}))

    db.write_sync(move)


async def test_a_sample_tells_rows_sizes_and_rates(history: History, growth: Growth) -> None:
    for _ in range(3):
        history.add("SUCCEEDED", ended_h=2)
    first = await growth.sample()
    assert first is not None
    assert (first.counts.exact, first.counts.tiers, first.counts.states) == (True, {"hot": 3}, {"succeeded": 3})
    assert (first.span_ms, first.created) == (None, 0)
    assert first.sizes.bytes > first.sizes.live - 1 > 0
    assert first.sizes.log is not None
    assert first.disk is not None
    assert first.disk.free <= first.disk.bytes
    earlier(history.db, hours=2)
    history.add("FAILED", ended_h=1)
    history.add("QUEUED", ended_h=None)
    second = await growth.sample()
    assert second is not None
    assert second.counts.states == {"succeeded": 3, "failed": 1, "open": 1}
    assert second.created == 2
    assert second.span_ms is not None
    assert second.span_ms >= 2 * HOUR_MS
    assert set(second.counts.job_bytes) == {"preheat/hot"}


async def test_an_hour_has_one_sample_whoever_takes_it(history: History, growth: Growth) -> None:
    assert await growth.sample() is not None
    assert await growth.sample() is None
    history.db.write_sync(lambda conn: acquire_lease(conn, "x", "y", ttl_s=1))
    earlier(history.db)
    history.db.write_sync(lambda conn: conn.execute(delete(growth_sample)))
    await growth.tick()
    other = Growth(history.db, clock=VirtualClock(), config=QUIET)
    assert not await other.tick()
    assert await other.sample() is None


async def test_missed_hours_are_a_gap(history: History, growth: Growth) -> None:
    await growth.sample()
    earlier(history.db, hours=5)
    second = await growth.sample()
    assert second is not None
    found = history.db.read_sync(lambda conn: store.samples_since(conn, 0))
    assert [later.slot - one.slot for one, later in pairwise(found)] == [5]


def test_windows_of_ids_estimate_a_long_history_with_holes(tmp_path: Path) -> None:
    db = Database.open(f"sqlite:///{tmp_path}/long.db")
    migrate(db)
    fill(db, Shape(jobs=30_000, newest_ms=NOW, parts=1, events=1, block=3_000))

    def holes(conn: Connection) -> None:
        conn.execute(update(job).where(job.c.id <= 15_000).values(tier=1))
        conn.execute(delete(job).where(job.c.id <= 15_000, job.c.id % 5 != 0))

    db.write_sync(holes)
    live = db.read_sync(sizes_of).live

    def look(seed: int) -> Counts:
        chance = random.Random(seed)  # noqa: S311  (test data)
        return db.read_sync(lambda conn: count_jobs(conn, live_bytes=live, chance=chance))

    found = [look(seed) for seed in range(8)]
    for one in found:
        assert not one.exact
        assert one.tiers["hot"] == pytest.approx(15_000, rel=0.01)
        assert one.tiers["warm"] == pytest.approx(3_000, rel=0.15)
        assert one.states["succeeded"] / sum(one.states.values()) == pytest.approx(0.885, abs=0.05)
    mean = sum(one.tiers["warm"] for one in found) / len(found)
    assert mean == pytest.approx(3_000, rel=0.05)
    shared = sum(found[0].tier_bytes.values())
    assert shared == pytest.approx(live, rel=0.25)
    db.close()


async def test_the_budget_is_kept_with_who_and_when_and_refused_with_its_field(growth: Growth) -> None:
    assert (await growth.budget())["budget"] == "none"
    made = await growth.set_budget("keep at most 20 GiB", by="ann", reason="small disk", shorten="14d")
    assert (made["budget"], made["shorten"]) == ("keep at most 20.0 GiB", "14d")
    with pytest.raises(InvalidInputError) as refused:
        await growth.set_budget("plenty", by="ann")
    assert refused.value.field == "budget"
    after = await growth.set_budget("none", by="bob")
    assert after["budget"] == "none"
    assert [(one["by"], one["text"], one["reason"]) for one in after["history"]] == [
        ("ann", "keep at most 20.0 GiB", "small disk"),
        ("bob", "none", ""),
    ]
    assert all(one["at"] > NOW // 2 for one in after["history"])


def put(db: Database, days: int, *, per_day: int, used: int, free: int, size: int) -> None:
    """Samples of each hour so far back, that grow evenly to `used`."""

    def write(conn: Connection) -> None:
        now = db_now_ms(conn)
        for hour in range(days * 24, 0, -1):
            less = per_day * hour // 24
            at = now - hour * HOUR_MS
            sizes, disk = Sizes(bytes=used - less, reclaimable=0), Disk(bytes=size, free=free + less)
            store.add_sample(conn, Sample(at=at, sizes=sizes, counts=Counts(), seen=Seen(), disk=disk))

    db.write_sync(write, durable=False)


async def test_the_report_forecasts_from_samples_and_thins_its_series(history: History, growth: Growth) -> None:
    empty = await growth.report()
    assert "no sample yet" in empty["growth"]["reason"]
    assert empty["series"] == []
    put(history.db, 20, per_day=2**30, used=2**20, free=2**40, size=2**42)
    await growth.set_budget("keep at most 10 GiB", by="ann")
    await growth.tick()
    report = await growth.report()
    assert report["limits"][0]["name"] == "budget"
    assert report["growth"]["reason"] == ""
    assert report["growth"]["per_day"] == pytest.approx(2**30, rel=0.05)
    assert len(report["series"]) == 240
    assert report["series"][-1]["at"] == report["sampled_at"]
    assert report["budget"] == "keep at most 10.0 GiB"
    assert report["limits"][0]["outlook"]["p50"] == pytest.approx(10, abs=0.2)
    assert report["figures"]["database"]["live"] > 0


async def test_the_ladder_is_written_down_and_read_by_other_managers(history: History, growth: Growth) -> None:
    def scarce(conn: Connection) -> None:
        body = {"stage": int(Stage.REFUSE), "since": 1, "calm_since": None, "cut": 0, "cut_at": 0}
        marks.set_mark(conn, store.LADDER, {"ladder": body, "seen_at": db_now_ms(conn), "history": []}, by="x")
        acquire_lease(conn, LEASE, "another", ttl_s=600)

    history.db.write_sync(scarce)
    assert growth.refuses_low_priority() is None
    assert not await growth.tick()
    assert growth.pressure.stage == Stage.REFUSE
    assert "low importance" in (growth.refuses_low_priority() or "")


async def test_a_ladder_that_nobody_looks_after_any_more_means_nothing(history: History, growth: Growth) -> None:
    def stale(conn: Connection) -> None:
        body = {"stage": int(Stage.REFUSE), "since": 1, "calm_since": None, "cut": 0, "cut_at": 0}
        marks.set_mark(conn, store.LADDER, {"ladder": body, "seen_at": 1, "history": []}, by="x")
        acquire_lease(conn, LEASE, "another", ttl_s=600)

    history.db.write_sync(stale)
    await growth.tick()
    assert growth.refuses_low_priority() is None
