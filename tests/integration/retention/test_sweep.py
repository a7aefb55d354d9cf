"""Sweeps on a real SQLite file: what goes, what stays, what is written down."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from tests.integration.retention.history import ENDED, History, open_history
from tests.integration.retention.sweeping import Boot, engine_of, seeded, sweep, until

from darner.core.errors import ConflictError, NotFoundError
from darner.db import db_now_ms
from darner.db.tables.jobs import job
from darner.db.tables.retention import lease, retention_batch, retention_policy, retention_run
from darner.retention.config import SweepConfig
from darner.retention.policy import HOUR_MS
from darner.retention.presets import SEED_ORIGIN, default_policy
from darner.testing.clock import VirtualClock


async def test_a_sweep_removes_what_is_due_with_all_that_is_its_and_nothing_else(history: History) -> None:
    await seeded(history.db)
    due = [history.add(state, ended_h=6.01 + index) for index, state in enumerate(ENDED)]
    stays = [history.add(state, ended_h=5.9, created_h=900) for state in ENDED]
    stays += [history.add(state, ended_h=None, created_h=900) for state in ("QUEUED", "RUNNING", "CANCELLING")]
    stays += [history.add("SUCCEEDED", ended_h=900, held=1), history.add("FAILED", ended_h=-3)]
    run = await sweep(history.db)
    assert (run.state, run.removed, run.error) == ("DONE", len(due), "")
    assert history.left() == stays
    assert history.orphans() == 0
    assert history.children_of(stays[0]) == 6


async def test_each_batch_is_audited_without_content(history: History) -> None:
    await seeded(history.db)
    for index in range(70):
        history.add("SUCCEEDED", ended_h=7 + index / 10)
    run = await sweep(history.db, config=SweepConfig(first_batch=20, max_batch=20))
    rows = history.db.read_sync(lambda conn: conn.execute(select(retention_batch).order_by(retention_batch.c.id)).all())
    assert sum(row.removed for row in rows) == run.removed == 70
    assert len(rows) > 1
    assert all(row.run_id == run.id and row.oldest_at <= row.newest_at and len(row.ids_digest) == 64 for row in rows)
    assert all(one.newest_at <= other.oldest_at for one, other in pairwise(rows))


async def test_a_dry_run_tells_what_the_next_sweep_removes_and_removes_nothing(history: History) -> None:
    await seeded(history.db)
    for hours in (7, 8, 9, 2):
        history.add("FAILED", ended_h=hours)
    history.add("SUCCEEDED", ended_h=30)
    async with engine_of(history.db) as engine:
        dry = await engine.run(dry_run=True, by="tester")
        assert dry.report is not None
        assert dry.report["total"] == 4
        states = {entry["state"]: entry for entry in dry.report["rules"][0]["states"]}
        assert states["FAILED"]["count"] == 3
        assert states["FAILED"]["samples"] == [history.ids[2], history.ids[1], history.ids[0]]
        assert states["FAILED"]["oldest_finished_at"] < states["FAILED"]["newest_finished_at"]
        assert len(history.left()) == 5
        assert (await engine.run(dry_run=False, by="tester")).removed == dry.report["total"]


async def test_releasing_a_hold_lets_the_policy_decide_again(history: History) -> None:
    await seeded(history.db)
    key = history.add("SUCCEEDED", ended_h=40, held=1)
    await sweep(history.db)
    assert history.left() == [key]
    history.db.write_sync(lambda conn: conn.execute(update(job).values({"held": 0, "class": 0})))
    await sweep(history.db)
    assert history.left() == []


async def test_a_hold_that_comes_after_the_classification_is_respected(history: History) -> None:
    await seeded(history.db)
    key = history.add("SUCCEEDED", ended_h=40)
    async with engine_of(history.db) as engine:
        await engine.run(dry_run=True, by="tester")
    history.db.write_sync(lambda conn: conn.execute(update(job).values(held=1)))
    await sweep(history.db)
    assert history.left() == [key]


async def test_a_longer_policy_saves_and_a_shorter_one_removes(history: History) -> None:
    await seeded(history.db)
    keys = [history.add("SUCCEEDED", ended_h=hours) for hours in (7, 30, 60)]
    async with engine_of(history.db) as engine:
        made = await engine.set_policy({"rules": [{"name": "default", "hot": "48h"}]}, by="ann", reason="audit")
        assert (made.version, made.origin, made.created_by, made.reason) == (3, "user", "ann", "audit")
        await engine.run(dry_run=False, by="tester")
        assert history.left() == keys[:2]
        await engine.set_policy({"rules": [{"name": "default", "hot": "1h"}]}, by="ann")
        await engine.run(dry_run=False, by="tester")
        assert history.left() == []
        assert [one.version for one in await engine.history()] == [4, 3, 2, 1]


async def test_new_matches_sort_old_jobs_anew_before_anything_goes(history: History) -> None:
    await seeded(history.db)
    failed, fine = history.add("FAILED", ended_h=5), history.add("SUCCEEDED", ended_h=5)
    await sweep(history.db)
    async with engine_of(history.db) as engine:
        rules = [{"name": "failures", "match": {"states": ["FAILED"]}, "hot": "keep"}, {"name": "default", "hot": "2h"}]
        await engine.set_policy({"rules": rules}, by="ann")
        run = await engine.run(dry_run=False, by="tester")
    assert (run.removed, run.classified) == (1, 2)
    assert history.left() == [failed]
    assert fine not in history.left()


async def test_a_policy_change_stops_a_running_sweep(history: History) -> None:
    await seeded(history.db)
    for _ in range(300):
        history.add("SUCCEEDED", ended_h=8, parts=0)
    slow = SweepConfig(first_batch=20, max_batch=20, min_pause_s=0.03)
    async with engine_of(history.db, config=slow) as engine:
        running = asyncio.create_task(engine.run(dry_run=False, by="tester"))
        await until(lambda: len(history.left()) <= 270)
        await engine.set_policy({"keep": "30d"}, by="ann")
        run = await running
    assert (run.state, run.error) == ("STOPPED", "The policy was changed during the sweep; the next one follows the new policy.")
    assert len(history.left()) == 300 - run.removed
    assert run.removed < 300


async def test_without_a_policy_nothing_is_removed(history: History) -> None:
    history.add("SUCCEEDED", ended_h=9000)
    async with engine_of(history.db) as engine:
        with pytest.raises(NotFoundError, match="nothing is removed"):
            await engine.policy()
        with pytest.raises(ConflictError, match="no retention policy"):
            await engine.run(dry_run=False, by="tester")
    assert len(history.left()) == 1
    assert history.db.read_sync(lambda conn: conn.execute(select(func.count()).select_from(retention_policy)).scalar()) == 0


async def test_a_fresh_installation_gets_the_default_policy_once(history: History) -> None:
    for _ in range(2):
        async with engine_of(history.db) as engine:
            found = await engine.policy()
    assert (found.version, found.policy, found.origin) == (1, default_policy(), SEED_ORIGIN)


async def test_a_clock_that_jumped_holds_every_sweep_until_a_person_looked(history: History) -> None:
    await seeded(history.db)
    boot = Boot()
    async with engine_of(history.db, boot=boot) as engine:
        assert (await engine.run(dry_run=False, by="tester")).state == "DONE"
        key = history.add("SUCCEEDED", ended_h=7)
        boot.ms -= 2 * HOUR_MS  # the database's clock is now two hours ahead of what the machine lived through
        for _ in range(2):
            held = await engine.run(dry_run=False, by="tester")
            assert held.state == "HELD"
            assert "jumped ahead" in held.error
        assert history.left() == [key]
        assert (await engine.run(dry_run=False, by="tester", accept_clock=True)).removed == 1
        assert (await engine.run(dry_run=False, by="tester")).state == "DONE"


async def test_a_sweep_whose_lease_is_taken_half_way_fails_and_says_so(history: History) -> None:
    await seeded(history.db)
    for _ in range(200):
        history.add("SUCCEEDED", ended_h=8, parts=0)
    slow = SweepConfig(first_batch=20, max_batch=20, min_pause_s=0.05)
    async with engine_of(history.db, config=slow) as engine:
        running = asyncio.create_task(engine.run(dry_run=False, by="tester"))
        await until(lambda: len(history.left()) <= 170)
        history.db.write_sync(lambda conn: conn.execute(update(lease).values(holder="thief", epoch=lease.c.epoch + 1)))
        run = await running
    assert run.state == "FAILED"
    assert "held by someone else" in run.error
    assert len(history.left()) == 200 - run.removed


async def test_two_managers_on_one_file_remove_everything_once(history: History, tmp_path: Path) -> None:
    await seeded(history.db)
    for index in range(400):
        history.add("SUCCEEDED", ended_h=7 + index / 100, parts=1)
    other = open_history(tmp_path / "darner.db")
    async with engine_of(history.db, holder="m1") as one, engine_of(other.db, holder="m2") as two:
        results = await asyncio.gather(one.run(dry_run=False, by="a"), two.run(dry_run=False, by="b"), return_exceptions=True)
        await until(lambda: not history.left())
        done = [result for result in results if not isinstance(result, BaseException)]
        refused = [result for result in results if isinstance(result, ConflictError)]
        assert len(done) + len(refused) == 2
        assert done
    total = history.db.read_sync(lambda conn: conn.execute(select(func.sum(retention_batch.c.removed))).scalar())
    assert total == 400
    assert history.left() == []
    assert history.orphans() == 0
    other.db.close()


async def test_it_never_sweeps_at_the_start_and_then_by_the_clock(history: History) -> None:
    await seeded(history.db)
    clock = VirtualClock()
    key = history.add("SUCCEEDED", ended_h=8)
    async with engine_of(history.db, clock=clock) as engine:
        await clock.advance(59)
        assert history.left() == [key]
        assert 0 < (await engine.status())["next_run_at"] - history.db.read_sync(db_now_ms) < 62_000
        await clock.advance(62)
        for _ in range(200):
            await clock.advance(1)
            await asyncio.sleep(0.01)
            if not history.left():
                break
        assert history.left() == []


async def test_paused_means_no_sweep_by_the_clock(history: History) -> None:
    await seeded(history.db)
    clock = VirtualClock()
    key = history.add("SUCCEEDED", ended_h=8)
    async with engine_of(history.db, clock=clock) as engine:
        await engine.pause(paused=True, by="ann")
        status = await engine.status()
        assert (status["paused"], status["next_run_at"]) == (True, None)
        for _ in range(40):
            await clock.advance(20)
            await asyncio.sleep(0.002)
        assert history.left() == [key]
        assert [run.trigger for run in await engine.runs()] == ["manual: tester"]


async def test_runs_are_remembered_apart_from_jobs_and_failed_ones_too(history: History) -> None:
    await seeded(history.db)
    first = await sweep(history.db)
    history.db.write_sync(lambda conn: conn.execute(update(retention_run).values(state="RUNNING", finished_at=None)))
    second = await sweep(history.db, holder="m2")
    async with engine_of(history.db) as engine:
        told = await engine.find_run(first.id)
        assert told.state == "FAILED"
        assert "interrupted" in told.error
        assert [run.id for run in await engine.runs()][:2] == [second.id, first.id]
        assert [run.id for run in await engine.runs(before=second.id, limit=1)] == [first.id]
        with pytest.raises(NotFoundError):
            await engine.find_run(999)


async def test_old_runs_are_forgotten_in_time(history: History) -> None:
    await seeded(history.db)
    for _ in range(3):
        history.add("SUCCEEDED", ended_h=8)
        last = await sweep(history.db)
    old = update(retention_run).where(retention_run.c.id < last.id).values(started_at=7)
    history.db.write_sync(lambda conn: conn.execute(old))
    newest = await sweep(history.db)
    async with engine_of(history.db) as engine:
        assert [run.id for run in await engine.runs()] == [newest.id, last.id]
    kept = history.db.read_sync(lambda conn: conn.execute(select(retention_batch.c.run_id)).scalars().all())
    assert list(kept) == [last.id]


async def test_a_job_with_very_many_parts_goes_alone(history: History) -> None:
    await seeded(history.db)
    giant = history.add("SUCCEEDED", ended_h=8, parts=1)
    history.db.write_sync(lambda conn: conn.execute(update(job).where(job.c.id == giant).values(part_count=50_000)))
    for _ in range(3):
        history.add("SUCCEEDED", ended_h=7)
    await sweep(history.db)
    removed = history.db.read_sync(lambda conn: conn.execute(select(retention_batch.c.removed)).scalars().all())
    assert list(removed) == [1, 3]


async def test_an_empty_sweep_touches_no_job(history: History) -> None:
    await seeded(history.db)
    for _ in range(30):
        history.add("SUCCEEDED", ended_h=2)
    await sweep(history.db)
    run = await sweep(history.db)
    assert (run.classified, run.examined, run.removed) == (0, 0, 0)


async def test_a_job_is_told_when_it_will_be_forgotten(history: History) -> None:
    await seeded(history.db)
    history.add("SUCCEEDED", ended_h=2)
    row = history.db.read_sync(lambda conn: conn.execute(select(job)).one())
    async with engine_of(history.db) as engine:
        (told,) = await engine.explain([row])
    assert told["rule"] == "default"
    assert told["forgotten_at"].endswith("Z")
