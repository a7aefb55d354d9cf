"""Growth on every kind of database."""

import pytest
from sqlalchemy import Connection, delete, insert, update

from darner.core.errors import InvalidInputError
from darner.db import Database, db_now_ms
from darner.db.tables.growth import growth_sample
from darner.db.tables.jobs import JOB_TABLES, job
from darner.db.tables.retention import retention_batch
from darner.retention.engine import RetentionEngine
from darner.retention.growth import store
from darner.retention.growth.advice import server_advice
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.facts import facts_of
from darner.retention.growth.growth import Growth
from darner.retention.growth.values import HOUR_MS, Sample
from darner.testing.clock import VirtualClock
from darner.testing.history import Shape, fill

JOBS = 12_000
BATCH = {"run_id": 1, "rule": "all", "at": 1, "oldest_at": 1, "newest_at": 1, "ids_digest": "x"}


def analyze(db: Database) -> None:
    """Let a server look at its tables, as it does by itself now and then."""
    if db.dialect == "postgresql":
        db.write_sync(lambda conn: conn.exec_driver_sql("ANALYZE"))
    if db.dialect == "mysql":
        for table in JOB_TABLES:
            db.write_sync(lambda conn, name=table.name: conn.exec_driver_sql(f"ANALYZE TABLE {name}").close())  # type: ignore[misc]


def an_hour_ago(conn: Connection) -> None:
    last = store.last_sample(conn)
    assert last is not None
    conn.execute(delete(growth_sample))
    assert store.add_sample(conn, Sample.from_json({**last.to_json(), "at": last.at - HOUR_MS}))


async def test_samples_figures_and_rates(database: Database) -> None:
    newest = database.read_sync(db_now_ms) - 2 * HOUR_MS
    fill(database, Shape(jobs=JOBS, newest_ms=newest, parts=1, events=2, block=2_000))
    database.write_sync(lambda conn: conn.execute(update(job).where(job.c.id <= JOBS // 4).values(tier=1)))
    analyze(database)
    growth = Growth(database, clock=VirtualClock(), config=GrowthConfig(reserve_bytes=0))
    first = await growth.sample()
    assert first is not None
    assert first.counts.tiers["hot"] == pytest.approx(JOBS * 0.75, rel=0.05)
    assert first.counts.tiers["warm"] == pytest.approx(JOBS * 0.25, rel=0.05)
    assert sum(first.counts.tier_bytes.values()) == pytest.approx(first.sizes.live, rel=0.5)
    assert first.sizes.live > JOBS * 1_800
    assert first.sizes.reclaimable >= 0
    assert (first.disk is None) == (database.dialect != "sqlite")
    database.write_sync(an_hour_ago)

    def more(conn: Connection) -> None:
        now = db_now_ms(conn)
        rows = [{"type": "preheat", "state": "QUEUED", "created_at": now, "updated_at": now} for _ in range(30)]
        conn.execute(insert(job), rows)
        conn.execute(
            insert(retention_batch), [{**BATCH, "action": "fold", "removed": 40}, {**BATCH, "action": "delete", "removed": 7}]
        )

    database.write_sync(more)
    assert await growth.tick()
    report = await growth.report()
    assert report["rates"]["created"] == pytest.approx(30, rel=0.2)
    assert report["rates"]["moved"] == {"delete": pytest.approx(7, abs=1), "fold": pytest.approx(40, abs=4)}
    assert len(report["series"]) == 2


async def test_what_is_due_and_who_holds_leases(database: Database) -> None:
    fill(database, Shape(jobs=600, newest_ms=database.read_sync(db_now_ms) - 2 * HOUR_MS, step_ms=60_000, block=300))
    growth = Growth(database, clock=VirtualClock(), config=GrowthConfig(reserve_bytes=0))
    async with RetentionEngine(database) as engine:
        await engine.set_policy({"rules": [{"name": "all", "hot": "6h"}]}, by="x")
        dry = await engine.run(dry_run=True, by="x")
        await growth.tick()
        facts = database.read_sync(lambda conn: facts_of(conn, wall_ms=lambda: 0))
    assert dry.report is not None
    assert facts.due["delete"].rows == pytest.approx(dry.report["total"], abs=3)
    assert facts.due["delete"].seconds == pytest.approx(6 * 3600, rel=0.02)
    assert set(facts.holders) >= {"retention-growth"}
    assert (facts.future, facts.held_back, facts.segments) == (0, False, {})


async def test_ends_in_the_future_are_told(database: Database) -> None:
    fill(database, Shape(jobs=40, newest_ms=database.read_sync(db_now_ms) + HOUR_MS, step_ms=1, block=40))
    facts = database.read_sync(lambda conn: facts_of(conn, wall_ms=lambda: db_now_ms(conn)))
    assert facts.future == 40
    assert abs(facts.skew_s) < 60


async def test_budgets_of_a_server_are_sizes(database: Database) -> None:
    growth = Growth(database, clock=VirtualClock(), config=GrowthConfig(reserve_bytes=0))
    await growth.set_budget("keep at most 20 GiB", by="ann")
    if database.dialect == "sqlite":
        await growth.set_budget("keep 10 % of the disk free", by="ann")
    else:
        with pytest.raises(InvalidInputError, match="cannot be seen from here"):
            await growth.set_budget("keep 10 % of the disk free", by="ann")
    await growth.tick()
    report = await growth.report()
    assert [one["name"] for one in report["limits"]] == (["disk"] if database.dialect == "sqlite" else ["budget"])


def test_servers_are_advised_about_room_they_keep(database: Database) -> None:
    assert database.read_sync(server_advice) == []
