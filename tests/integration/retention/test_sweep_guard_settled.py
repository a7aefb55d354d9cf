"""What the shrink guard compares with: the last settled policy, however it was left, and what that policy kept."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import Boot, engine_of, seeded, until_done
from tests.integration.retention.test_sweep_guard import BIG, MONTH, WEEK, many, move_sweeps_back

from darner.core.errors import ConflictError, DarnerError
from darner.db import db_now_ms
from darner.db.tables.archive import archive_segment
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job, job_payload
from darner.db.tables.retention import lease
from darner.retention.archive.expiry import ExpiryWork
from darner.retention.engine import RetentionEngine
from darner.retention.parse import policy_from_json
from darner.retention.policy import HOUR_MS
from darner.retention.ports import RetentionParts
from darner.retention.rules import Order
from darner.retention.sql.marks import drop_mark, mark, set_mark
from darner.retention.sweeper import Ask
from darner.retention.values import Run


async def by_clock(engine: RetentionEngine) -> Run:
    """A sweep as the clock starts it."""
    started = await engine._start(Ask(trigger="schedule", by_clock=True))
    assert started is not None
    sweep, task = started
    await task
    return await engine.find_run(sweep.run_id)


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


def let_pass(history: History, boot: Boot, ms: int, *, jobs: bool = False, boots: bool = True) -> None:
    """So much time goes by: whatever was written is older by that, and the machine has run on (`boots` False: it was off)."""
    move_sweeps_back(history, ms)

    def older(conn: Connection) -> None:
        held = mark(conn, "held-back")
        if held:
            set_mark(conn, "held-back", {**held, "again_at": held["again_at"] - ms}, by="tester")
        moved = {name: job.c[name] - ms for name in ("created_at", "finished_at", "base_at", "updated_at")}
        if jobs:
            conn.execute(update(job).values(moved))

    history.db.write_sync(older)
    if boots:
        boot.ms += ms


async def test_a_weekend_off_makes_nothing_due_that_did_not_get_old(history: History) -> None:
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        assert (await by_clock(engine)).state == "DONE"
    many(history, 3000, from_h=5 * 24, to_h=6.9 * 24)
    off = Boot("boot-2")
    let_pass(history, off, 60 * HOUR_MS, jobs=True, boots=False)
    async with engine_of(history.db, config=BIG, boot=off) as engine:
        held = await by_clock(engine)
        assert held.state == "HELD"
        assert "started anew" in held.error
        assert "an outage if the clock runs evenly for an hour" in held.error
        let_pass(history, off, HOUR_MS // 2)
        assert (await by_clock(engine)).removed == 0
        let_pass(history, off, HOUR_MS // 2)
        assert (await until_done(engine, await by_clock(engine))).removed > 2000
        assert (await engine.status())["removal_held"] is None


async def test_a_clock_that_is_set_right_after_the_start_is_a_jump_not_an_outage(history: History) -> None:
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        assert (await by_clock(engine)).state == "DONE"
    many(history, 3000, from_h=5 * 24, to_h=6.9 * 24)
    off = Boot("boot-2")
    let_pass(history, off, 60 * HOUR_MS, jobs=True, boots=False)  # the clock that the machine started with is wrong
    async with engine_of(history.db, config=BIG, boot=off) as engine:
        assert (await by_clock(engine)).state == "HELD"
        off.ms += HOUR_MS + 10 * 60_000
        let_pass(history, off, HOUR_MS, boots=False)  # ten minutes are taken back
        held = await by_clock(engine)
        assert (held.state, held.removed) == ("HELD", 0)
        assert "jumped back" in held.error


async def test_an_outage_of_weeks_is_for_a_person_to_look_at(history: History) -> None:
    async with engine_of(history.db, config=BIG) as engine:
        await engine.set_policy(WEEK, by="ann")
        assert (await by_clock(engine)).state == "DONE"
    many(history, 3000, from_h=5 * 24, to_h=6.9 * 24)
    off = Boot("boot-2")
    let_pass(history, off, 8 * 24 * HOUR_MS, jobs=True, boots=False)
    async with engine_of(history.db, config=BIG, boot=off) as engine:
        held = await by_clock(engine)
        assert held.state == "HELD"
        let_pass(history, off, 2 * HOUR_MS)
        assert (await by_clock(engine)).removed == 0
        assert (await until_done(engine, await engine.confirm_run(held.id, by="ann"))).removed == 3000


async def test_a_confirmed_policy_is_no_accepted_clock(history: History) -> None:
    await seeded(history.db, MONTH)
    many(history, 2000, from_h=1, to_h=6 * 24)
    many(history, 2000, from_h=8 * 24, to_h=29 * 24)
    boot = Boot()
    async with engine_of(history.db, config=BIG, boot=boot) as engine:
        await engine.set_policy(WEEK, by="ann")
        held = await by_clock(engine)
        boot.ms -= 90 * 24 * HOUR_MS  # the database's clock jumps ahead by three months
        again = await engine.confirm_run(held.id, by="ann")
        assert (again.state, again.removed) == ("HELD", 0)
        assert "jumped ahead" in again.error
        assert (await engine.policy()).confirmed_at is None


async def test_an_accepted_clock_is_no_confirmed_policy(history: History) -> None:
    await seeded(history.db, MONTH)
    many(history, 2000, from_h=8 * 24, to_h=29 * 24)
    boot = Boot()
    async with engine_of(history.db, config=BIG, boot=boot) as engine:
        await engine.set_policy(WEEK, by="ann")
        boot.ms -= 90 * 24 * HOUR_MS
        jumped = await engine.run(dry_run=False, by="t", yes=True)
        assert (jumped.state, jumped.report) == ("HELD", {"refused": "clock"})
        assert (await engine.policy()).confirmed_at is None
        held = await engine.confirm_run(jumped.id, by="ann")
        assert (held.state, held.removed) == ("HELD", 0)
        assert "the policy was tightened" in held.error
        assert (await until_done(engine, await engine.confirm_run(held.id, by="ann"))).removed == 2000


async def test_a_database_from_a_backup_is_not_confirmed_but_resumed(history: History) -> None:
    await seeded(history.db, MONTH)
    async with engine_of(history.db, config=BIG) as engine:
        assert (await engine.run(dry_run=False, by="t")).state == "DONE"
        history.db.write_sync(lambda conn: conn.execute(update(lease).values(epoch=0)))
        held = await engine.run(dry_run=False, by="t")
        assert (held.state, held.report) == ("HELD", {"refused": "restored"})
        with pytest.raises(ConflictError, match="resume"):
            await engine.confirm_run(held.id, by="ann")


async def test_a_window_in_a_zone_that_is_not_known_here_is_closed(history: History) -> None:
    await seeded(history.db)
    history.add("FAILED", ended_h=7)
    history.db.write_sync(lambda conn: set_mark(conn, "window", {"window": "22:00-06:00", "zone": "Nowhere/City"}, by="t"))
    async with engine_of(history.db) as engine:
        assert (await engine.status())["window"] == {"window": "22:00-06:00", "zone": "Nowhere/City", "opens_at": None}
        waits = await engine.run(dry_run=False, by="t")
        assert (waits.state, waits.classified, waits.removed) == ("DONE", 1, 0)
        assert (await engine.run(dry_run=False, by="t", yes=True)).removed == 1


async def test_archived_jobs_that_are_kept_longer_do_not_make_up_for_others(history: History) -> None:
    def archived(conn: Connection) -> None:
        now = db_now_ms(conn)
        common = {"state": "LIVE", "policy_version": 1, "epoch": 1, "created_at": now, "row_count": 5000}
        times = {"slow": now - 50 * 24 * HOUR_MS, "quick": now - 20 * 24 * HOUR_MS}
        conn.execute(insert(archive_segment), [{**common, "rule": name, "max_base_at": at} for name, at in times.items()])

    history.db.write_sync(archived)
    before, after = (Order(policy=policy_from_json(kept_for(*ages))) for ages in (("40d", "30d"), ("60d", "10d")))
    work = ExpiryWork(None, {})  # type: ignore[arg-type]  # no file is read

    def count(conn: Connection) -> int:
        now = db_now_ms(conn)
        return work.rows_due_anew(conn, after, now, before=before, then_ms=now)

    assert history.db.read_sync(count) == 5000


def kept_for(slow: str, quick: str) -> dict[str, Any]:
    """Two rules that archive."""
    ages = {"slow": slow, "quick": quick}
    return {"rules": [{"name": name, "match": {"owners": [name]}, "hot": "6h", "archive": age} for name, age in ages.items()]}
