"""The exporter with a twin in the sink's place: everything arrives, in the face of all that can happen on the way."""

import asyncio
import json

import pytest
from tests.integration.retention.export.jobs import Jobs, config, one_backlog, until

from darner.core.errors import ConflictError, NotFoundError
from darner.db import delete_among
from darner.db.tables.export import export_outbox
from darner.retention.export import outbox
from darner.retention.export.ports import Limits, SinkAwayError
from darner.retention.export.runner import ExportPace
from darner.retention.export.sinks.memory import MemorySink
from darner.retention.export.values import Document


def keys(sink: MemorySink) -> list[str]:
    return [one.key for one in sink.taken]


async def test_what_waits_is_delivered_once_in_order_and_acknowledged(jobs: Jobs) -> None:
    ids = jobs.add(25)
    sink = MemorySink(Limits(documents=10))
    async with jobs.twin(sink):
        await until(lambda: jobs.acknowledged() == ids)
    assert [one.job_id for one in sink.taken] == ids
    assert max(sink.batches) == 10
    assert sink.closed


async def test_what_comes_later_is_seen_and_told_at_once(jobs: Jobs) -> None:
    sink = MemorySink()
    async with jobs.twin(sink) as exporter:
        ids = jobs.add(3, sink=None)
        await jobs.db.write(lambda conn: exporter.enqueue(conn, ids, "log", 1))
        await until(lambda: jobs.acknowledged() == ids)
        more = jobs.add(2)
        await until(lambda: jobs.acknowledged() == [*ids, *more])


async def test_warm_and_hot_jobs_give_the_same_document(jobs: Jobs) -> None:
    ids = jobs.add(4, text="x")
    hot, warm = MemorySink(), MemorySink()
    async with jobs.twin(hot):
        await until(lambda: jobs.acknowledged() == ids)
    jobs.fold(ids)
    jobs.set_outbox(acked_at=None)
    async with jobs.twin(warm):
        await until(lambda: jobs.acknowledged() == ids)
    assert [one.body for one in warm.taken] == [one.body for one in hot.taken]


async def test_a_sink_that_is_away_is_asked_again_and_loses_nothing(jobs: Jobs) -> None:
    ids = jobs.add(5)
    sink = MemorySink()
    sink.away = SinkAwayError("It is away.")
    async with jobs.twin(sink) as exporter:
        await until(lambda: len(sink.batches) > 3)
        found = await one_backlog(exporter)
        assert (found.pending, found.delivered, found.refused) == (5, 0, 0)
        assert found.failing is not None
        assert found.failing.error == "It is away."
        assert found.oldest_age_s >= 0
        sink.away = None
        await until(lambda: jobs.acknowledged() == ids)
        found = await one_backlog(exporter)
        assert (found.pending, found.delivered, found.failing, found.oldest_at) == (0, 5, None, None)
        assert found.last_error == "It is away."


class Recording:
    """A clock that notes waits of runners and does not wait; what runs beside them sleeps for good."""

    def __init__(self, pace: ExportPace) -> None:
        self.waits: list[float] = []
        self._beside = {pace.lease_ttl_s / 3, pace.mend_s}

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        if seconds in self._beside:
            await asyncio.Event().wait()
        self.waits.append(seconds)


@pytest.mark.parametrize(("asked", "least", "most"), [(None, 0.5, 300.0), (120.0, 120.0, 300.0), (1e9, 3600.0, 3600.0)])
async def test_a_sink_that_is_away_for_hours_is_asked_less_and_less_often(
    jobs: Jobs, asked: float | None, least: float, most: float
) -> None:
    ids = jobs.add(2)
    sink = MemorySink()
    sink.away = SinkAwayError("It is away.", retry_after_s=asked)
    clock = Recording(ExportPace())
    async with jobs.twin(sink, pace=ExportPace(), clock=clock):
        await until(lambda: len(clock.waits) > 15)
        waits = clock.waits[:15]
        assert least <= min(waits) <= max(waits) <= most
        assert max(waits) >= 150.0 or asked == 120.0
        sink.away = None
        await until(lambda: jobs.acknowledged() == ids)


@pytest.mark.parametrize("named", [False, True])
async def test_a_job_that_a_sink_refuses_is_set_aside_with_its_reason_and_the_others_go_on(jobs: Jobs, *, named: bool) -> None:
    ids = jobs.add(64)
    bad = {ids[0], ids[31], ids[63]}
    sink = MemorySink(refuses=lambda one: "unwanted" if one.job_id in bad else "")
    sink.names_refused = named
    async with jobs.twin(sink) as exporter:
        await until(lambda: jobs.acknowledged() == [key for key in ids if key not in bad])
        while (found := await one_backlog(exporter)).refused < 3:
            pass
        assert (found.pending, found.refused, found.failing) == (3, 3, None)
        assert {(one.job_id, one.attempts, one.error) for one in found.refusals} == {(key, 1, "unwanted") for key in bad}
        sink.refuses = lambda _: ""
        assert await exporter.retry("log", by="me") == 3
        await until(lambda: jobs.acknowledged() == ids)
    assert sorted(keys(sink)) == sorted(set(keys(sink)))


async def test_a_sink_that_refuses_everything_is_away_not_full_of_bad_jobs(jobs: Jobs) -> None:
    ids = jobs.add(40)
    sink = MemorySink(refuses=lambda _: "unauthorised")
    async with jobs.twin(sink) as exporter:
        await until(lambda: len(sink.batches) > 20)
        found = await one_backlog(exporter)
        assert found.failing is not None
        assert "unauthorised" in found.failing.error
        sink.refuses = lambda _: ""
        await exporter.retry("log", by="me")
        await until(lambda: jobs.acknowledged() == ids)


async def test_many_jobs_that_are_refused_for_good_hold_up_no_new_one(jobs: Jobs) -> None:
    bad = set(jobs.add(60))
    good = jobs.add(1)
    sink = MemorySink(refuses=lambda one: "unwanted" if one.job_id in bad else "")
    async with jobs.twin(sink) as exporter:
        while (await one_backlog(exporter)).refused < 60:
            pass
        jobs.set_outbox(not_before=outbox.RETRY_FIRST_MS)  # they are due again, all of them
        jobs.db.write_sync(lambda conn: conn.exec_driver_sql("UPDATE export_outbox SET created_at = 1 WHERE acked_at IS NULL"))
        sink.batches.clear()
        good += jobs.add(5)
        await until(lambda: jobs.acknowledged() == good)
        assert len(sink.batches) <= 25, "new jobs need not wait until all others were tried again"
        while (found := await one_backlog(exporter)).refusals[0].attempts < 2:
            pass
        assert found.failing is None


async def test_one_sink_that_is_away_holds_up_no_other(jobs: Jobs) -> None:
    away, good = MemorySink(), MemorySink()
    away.away = SinkAwayError("It is away.")
    ids = jobs.add(5, sink="good")
    jobs.add(5, sink="away")
    sinks = {"away": away, "good": good}
    async with jobs.exporter(config("away"), config("good"), make=lambda one: sinks[one.name]):
        await until(lambda: jobs.acknowledged("good") == ids)
    assert jobs.acknowledged("away") == []


async def test_a_sink_that_breaks_in_an_unforeseen_way_is_one_that_is_away(jobs: Jobs) -> None:
    ids = jobs.add(2)
    broken = iter([True, True, False])

    class Broken(MemorySink):
        async def deliver(self, batch: "list[Document]") -> None:  # type: ignore[override]
            if next(broken, False):
                raise RuntimeError("canary-in-an-error")
            await super().deliver(batch)

    async with jobs.twin(Broken()) as exporter:
        await until(lambda: jobs.acknowledged() == ids)
        found = await one_backlog(exporter)
        assert "RuntimeError" in found.last_error
        assert "canary" not in found.last_error


async def test_a_job_that_cannot_be_read_stops_nobody(jobs: Jobs) -> None:
    ids = jobs.add(5)
    jobs.fold(ids[2:3])
    jobs.db.write_sync(lambda conn: conn.exec_driver_sql("UPDATE job_fold SET body = X'00'"))
    async with jobs.twin(MemorySink()) as exporter:
        await until(lambda: jobs.acknowledged() == [*ids[:2], *ids[3:]])
        found = await one_backlog(exporter)
        assert found.pending == found.refused == 1
        assert "cannot be read" in found.refusals[0].error


async def test_a_job_that_is_gone_is_counted_and_waited_for_no_more(jobs: Jobs) -> None:
    ids = jobs.add(3)
    jobs.remove(ids[1])
    async with jobs.twin(MemorySink()) as exporter:
        await until(lambda: jobs.acknowledged() == [ids[0], ids[2]])
        found = await one_backlog(exporter)
        assert (found.pending, found.lost) == (0, 1)


async def test_rows_of_jobs_that_went_without_them_are_removed_in_time(jobs: Jobs) -> None:
    ids = jobs.add(3)
    async with jobs.twin(MemorySink()):
        await until(lambda: jobs.acknowledged() == ids)
        jobs.remove(ids[1])
        await until(lambda: jobs.acknowledged() == [ids[0], ids[2]])


@pytest.mark.parametrize("off_ms", [-10 * 365 * 86_400_000, 10 * 365 * 86_400_000])
async def test_rows_made_by_a_wrong_clock_are_delivered_all_the_same(jobs: Jobs, off_ms: int) -> None:
    ids = jobs.add(3)
    now = (
        jobs.db.read_sync(lambda conn: int(conn.exec_driver_sql("SELECT CAST(strftime('%s','now') AS INTEGER)").scalar_one()))
        * 1000
    )
    jobs.set_outbox(created_at=now + off_ms, not_before=now + off_ms)
    async with jobs.twin(MemorySink()) as exporter:
        await until(lambda: jobs.acknowledged() == ids)
        assert (await one_backlog(exporter)).refused == 0


async def test_a_lease_that_a_wrong_clock_gave_for_years_holds_nobody_up(jobs: Jobs) -> None:
    ids = jobs.add(1)
    jobs.db.write_sync(
        lambda conn: conn.exec_driver_sql(
            "INSERT INTO lease (name, holder, epoch, until) VALUES ('retention-export', 'dead', 7, 99999999999999)"
        )
    )
    pace = ExportPace(poll_s=0.02, lease_ttl_s=0.3)
    async with jobs.twin(MemorySink(), pace=pace):
        await until(lambda: jobs.acknowledged() == ids)


async def test_two_managers_deliver_each_job_once_and_one_takes_over_from_the_other(jobs: Jobs) -> None:
    first, second = MemorySink(), MemorySink()
    ids = jobs.add(50)
    pace = ExportPace(poll_s=0.02, lease_ttl_s=0.3)
    async with jobs.twin(first, pace=pace, holder="a"):
        await until(lambda: jobs.acknowledged() == ids)
        async with jobs.twin(second, pace=pace, holder="b"):
            more = jobs.add(10)
            await until(lambda: jobs.acknowledged() == [*ids, *more])
            assert second.taken == []
    async with jobs.twin(second, pace=pace, holder="b"):
        rest = jobs.add(10)
        await until(lambda: jobs.acknowledged() == [*ids, *more, *rest])
    assert [one.job_id for one in (*first.taken, *second.taken)] == [*ids, *more, *rest]


async def test_a_manager_that_lost_the_lease_acknowledges_nothing(jobs: Jobs) -> None:
    ids = jobs.add(3)
    started, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemorySink):
        async def deliver(self, batch: "list[Document]") -> None:  # type: ignore[override]
            started.set()
            await go_on.wait()
            await super().deliver(batch)

    slow = Slow()
    async with jobs.twin(slow, holder="slow"):
        await started.wait()
        await jobs.db.write(lambda conn: conn.exec_driver_sql("UPDATE lease SET holder = 'other', epoch = epoch + 1"))
        go_on.set()
        await until(lambda: slow.closed)
        assert jobs.acknowledged() == []
    assert len(slow.taken) == len(ids)


async def test_a_delivery_under_way_is_waited_for_when_the_manager_stops(jobs: Jobs) -> None:
    ids = jobs.add(3)
    started, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemorySink):
        async def deliver(self, batch: "list[Document]") -> None:  # type: ignore[override]
            started.set()
            await go_on.wait()
            await super().deliver(batch)

    async with jobs.twin(Slow()):
        await started.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert jobs.acknowledged() == ids


async def test_a_sink_that_left_the_configuration_is_told_of_and_can_be_forgotten(jobs: Jobs) -> None:
    jobs.add(4, sink="old")
    async with jobs.twin(MemorySink()) as exporter:
        found = await one_backlog(exporter, "old")
        assert (found.configured, found.pending, found.kind) == (False, 4, "")
        with pytest.raises(ConflictError):
            await exporter.drop("log", by="me")
        with pytest.raises(NotFoundError):
            await exporter.drop("never", by="me")
        with pytest.raises(NotFoundError):
            await exporter.retry("never", by="me")
        assert await exporter.drop("old", by="me") == 4
        assert [one.name for one in await exporter.backlog()] == ["log"]


def test_being_put_on_the_way_twice_is_once(jobs: Jobs) -> None:
    ids = jobs.add(3)
    assert jobs.db.write_sync(lambda conn: outbox.enqueue(conn, ids, "log", 5)) == 0
    more = jobs.add(1, sink=None)
    assert jobs.db.write_sync(lambda conn: outbox.enqueue(conn, [*ids, *more], "log", 5)) == 1
    assert jobs.db.write_sync(lambda conn: outbox.enqueue(conn, ids, "other", 5)) == 3
    jobs.db.write_sync(lambda conn: delete_among(conn, export_outbox, export_outbox.c.job_id, ids))
    assert jobs.db.write_sync(lambda conn: outbox.enqueue(conn, [*ids, *more], "log", 5)) == 3


async def test_a_job_with_very_many_parts_is_cut_and_a_batch_of_such_is_bounded(jobs: Jobs) -> None:
    ids = jobs.add(4, parts=3000)
    sink = MemorySink()
    async with jobs.twin(sink):
        await until(lambda: jobs.acknowledged() == ids)
    assert all(len(one.body) <= 256 * 1024 for one in sink.taken)
    assert all(json.loads(one.body)["truncated"]["parts"] > 0 for one in sink.taken)


def test_what_is_due_is_found_by_the_index_alone(jobs: Jobs) -> None:
    jobs.add(3)
    text = str(outbox.due_statement("log", 5, 10).compile(jobs.db.engine, compile_kwargs={"literal_binds": True}))
    plan = jobs.db.read_sync(lambda conn: [str(row[3]) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")])
    assert len(plan) == 1
    assert "USING INDEX ix_export_outbox_sink (sink=? AND acked_at=? AND not_before<?)" in plan[0]
