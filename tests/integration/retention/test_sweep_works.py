"""Works of other parts in a sweep: in turn, one that fails alone; the sink's gate; and switches that a person has."""

import asyncio
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, update
from tests.integration.retention.history import History, open_history
from tests.integration.retention.sweeping import QUICK, engine_of, seeded, sweep, until

from darner.core.errors import DarnerError, UnavailableError
from darner.core.job import Tier
from darner.db import Database, db_now_ms
from darner.db.tables.export import export_outbox
from darner.db.tables.growth import growth_sample
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_hold, retention_preview
from darner.retention.config import SweepConfig
from darner.retention.policy import HOUR_MS
from darner.retention.ports import RetentionParts
from darner.retention.sql.marks import set_mark
from darner.retention.sweep.moving import MovesWork
from darner.retention.sweep.work import Done, SweepContext
from darner.testing.clock import VirtualClock

SLOW = SweepConfig(first_batch=20, max_batch=20, min_pause_s=0.03)
EXPORTING = {"rules": [{"name": "default", "hot": "6h", "export": "logs"}]}


class Counting:
    """A work with so many batches; `trouble`: what some of them raise."""

    removes = False

    def __init__(self, name: str, batches: int, told: list[str], trouble: Sequence[Exception] = ()) -> None:
        self.name = name
        self._left = batches
        self._told = told
        self._trouble = list(trouble)

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        assert limit > 0
        assert sweep.run_id > 0
        if self._trouble:
            raise self._trouble.pop(0)
        self._told.append(self.name)
        self._left -= 1
        return Done(examined=1, changed=1, more=self._left > 0, held_s=0.0001)


def parts_of(*works: Counting) -> RetentionParts:
    return RetentionParts(works=[lambda work=work: work for work in works])  # type: ignore[misc]


async def test_works_are_done_in_turn(history: History) -> None:
    await seeded(history.db)
    told: list[str] = []
    await sweep(history.db, parts=parts_of(Counting("a", 3, told), Counting("b", 1, told), Counting("c", 2, told)))
    assert "".join(told) == "abcaca"


@pytest.mark.parametrize("error", [DarnerError("no room left"), RuntimeError("a bug")], ids=["told", "bug"])
async def test_a_work_that_fails_does_not_stop_the_others_and_the_run_has_failed(history: History, error: Exception) -> None:
    await seeded(history.db)
    history.add("SUCCEEDED", ended_h=9)
    told: list[str] = []
    parts = parts_of(Counting("bad", 3, told, [error]), Counting("good", 2, told))
    async with engine_of(history.db, parts=parts) as engine:
        run = await engine.run(dry_run=False, by="t")
        assert (run.state, run.removed) == ("FAILED", 1)
        assert run.error == ("bad: no room left" if isinstance(error, DarnerError) else "bad: Unexpected: RuntimeError.")
        assert told == ["good", "good"]
        assert (await engine.status())["last_run"].state == "FAILED"
        assert engine.meters.registry.get_sample_value("darner_retention_work_failures_total", {"work": "bad"}) == 1
        assert engine.meters.registry.get_sample_value("darner_retention_sweeps_total", {"state": "FAILED"}) == 1
        assert engine.meters.registry.get_sample_value("darner_retention_rows_total", {"work": "gone"}) == 1
        assert engine.meters.registry.get_sample_value("darner_retention_hold_seconds_sum", {"work": "gone"})
        assert engine.meters.registry.get_sample_value("darner_retention_wait_seconds_count")


async def test_a_busy_database_slows_a_work_down_and_it_recovers(history: History) -> None:
    await seeded(history.db)
    told: list[str] = []
    busy = [UnavailableError("busy")] * 3
    run = await sweep(history.db, parts=parts_of(Counting("a", 2, told, busy)))
    assert (run.state, told) == ("DONE", ["a", "a"])
    run = await sweep(history.db, parts=parts_of(Counting("a", 2, told, busy * 2), Counting("b", 1, told)))
    assert (run.state, run.error, told) == ("FAILED", "a: busy", ["a", "a", "b"])


async def test_a_job_waits_for_the_sink_of_its_rule(history: History) -> None:
    def enqueue(conn: Connection, ids: Sequence[int], sink: str, now_ms: int) -> None:
        there = set(conn.execute(select(export_outbox.c.job_id).where(export_outbox.c.job_id.in_(ids))).scalars())
        rows = [{"job_id": key, "sink": sink, "created_at": now_ms} for key in ids if key not in there]
        if rows:
            conn.execute(insert(export_outbox), rows)

    await seeded(history.db, EXPORTING)
    keys = [history.add("SUCCEEDED", ended_h=9) for _ in range(30)]
    async with engine_of(history.db, parts=RetentionParts(enqueue=enqueue)) as engine:
        for _ in range(2):
            run = await engine.run(dry_run=False, by="t")
            assert (run.state, run.removed) == ("DONE", 0)
        assert (await engine.run(dry_run=True, by="t")).report["total"] == 0  # type: ignore[index]
        acknowledge = update(export_outbox).where(export_outbox.c.job_id.in_(keys[10:15])).values(acked_at=5)
        history.db.write_sync(lambda conn: conn.execute(acknowledge))
        assert (await engine.run(dry_run=True, by="t")).report["total"] == 5  # type: ignore[index]
        assert (await engine.run(dry_run=False, by="t")).removed == 5
        assert history.left() == keys[:10] + keys[15:]
        history.db.write_sync(lambda conn: conn.execute(update(export_outbox).values(acked_at=5)))
        assert (await engine.run(dry_run=False, by="t")).removed == 25
    left = history.db.read_sync(lambda conn: conn.execute(select(export_outbox)).all())
    assert left == []


async def test_what_ends_is_sorted_soon_without_a_sweep(history: History) -> None:
    await seeded(history.db)
    clock = VirtualClock()
    async with engine_of(history.db, clock=clock, config=SweepConfig(first_after_s=(10_000, 10_000))) as engine:
        history.add("SUCCEEDED", ended_h=0.1)
        async with asyncio.timeout(30):
            while unsorted(history.db) or (await engine.status())["lease"] is not None:
                await clock.advance(2)
                await asyncio.sleep(0.005)
        assert len(await engine.runs()) == 1


def unsorted(db: Database) -> int:
    return len(db.read_sync(lambda conn: conn.execute(select(job.c.id).where(job.c["class"] == 0)).all()))


async def test_a_person_cancels_a_run_of_another_manager(history: History, tmp_path: Path) -> None:
    await seeded(history.db)
    for _ in range(200):
        history.add("SUCCEEDED", ended_h=8, parts=0)
    other = open_history(tmp_path / "darner.db")
    async with engine_of(history.db, config=SLOW) as engine, engine_of(other.db, holder="m2") as face:
        running = asyncio.create_task(engine.run(dry_run=False, by="t"))
        await until(lambda: len(history.left()) <= 170)
        (latest, *_) = await face.runs()
        assert latest.state == "RUNNING"
        await face.cancel_run(latest.id, by="ann")
        run = await running
        assert (run.id, run.state, run.error) == (latest.id, "STOPPED", "A person cancelled the sweep.")
        assert 0 < len(history.left()) < 200
    other.db.close()


async def test_pausing_ends_the_sweep_of_another_manager(history: History, tmp_path: Path) -> None:
    await seeded(history.db)
    for _ in range(200):
        history.add("SUCCEEDED", ended_h=8, parts=0)
    other = open_history(tmp_path / "darner.db")
    async with engine_of(history.db, config=SLOW) as engine, engine_of(other.db, holder="m2") as face:
        running = asyncio.create_task(engine.run(dry_run=False, by="t"))
        await until(lambda: len(history.left()) <= 170)
        await face.pause(paused=True, by="ann")
        run = await running
        assert (run.state, run.error) == ("STOPPED", "Retention was paused during the sweep.")
        assert (await engine.run(dry_run=False, by="t")).state == "DONE"
    other.db.close()


async def test_outside_of_the_window_nothing_is_removed_unless_a_person_says_yes(history: History) -> None:
    await seeded(history.db)
    key = history.add("SUCCEEDED", ended_h=9)
    opens = datetime.now(tz=UTC) + timedelta(hours=2)
    async with engine_of(history.db) as engine:
        await engine.set_window(f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}", by="ann")
        run = await engine.run(dry_run=False, by="t")
        assert (run.state, run.classified, run.removed) == ("DONE", 1, 0)
        assert run.report is not None
        assert abs(run.report["waits_until_at"] - opens.timestamp() * 1000) < 61_000
        assert (await engine.status())["window"]["opens_at"] == run.report["waits_until_at"]
        assert history.left() == [key]
        assert (await engine.run(dry_run=False, by="t", yes=True)).removed == 1


async def test_a_database_brought_back_from_a_backup_is_paused(tmp_path: Path) -> None:
    file, backup = tmp_path / "darner.db", tmp_path / "backup.db"
    before = open_history(file)
    await seeded(before.db)
    key = before.add("SUCCEEDED", ended_h=9)
    before.db.close()
    shutil.copyfile(file, backup)
    now = open_history(file)
    assert (await sweep(now.db)).removed == 1
    now.db.close()
    for leftover in (Path(f"{file}-wal"), Path(f"{file}-shm")):
        leftover.unlink(missing_ok=True)
    shutil.copyfile(backup, file)
    restored = open_history(file)
    async with engine_of(restored.db) as engine:
        run = await engine.run(dry_run=False, by="t")
        assert (run.state, restored.left()) == ("HELD", [key])
        assert "from a backup" in run.error
        status = await engine.status()
        assert status["paused"]
        assert status["paused_reason"] == run.error
        await engine.pause(paused=False, by="ann")
        assert (await engine.run(dry_run=False, by="t")).removed == 1
    restored.db.close()


async def test_an_empty_sweep_by_the_clock_takes_the_place_of_the_one_before(history: History) -> None:
    await seeded(history.db)
    clock = VirtualClock()
    async with engine_of(history.db, clock=clock, config=QUICK) as engine:
        async with asyncio.timeout(60):
            while (await engine.status())["last_run"].id < 6:
                await clock.advance(30)
                await asyncio.sleep(0.002)
        found = [run.trigger for run in await engine.runs()]
        assert len(found) <= 3
        assert found[-1] == "manual: tester"


async def test_a_mark_that_is_wrong_does_not_stop_the_sweeper_for_ever(history: History) -> None:
    await seeded(history.db)
    history.db.write_sync(lambda conn: set_mark(conn, "settled", {}, by="tester"))
    history.add("SUCCEEDED", ended_h=9)
    assert (await sweep(history.db)).removed == 1


async def test_a_sweep_that_cannot_begin_is_in_the_history_once(history: History) -> None:
    await seeded(history.db)
    broken = insert(retention_hold).values(selector='{"of a later version": 1}', reason="x", created_at=1)
    history.db.write_sync(lambda conn: conn.execute(broken))
    key = history.add("SUCCEEDED", ended_h=9)
    clock = VirtualClock()
    async with engine_of(history.db, clock=clock) as engine:
        async with asyncio.timeout(60):
            while (await engine.runs())[0].state != "FAILED":
                await clock.advance(30)
                await asyncio.sleep(0.002)
        for _ in range(30):
            await clock.advance(30)
            await asyncio.sleep(0.002)
        latest, before = await engine.runs()
        assert "of a later version" in latest.error
        assert (latest.trigger, before.state) == ("schedule", "DONE")
        assert history.left() == [key]


async def test_own_records_are_forgotten_after_their_time(history: History) -> None:
    books = {"runs": "48h", "samples": "24h", "audit": "48h"}
    await seeded(history.db, {"rules": [{"name": "default", "hot": "6h"}], "bookkeeping": books})
    now = history.db.read_sync(db_now_ms)

    def put(conn: Connection) -> None:
        conn.execute(insert(growth_sample), [{"at": now - h * HOUR_MS, "slot": h, "body": "{}"} for h in (1, 23, 25, 900)])
        days = [{"token": f"t{n}", "policy_digest": "", "body": "{}", "created_at": now - n * 24 * HOUR_MS} for n in (1, 6, 8, 90)]
        conn.execute(insert(retention_preview), days)

    history.db.write_sync(put)
    await sweep(history.db)
    left = history.db.read_sync(lambda conn: sorted(now - at for at in conn.execute(select(growth_sample.c.at)).scalars()))
    assert left == [HOUR_MS, 23 * HOUR_MS]
    tokens = history.db.read_sync(lambda conn: sorted(conn.execute(select(retention_preview.c.token)).scalars()))
    assert tokens == ["t1", "t6"]


async def test_a_job_that_cannot_be_moved_stops_no_other(history: History) -> None:
    keeping = {"hot": "2h", "warm": "keep"}
    await seeded(history.db, {"rules": [{"name": "bob", "match": {"owners": ["bob"]}, **keeping}, {"name": "rest", **keeping}]})
    keys = [history.add("SUCCEEDED", ended_h=3 + n / 100, owner="bob" if n % 4 == 0 else "ann") for n in range(60)]
    poison = {keys[5], keys[30]}

    def fold(conn: Connection, ids: Sequence[int], _now_ms: int) -> int:
        if poison & set(ids):
            raise ValueError("a bug")
        conn.execute(update(job).where(job.c.id.in_(ids)).values(tier=int(Tier.WARM)))
        return 0

    parts = RetentionParts(works=[lambda: MovesWork("fold", Tier.WARM, fold)])
    for _ in range(2):
        run = await sweep(history.db, parts=parts)
        assert run.state == "FAILED"
        assert f"2 jobs could not be folded: job {keys[30]}: unexpected ValueError" in run.error
        assert {key for key, tier in history.tiers().items() if tier == Tier.HOT} == poison
    poison.clear()
    assert (await sweep(history.db, parts=parts)).folded == 2


async def test_a_job_that_cannot_be_sorted_stops_no_other(history: History) -> None:
    await seeded(history.db)
    broken = history.add("SUCCEEDED", ended_h=8, labels="{no json")
    for _ in range(30):
        history.add("SUCCEEDED", ended_h=7)
    run = await sweep(history.db)
    assert (run.state, run.removed, history.left()) == ("FAILED", 30, [broken])
    assert f"1 job could not be sorted: job {broken}" in run.error
