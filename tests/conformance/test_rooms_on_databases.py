"""Retention, access and fleet on every database."""

import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from darner.access import TokenService
from darner.core.errors import ConflictError
from darner.core.fleet import SchedulerInfo, SchedulerQuery
from darner.core.work import SeenHost
from darner.db import Database, acquire_lease
from darner.db.tables.jobs import job
from darner.db.tables.retention import lease, retention_batch
from darner.fleet.engine import FleetEngine
from darner.fleet.values import HostFilter
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.parse import policy_from_json
from darner.retention.records import add_policy
from darner.retention.sweeper import LEASE

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.integration.retention.history import ENDED, History  # noqa: E402

QUICK = SweepConfig(min_pause_s=0.0001, first_batch=20, max_batch=30)


@pytest.fixture
def history(database: Database) -> History:
    plain = policy_from_json({"rules": [{"name": "all", "hot": "6h"}]})
    database.write_sync(lambda conn: add_policy(conn, plain, origin="seed", by="system", reason=""))
    return History(database)


async def test_a_sweep_removes_what_is_due_and_nothing_else(history: History) -> None:
    async with RetentionEngine(history.db, config=QUICK) as engine:
        for index in range(60):
            history.add(ENDED[index % 5], ended_h=6.1 + index / 10)
        stays = [history.add(state, ended_h=5.9, created_h=900) for state in ENDED]
        stays += [history.add("RUNNING", ended_h=None, created_h=900), history.add("FAILED", ended_h=900, held=1)]
        dry = await engine.run(dry_run=True, by="tester")
        assert dry.report is not None
        assert dry.report["total"] == 60
        run = await engine.run(dry_run=False, by="tester")
        assert (run.state, run.removed, run.error) == ("DONE", 60, "")
        assert history.left() == stays
        assert history.orphans() == 0
        told = history.db.read_sync(lambda conn: conn.execute(select(func.sum(retention_batch.c.removed))).scalar())
        assert told == 60


async def test_new_rules_sort_old_jobs_anew_and_a_released_hold_is_seen(history: History) -> None:
    async with RetentionEngine(history.db, config=QUICK) as engine:
        failed, _ = history.add("FAILED", ended_h=5), history.add("SUCCEEDED", ended_h=5)
        held = history.add("SUCCEEDED", ended_h=9, held=1)
        await engine.run(dry_run=False, by="tester")
        rules = [{"name": "bad", "match": {"states": ["FAILED"]}, "hot": "keep"}, {"name": "rest", "basis": "created", "hot": "2h"}]
        await engine.set_policy({"rules": rules}, by="ann", reason="größer")
        assert (await engine.run(dry_run=False, by="tester")).removed == 1
        assert history.left() == [failed, held]
        history.db.write_sync(lambda conn: conn.execute(update(job).where(job.c.id == held).values({"held": 0, "class": 0})))
        assert (await engine.run(dry_run=False, by="tester")).removed == 1
        assert history.left() == [failed]


async def test_one_sweeper_at_a_time(history: History) -> None:
    async with RetentionEngine(history.db, config=QUICK, holder="m1") as engine:
        history.add("SUCCEEDED", ended_h=9)
        assert history.db.write_sync(lambda conn: acquire_lease(conn, LEASE, "m2", ttl_s=60)) is not None
        with pytest.raises(ConflictError, match="Another manager"):
            await engine.run(dry_run=False, by="tester")
        assert len(history.left()) == 1
        history.db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)))
        assert (await engine.run(dry_run=False, by="tester")).removed == 1


async def test_pause_is_remembered(history: History) -> None:
    async with RetentionEngine(history.db) as engine:
        await engine.pause(paused=True, by="ann")
        assert (await engine.status())["paused"] is True
        await engine.pause(paused=False, by="ann")
        assert (await engine.status())["paused"] is False


async def test_tokens(history: History) -> None:
    tokens = TokenService(history.db)
    record, secret = await tokens.create("ci", ["job"])
    principal = await tokens.authenticate(secret.reveal())
    assert principal is not None
    assert principal.token_id == record.id
    await tokens.revoke(record.id)
    assert await tokens.authenticate(secret.reveal()) is None


async def test_the_fleet(history: History) -> None:
    async with FleetEngine(history.db) as engine:
        cluster = (await engine.clusters())[0]
        scheduler = SchedulerInfo(id=0, hostname="s-1", ip="10.0.0.9", port=8002, scheduler_cluster_id=cluster.info.id)
        await engine.update_scheduler(scheduler, b"")
        async with engine.presence("s-1", "10.0.0.9", cluster.info.id) as beat:
            beat()
            await engine.flush()
            assert len(await engine.list_schedulers(SchedulerQuery(hostname="w", ip="10.0.0.1"))) == 1
            assert (await engine.clusters())[0].active
        assert await engine.list_schedulers(SchedulerQuery(hostname="w", ip="10.0.0.1")) == []
        seen = [SeenHost(id=f"h-{n}", hostname=f"w-{n}", ip="10.0.0.1", port=4000 + n, seed=n == 1) for n in range(3)]
        await engine.report_hosts(cluster.info.id, seen)
        await engine.report_hosts(cluster.info.id, seen)
        rows, total = await engine.hosts(HostFilter(seed=False), page=1, per_page=1)
        assert (total, rows[0].host.hostname, rows[0].active) == (2, "w-0", True)
