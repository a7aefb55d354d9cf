"""What the shrink guard compares with: the last settled policy, however it was left, and what that policy kept."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import engine_of, seeded
from tests.integration.retention.test_sweep_guard import BIG, MONTH, WEEK, many

from darner.core.errors import DarnerError
from darner.db import db_now_ms
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job, job_payload
from darner.retention.engine import RetentionEngine
from darner.retention.ports import RetentionParts
from darner.retention.sql.marks import drop_mark
from darner.retention.sweeper import Ask
from darner.retention.values import Run


async def by_clock(engine: RetentionEngine) -> Run:
    """A sweep as the clock starts it."""
    started = await engine._start(Ask(trigger="schedule", by_clock=True))
    assert started is not None
    sweep, task = started
    await task
    return await engine.find_run(sweep.run_id)


async def until_done(engine: RetentionEngine, run: Run) -> Run:
    """Its end, also of one that takes long."""
    if engine.sweeping is not None:
        await engine.sweeping
    return await engine.find_run(run.id)


def without_settled(history: History) -> None:
    """As a database that an earlier release left: it wrote no such mark."""
    history.db.write_sync(lambda conn: drop_mark(conn, "settled"))


async def test_a_held_removal_stays_held_where_nothing_was_ever_settled(history: History) -> None:
    await seeded(history.db, MONTH)
    without_settled(history)
    many(history, 2000, from_h=1, to_h=29 * 24)
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        assert (await by_clock(engine)).state == "HELD"
        for _ in range(3):
            assert (await by_clock(engine)).removed == 0
        assert len(history.left()) == 2000


async def test_sweeps_that_waited_for_the_window_settle_nothing(history: History) -> None:
    await seeded(history.db, MONTH)
    without_settled(history)
    many(history, 2000, from_h=1, to_h=29 * 24)
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        now = history.db.read_sync(db_now_ms) // 60_000 % 1440
        start, end = ((now + minutes) % 1440 for minutes in (600, 660))
        await engine.set_window(f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}", by="ann")
        assert (await by_clock(engine)).state == "DONE"
        await engine.set_window(None, by="ann")
        assert (await by_clock(engine)).state == "HELD"
        assert len(history.left()) == 2000


def acknowledged_at_once(conn: Connection, ids: Sequence[int], sink: str, now_ms: int) -> None:
    """A sink that has what it is sent."""
    sent(conn, ids, sink, now_ms)
    conn.execute(update(export_outbox).values(acked_at=now_ms))


def sent(conn: Connection, ids: Sequence[int], sink: str, now_ms: int) -> None:
    """A sink that is away."""
    conn.execute(insert(export_outbox), [{"job_id": one, "sink": sink, "created_at": now_ms} for one in ids])


def broken(*_: object) -> None:
    """An outbox that takes nothing."""
    raise DarnerError("the outbox is broken")


EXPORTED: dict[str, Any] = {"rules": [{"name": "default", "hot": "7d", "export": "log"}]}


async def test_jobs_that_could_not_be_sorted_settle_nothing(history: History) -> None:
    await seeded(history.db, MONTH)
    many(history, 2000, from_h=1, to_h=29 * 24)
    async with engine_of(history.db, config=BIG, parts=RetentionParts(enqueue=broken)) as engine:
        await engine.set_policy(EXPORTED, by="ann")
        assert (await by_clock(engine)).state == "FAILED"
    async with engine_of(history.db, config=BIG, parts=RetentionParts(enqueue=acknowledged_at_once)) as engine:
        assert (await by_clock(engine)).state == "HELD"
    assert len(history.left()) == 2000


async def test_jobs_that_wait_for_a_sink_are_counted_before_it_has_them(history: History) -> None:
    await seeded(history.db, {"rules": [{"name": "default", "hot": "30d", "export": "log"}]})
    many(history, 2000, from_h=1, to_h=29 * 24)
    async with engine_of(history.db, config=BIG, parts=RetentionParts(enqueue=sent)) as engine:
        await engine.set_policy(EXPORTED, by="ann")
        assert (await by_clock(engine)).state == "HELD"
        history.db.write_sync(lambda conn: conn.execute(update(export_outbox).values(acked_at=1)))
        assert (await by_clock(engine)).removed == 0


async def test_jobs_that_no_longer_wait_for_a_sink_are_counted(history: History) -> None:
    await seeded(history.db, EXPORTED)
    many(history, 2000, from_h=1, to_h=29 * 24)
    async with engine_of(history.db, config=BIG, parts=RetentionParts(enqueue=sent)) as engine:
        assert (await by_clock(engine)).removed == 0
        await engine.set_policy(WEEK, by="ann")
        held = await by_clock(engine)
        assert (held.state, held.removed) == ("HELD", 0)


@pytest.mark.parametrize(
    "after",
    [{}, {"keep_last": {"count": 1, "per": "url"}}, {"keep_last": {"count": 1, "per": "image"}}, {"name": "other"}],
    ids=["no-more", "fewer", "otherwise", "renamed"],
)
async def test_the_last_successes_that_are_kept_no_more_are_counted(history: History, after: dict[str, Any]) -> None:
    rule = {"name": "default", "hot": "7d", "keep_last": {"count": 2, "per": "url"}}
    await seeded(history.db, {"rules": [rule]})
    many(history, 2400, from_h=8 * 24, to_h=29 * 24)
    asked_for(history, groups=1200)
    async with engine_of(history.db, config=BIG) as engine:
        assert (await until_done(engine, await by_clock(engine))).removed == 0
        rest = {key: value for key, value in rule.items() if key != "keep_last"}
        await engine.set_policy({"rules": [{**rest, **after}]}, by="ann")
        held = await by_clock(engine)
        assert (held.state, held.removed) == ("HELD", 0), held
        assert held.report is not None
        assert held.report["held"]["rows"] >= 1200
        assert (await by_clock(engine)).removed == 0
        assert (await until_done(engine, await engine.confirm_run(held.id, by="ann"))).removed >= 1200
        assert (await by_clock(engine)).state == "DONE"


def asked_for(history: History, *, groups: int) -> None:
    """Requests of jobs, so many different ones."""

    def put(conn: Connection) -> None:
        ids = list(conn.execute(select(job.c.id)).scalars())
        rows = [{"job_id": one, "args": f'{{"url": "http://x/r{n % groups}"}}'} for n, one in enumerate(ids)]
        conn.execute(insert(job_payload), rows)

    history.db.write_sync(put, durable=False)
