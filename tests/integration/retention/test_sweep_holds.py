"""What is held stays: one job, or all that match, also when the hold comes while a sweep is at work."""

import asyncio

import pytest
from sqlalchemy import Connection, func, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import engine_of, seeded, sweep, until

from darner.core.errors import InvalidInputError, NotFoundError
from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_hold
from darner.retention.config import SweepConfig
from darner.retention.policy import HOUR_MS
from darner.retention.ports import RetentionParts

UNDO = {"rules": [{"name": "default", "hot": "6h", "undo": "2h"}]}
SLOW = SweepConfig(first_batch=20, max_batch=20, min_pause_s=0.03)


async def test_a_selector_holds_what_matches_now_and_later(history: History) -> None:
    await seeded(history.db)
    bob, ann = history.add("SUCCEEDED", ended_h=9, owner="bob"), history.add("SUCCEEDED", ended_h=9, owner="ann")
    async with engine_of(history.db) as engine:
        made = await engine.add_hold(reason="an audit", by="ann", match={"owners": ["bob"]})
        assert (await engine.run(dry_run=True, by="t")).report["total"] == 1  # type: ignore[index]
        await engine.run(dry_run=False, by="t")
        assert history.left() == [bob]
        later = history.add("FAILED", ended_h=90, owner="bob")
        await engine.run(dry_run=False, by="t")
        assert history.left() == [bob, later]
        row = history.db.read_sync(lambda conn: conn.execute(select(job).where(job.c.id == later)).one())
        assert ann not in history.left()
        await engine.remove_hold(made.id, by="ann")
        await engine.run(dry_run=False, by="t")
        assert history.left() == []
    assert row.held == 0


async def test_a_selector_that_comes_during_a_sweep_is_in_effect_at_once(history: History) -> None:
    await seeded(history.db)
    for index in range(300):
        history.add("SUCCEEDED", ended_h=8, parts=0, owner="bob" if index % 2 else "ann")
    async with engine_of(history.db, config=SLOW) as engine:
        running = asyncio.create_task(engine.run(dry_run=False, by="t"))
        await until(lambda: len(history.left()) <= 270)
        await engine.add_hold(reason="wait", by="ann", match={"owners": ["bob"]})
        there = of_bob(history)
        run = await running
        assert (run.state, run.error) == ("STOPPED", "Holds were changed during the sweep; the next one respects them.")
        assert of_bob(history) == there
        await engine.run(dry_run=False, by="t")
    assert of_bob(history) == there == len(history.left())


def of_bob(history: History) -> int:
    count = select(func.count()).where(job.c.owner == "bob")
    return history.db.read_sync(lambda conn: int(conn.execute(count).scalar_one()))


async def test_a_hold_on_one_job_is_in_effect_at_once(history: History) -> None:
    await seeded(history.db)
    for _ in range(200):
        history.add("SUCCEEDED", ended_h=8, parts=0)
    async with engine_of(history.db, config=SLOW) as engine:
        running = asyncio.create_task(engine.run(dry_run=False, by="t"))
        await until(lambda: len(history.left()) <= 170)
        held = history.left()[-1]
        await engine.add_hold(reason="mine", by="ann", job_id=held)
        assert (await running).state == "DONE"
        assert history.left() == [held]
        first = (await engine.holds())[0]
        again = await engine.add_hold(reason="ours", by="bob", job_id=held)
        assert [one.id for one in await engine.holds()] == [again.id]
        assert again.id != first.id
        await engine.remove_hold(again.id, by="bob")
        assert (await engine.run(dry_run=False, by="t")).removed == 1


async def test_a_hold_ends_by_itself(history: History) -> None:
    await seeded(history.db)
    one, other = history.add("SUCCEEDED", ended_h=9), history.add("SUCCEEDED", ended_h=9, owner="bob")
    async with engine_of(history.db) as engine:
        soon = history.db.read_sync(db_now_ms) + HOUR_MS
        await engine.add_hold(reason="until then", by="ann", job_id=one, until=soon)
        await engine.add_hold(reason="until then", by="ann", match={"owners": ["bob"]}, until=soon)
        await engine.run(dry_run=False, by="t")
        assert history.left() == [one, other]
        history.db.write_sync(lambda conn: conn.execute(update(retention_hold).values(until=5)))
        await engine.run(dry_run=False, by="t")
        assert history.left() == []
        assert await engine.holds() == []
        with pytest.raises(InvalidInputError):
            await engine.add_hold(reason="too late", by="ann", match={"owners": ["bob"]}, until=5)


async def test_a_hidden_job_is_gone_after_its_undo_time_and_can_be_restored_before(history: History) -> None:
    await seeded(history.db, UNDO)
    one, other = history.add("SUCCEEDED", ended_h=9), history.add("SUCCEEDED", ended_h=9)
    async with engine_of(history.db) as engine:
        run = await engine.run(dry_run=False, by="t")
        assert (run.hidden, run.removed) == (2, 0)
        assert history.tiers() == {one: Tier.DELETED, other: Tier.DELETED}
        assert (await engine.run(dry_run=False, by="t")).removed == 0
        hold = await engine.restore(one, by="ann")
        assert (hold.job_id, hold.reason, hold.until) == (one, "restored by ann", None)
        assert history.seen() == [one]
        history.db.write_sync(lambda conn: hidden_hours_ago(conn, 3))
        run = await engine.run(dry_run=False, by="t")
        assert (run.hidden, run.removed) == (0, 1)
        assert history.tiers() == {one: Tier.HOT}
        assert history.orphans() == 0
        with pytest.raises(NotFoundError):
            await engine.restore(other, by="ann")


def hidden_hours_ago(conn: Connection, hours: int) -> None:
    hidden = job.c.tier == int(Tier.DELETED)
    conn.execute(update(job).where(hidden).values(base_at=job.c.base_at - hours * HOUR_MS))


async def test_a_restored_job_goes_by_its_rule_again_when_it_is_released(history: History) -> None:
    await seeded(history.db, UNDO)
    key = history.add("SUCCEEDED", ended_h=9)
    await sweep(history.db)
    async with engine_of(history.db) as engine:
        hold = await engine.restore(key, by="ann")
        await engine.run(dry_run=False, by="t")
        assert history.seen() == [key]
        await engine.remove_hold(hold.id, by="ann")
        await engine.run(dry_run=False, by="t")
    assert history.tiers() == {key: Tier.DELETED}


async def test_a_hold_on_an_archived_job_brings_it_back(history: History) -> None:
    await seeded(history.db)

    async def restore(job_id: int) -> bool:
        return job_id == 1 and history.add("FAILED", ended_h=100) == 1

    async with engine_of(history.db, parts=RetentionParts(restore_archived=restore)) as engine:
        with pytest.raises(NotFoundError):
            await engine.add_hold(job_id=2, reason="case", by="ann")
        made = await engine.add_hold(job_id=1, reason="case", by="ann")
        assert (made.job_id, made.reason, made.created_by) == (1, "case", "ann")
        assert (await engine.run(dry_run=False, by="t")).removed == 0
        await engine.remove_hold(made.id, by="ann")
        assert (await engine.run(dry_run=False, by="t")).removed == 1


async def test_a_hold_on_everything_and_its_end(history: History) -> None:
    await seeded(history.db)
    kept = [history.add(state, ended_h=9) for state in ("FAILED", "SUCCEEDED", "CANCELLED")]
    everything = {"states": ["SUCCEEDED", "FAILED", "PARTIAL", "TIMED_OUT", "CANCELLED"]}
    async with engine_of(history.db) as engine:
        made = await engine.add_hold(match=everything, reason="freeze", by="ann")
        assert (await engine.run(dry_run=False, by="t")).removed == 0
        kept.append(history.add("FAILED", ended_h=9))
        assert (await engine.run(dry_run=False, by="t")).removed == 0
        assert history.left() == kept
        await engine.remove_hold(made.id, by="ann")
        assert (await engine.run(dry_run=False, by="t")).removed == 4
