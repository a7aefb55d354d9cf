"""The shrink guard on a real database: what it holds back, what it lets pass, and how a person confirms."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import Boot, engine_of, seeded, swept, until_done

from darner.core.errors import ConflictError
from darner.db import db_now_ms
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_policy, retention_run
from darner.retention.config import SweepConfig
from darner.retention.policy import DAY_MS, HOUR_MS
from darner.retention.sql import runs
from darner.retention.sql.marks import mark, set_mark
from darner.testing.clock import VirtualClock

BIG = SweepConfig(min_pause_s=0.0001, first_batch=2000)
MONTH = {"rules": [{"name": "default", "hot": "30d"}]}
WEEK = {"rules": [{"name": "default", "hot": "7d"}]}


def many(history: History, count: int, *, from_h: float, to_h: float, state: str = "SUCCEEDED") -> None:
    """Jobs that ended evenly between so many hours ago."""

    def put(conn: Connection) -> None:
        now = db_now_ms(conn)
        rows = []
        for index in range(count):
            ended = now - int((from_h + (to_h - from_h) * index / count) * HOUR_MS)
            times = {"created_at": ended - 9, "finished_at": ended, "base_at": ended, "updated_at": ended}
            rows.append({"type": "preheat", "state": state, "owner": f"o{index % 7}", **times})
        conn.execute(insert(job), rows)

    history.db.write_sync(put, durable=False)


async def test_what_merely_got_old_is_not_held(history: History) -> None:
    await seeded(history.db, WEEK)
    many(history, 4000, from_h=7 * 24.1, to_h=9 * 24)
    many(history, 500, from_h=1, to_h=24)
    async with engine_of(history.db, config=BIG) as engine:
        run = await swept(engine)
    assert (run.state, run.removed) == ("DONE", 4000)


@pytest.mark.parametrize("anew", [False, True], ids=["same-rules", "other-rules"])
async def test_a_shorter_time_is_held_until_it_is_confirmed(history: History, anew: bool) -> None:
    await seeded(history.db, MONTH)
    many(history, 3000, from_h=1, to_h=29 * 24)
    late = history.add("SUCCEEDED", ended_h=31 * 24)
    week: dict[str, Any] = (
        {"rules": [{"name": "other", "match": {"states": ["FAILED"]}, "hot": "9d"}, *WEEK["rules"]]} if anew else WEEK
    )
    async with engine_of(history.db, config=BIG) as engine:
        version = (await engine.set_policy(week, by="ann")).version
        held = await swept(engine)
        assert held.state == "HELD"
        assert "the policy was tightened" in held.error
        assert (held.removed, held.report["held"]["rows"]) == (0, due(history, 7 * DAY_MS) - 1)  # type: ignore[index]
        assert late in history.left()
        told = (await engine.status())["removal_held"]
        assert (told["since_run"], told["rows"]) == (held.id, held.report["held"]["rows"])  # type: ignore[index]
        done = await until_done(engine, await engine.confirm_run(held.id, by="ann"))
        assert (done.state, done.removed) == ("DONE", held.report["held"]["rows"] + 1)  # type: ignore[index]
        assert (await engine.status())["removal_held"] is None
        assert (await engine.policy()).version == version
        assert (await engine.policy()).confirmed_by == "ann"
        with pytest.raises(ConflictError):
            await engine.confirm_run(done.id, by="ann")


def due(history: History, age_ms: int) -> int:
    ended = history.db.read_sync(lambda conn: list(conn.execute(select(job.c.finished_at)).scalars()))
    now = history.db.read_sync(db_now_ms)
    return sum(one is not None and one <= now - age_ms for one in ended)


async def test_a_held_removal_does_not_fill_the_history_and_ends_when_the_policy_is_loosened(history: History) -> None:
    await seeded(history.db, MONTH)
    many(history, 2000, from_h=1, to_h=29 * 24)
    clock = VirtualClock()
    async with engine_of(history.db, config=BIG, clock=clock) as engine:
        await engine.set_policy(WEEK, by="ann")
        await ticks(clock, lambda: held_runs(history) == 1)
        since = (await engine.status())["removal_held"]["since_run"]
        for _ in range(3):
            last = (await engine.status())["swept_at"]
            await ticks(clock, lambda last=last: swept_at(history) > last)  # type: ignore[misc]
        assert held_runs(history) == 1
        assert (await engine.status())["removal_held"]["since_run"] == since
        assert len(await engine.runs()) <= 4
        await ticks(clock, lambda: running(history) == 0)
        await engine.set_policy(MONTH, by="ann")
        assert (await engine.status())["removal_held"] is None
        with pytest.raises(ConflictError, match="look at it again"):
            await engine.confirm_run(since, by="ann")
        assert (await swept(engine)).state == "DONE"
        assert (await engine.status())["removal_held"] is None


def running(history: History) -> int:
    return history.db.read_sync(lambda conn: int(runs.is_running(conn)))


def held_runs(history: History) -> int:
    rows = select(retention_run.c.id).where(retention_run.c.state == "HELD")
    return len(history.db.read_sync(lambda conn: conn.execute(rows).all()))


def swept_at(history: History) -> int:
    return int(history.db.read_sync(lambda conn: mark(conn, "clock"))["database_ms"])


async def ticks(clock: VirtualClock, reached: Callable[[], bool]) -> None:
    """Let the clock run until something happened in the database."""
    async with asyncio.timeout(60):
        while not reached():
            await clock.advance(5)
            await asyncio.sleep(0.002)


async def test_a_small_tightening_waits_a_day(history: History) -> None:
    await seeded(history.db, MONTH)
    many(history, 1200, from_h=8 * 24, to_h=20 * 24)
    many(history, 10_000, from_h=1, to_h=6 * 24)
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        assert (await swept(engine)).state == "HELD"
        older = update(retention_policy).values(created_at=retention_policy.c.created_at - DAY_MS)
        history.db.write_sync(lambda conn: conn.execute(older))
        again = (await swept(engine)).state
        assert again == "HELD"  # counted again only when it is time
        soon = update(retention_policy).values(created_at=retention_policy.c.created_at - 1)
        history.db.write_sync(lambda conn: conn.execute(soon))
        forget_finding(history)
        run = await swept(engine)
    assert (run.state, run.removed) == ("DONE", 1200)


def forget_finding(history: History) -> None:
    def as_if_it_were_time(conn: Connection) -> None:
        set_mark(conn, "held-back", {**mark(conn, "held-back"), "again_at": 1}, by="tester")

    history.db.write_sync(as_if_it_were_time)


async def test_a_person_in_a_hurry_says_yes(history: History) -> None:
    await seeded(history.db, MONTH)
    many(history, 2000, from_h=8 * 24, to_h=29 * 24)
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        run = await swept(engine, yes=True)
    assert (run.state, run.removed) == ("DONE", 2000)


async def test_less_than_a_thousand_are_not_held(history: History) -> None:
    await seeded(history.db, MONTH)
    many(history, 999, from_h=8 * 24, to_h=29 * 24)
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        assert (await swept(engine)).removed == 999


async def test_a_machine_that_was_started_anew_counts_from_the_last_sweep(history: History) -> None:
    boot = Boot()
    async with engine_of(history.db, config=BIG, boot=boot) as engine:
        await engine.set_policy(WEEK, by="ann")
        await swept(engine, yes=True)
    many(history, 1500, from_h=7 * 24 + 1, to_h=7 * 24 + 3)
    back = Boot("boot-2")
    async with engine_of(history.db, config=BIG, boot=back) as engine:
        assert (await swept(engine)).removed == 1500  # due at the last sweep already: no change made them so
    many(history, 1500, from_h=7 * 24 + 1, to_h=7 * 24 + 3)
    move_sweeps_back(history, 10 * HOUR_MS)
    async with engine_of(history.db, config=BIG, boot=Boot("boot-3")) as engine:
        held = await swept(engine)
        assert held.state == "HELD"
        assert "started anew" in held.error
        assert (await until_done(engine, await engine.confirm_run(held.id, by="ann"))).removed == 1500
        assert (await swept(engine)).state == "DONE"


def move_sweeps_back(history: History, ms: int) -> None:
    """As if the last sweeps had been so long ago."""

    def move(conn: Connection) -> None:
        for name in ("clock", "settled"):
            body = mark(conn, name)
            body["database_ms"] -= ms
            body["readings"] = {key: [one, other - ms, *first] for key, (one, other, *first) in body["readings"].items()}
            set_mark(conn, name, body, by="tester")

    history.db.write_sync(move)


async def test_a_small_jump_of_the_clock_is_counted_and_a_large_one_holds_everything(history: History) -> None:
    boot = Boot()
    async with engine_of(history.db, config=BIG, boot=boot) as engine:
        await engine.set_policy(WEEK, by="ann")
        await swept(engine, yes=True)
        many(history, 1500, from_h=7 * 24 + 0.01, to_h=7 * 24 + 0.05)  # due for 36 to 180 s
        boot.ms -= 240_000  # the database's clock is 4 minutes ahead of what the machine lived through
        held = await swept(engine)
        assert held.state == "HELD"
        assert "clock moved by 240 s" in held.error
        boot.ms -= 240_000
        large = await swept(engine)
        assert (large.state, large.policy_version) == ("HELD", 2)
        assert (await until_done(engine, await engine.confirm_run(large.id, by="ann"))).removed == 1500
