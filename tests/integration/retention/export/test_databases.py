"""The outbox on each kind of database."""

import asyncio
import threading
from functools import partial

import pytest
from tests.integration.retention.export.jobs import Jobs, config, one_backlog, prepared, until

from darner.db import Database, db_now_ms
from darner.retention.export import outbox
from darner.retention.export.ports import Limits, SinkAwayError
from darner.retention.export.sinks.memory import MemorySink
from darner.retention.export.values import Waiting


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return prepared(database)


def due_jobs(jobs: Jobs, now_ms: int) -> list[int]:
    """Those that were never refused, then those that were."""
    lanes = [jobs.db.read_sync(partial(outbox.due, sink="log", now_ms=now_ms, limit=100, refused=lane)) for lane in (False, True)]
    return [one.job_id for lane in lanes for one in lane]


def test_a_row_goes_from_waiting_to_acknowledged_once(jobs: Jobs) -> None:
    ids = jobs.add(4)
    now = jobs.db.read_sync(db_now_ms)
    assert jobs.db.write_sync(lambda conn: outbox.enqueue(conn, ids, "log", now)) == 0
    assert due_jobs(jobs, now) == ids
    rows = jobs.db.read_sync(lambda conn: outbox.due(conn, "log", now, 2))
    keys = [one.id for one in rows]
    assert jobs.db.write_sync(lambda conn: outbox.acknowledge(conn, "log", keys, now)) == 2
    assert jobs.db.write_sync(lambda conn: outbox.acknowledge(conn, "log", keys, now)) == 0
    assert due_jobs(jobs, now) == ids[2:]
    (found,) = jobs.db.read_sync(lambda conn: outbox.backlog(conn, {"log": "ndjson"}, now))
    assert (found.pending, found.delivered, found.refused, found.acked_at) == (2, 2, 0, now)


def test_a_refused_row_goes_behind_the_others_and_waits_longer_each_time(jobs: Jobs) -> None:
    ids = jobs.add(3)
    now = jobs.db.read_sync(db_now_ms)
    first = jobs.db.read_sync(lambda conn: outbox.due(conn, "log", now, 1))[0]
    waits = []
    for attempts in range(12):
        row = Waiting(id=first.id, job_id=first.job_id, attempts=attempts)
        jobs.db.write_sync(partial(outbox.set_aside, row=row, reason="ß" * 2000, now_ms=now))
        (found,) = jobs.db.read_sync(lambda conn: outbox.backlog(conn, {}, now))
        waits.append(found.refusals[0].next_at - now)
    assert waits[:3] == [60_000, 120_000, 240_000]
    assert waits[-1] == outbox.RETRY_CAP_MS
    assert due_jobs(jobs, now) == ids[1:]
    assert due_jobs(jobs, now + outbox.RETRY_CAP_MS) == [*ids[1:], ids[0]]
    assert jobs.db.write_sync(lambda conn: outbox.retry(conn, "log", 9)) == 1
    assert due_jobs(jobs, now) == [*ids[1:], ids[0]] or due_jobs(jobs, now) == ids
    assert jobs.db.write_sync(lambda conn: outbox.heal_times(conn, "log", now, 9)) == 0, "a wait that may be is left alone"
    assert jobs.db.write_sync(lambda conn: outbox.heal_times(conn, "log", now - 86_400_000, 2)) == 2
    assert jobs.db.write_sync(lambda conn: outbox.heal_times(conn, "log", now - 86_400_000, 2)) == 1
    assert set(due_jobs(jobs, now)) == set(ids)


def test_failures_are_counted_until_something_is_taken(jobs: Jobs) -> None:
    jobs.add(1)
    for at in (10, 20, 30):
        jobs.db.write_sync(partial(outbox.note_failure, sink="log", reason="away", now_ms=at))
    (found,) = jobs.db.read_sync(lambda conn: outbox.backlog(conn, {}, 100))
    assert found.failing is not None
    assert (found.failing.since, found.failing.at, found.failing.times) == (10, 30, 3)
    jobs.db.write_sync(lambda conn: outbox.acknowledge(conn, "log", [], 40))
    (found,) = jobs.db.read_sync(lambda conn: outbox.backlog(conn, {}, 100))
    assert (found.failing, found.last_error, found.last_error_at) == (None, "away", 30)


def test_rows_without_a_job_and_sinks_without_a_use_go(jobs: Jobs) -> None:
    ids = jobs.add(3)
    rows = [one.id for one in jobs.db.read_sync(lambda conn: outbox.due(conn, "log", 2**62, 10))]
    jobs.db.write_sync(lambda conn: outbox.acknowledge(conn, "log", rows[:1], 5))
    for key in ids[:2]:
        jobs.remove(key)
    assert jobs.db.write_sync(lambda conn: outbox.drop_lost(conn, "log", rows)) == 1
    after = jobs.db.write_sync(lambda conn: outbox.sweep_orphans(conn, 0, 100))
    assert after == rows[2]
    assert jobs.db.write_sync(lambda conn: outbox.sweep_orphans(conn, after, 100)) == 0
    assert due_jobs(jobs, 2**62) == ids[2:]
    assert jobs.acknowledged() == []
    ids += jobs.add(4)
    dropped = [jobs.db.write_sync(lambda conn: outbox.drop_sink(conn, "log", 2)) for _ in range(3)]
    assert dropped == [(2, False), (2, False), (1, True)]
    assert jobs.db.read_sync(outbox.known_names) == []


def test_the_first_jobs_of_a_sink_put_in_by_many_at_once_are_all_there(jobs: Jobs) -> None:
    ids = jobs.add(20, sink=None)
    threads = [
        threading.Thread(target=jobs.db.write_sync, args=(lambda conn: outbox.enqueue(conn, ids, "log", 5),)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert due_jobs(jobs, 5) == ids


async def test_an_exporter_delivers_through_trouble(jobs: Jobs) -> None:
    ids = jobs.add(30)
    jobs.fold(ids[:10])
    sink = MemorySink(Limits(documents=8))
    sink.away = SinkAwayError("It is away.")
    async with jobs.twin(sink) as exporter:
        await until(lambda: len(sink.batches) > 2)
        sink.away = None
        await until(lambda: jobs.acknowledged() == ids)
        assert (await one_backlog(exporter)).delivered == 30
    assert [one.job_id for one in sink.taken] == ids


async def test_two_managers_share_the_work_without_doing_it_twice(jobs: Jobs) -> None:
    sinks = {"a": MemorySink(), "b": MemorySink()}
    async with jobs.twin(sinks["a"], config(), holder="a"), jobs.twin(sinks["b"], config(), holder="b"):
        ids = []
        for _ in range(5):
            ids += jobs.add(7)
            await asyncio.sleep(0.02)
        await until(lambda: jobs.acknowledged() == ids)
    assert sorted(one.job_id for sink in sinks.values() for one in sink.taken) == ids


def test_what_a_sink_lost_in_a_span_of_time_waits_again(jobs: Jobs) -> None:
    ids = jobs.add(6)
    rows = [one.id for one in jobs.db.read_sync(lambda conn: outbox.due(conn, "log", 2**62, 10))]
    for number, row in enumerate(rows):
        jobs.db.write_sync(partial(outbox.acknowledge, sink="log", rows=[row], now_ms=100 + number))
    again = partial(outbox.send_again, sink="log", between=(101, 104), limit=4)
    assert jobs.db.write_sync(partial(again, after=0)) == (3, rows[3])
    assert jobs.db.write_sync(partial(again, after=rows[3])) == (1, rows[5])
    assert jobs.db.write_sync(partial(again, after=rows[5])) == (0, 0)
    assert due_jobs(jobs, 2**62) == ids[1:5]
    assert jobs.acknowledged() == [ids[0], ids[5]]
    (found,) = jobs.db.read_sync(lambda conn: outbox.backlog(conn, {}, 100))
    assert (found.pending, found.delivered) == (4, 2)
