"""Jobs of all tiers on every database: folded in bulk, read and searched alike, changed by others meanwhile, put back."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update

from darner.core.errors import ConflictError, NotFoundError
from darner.core.job import DetailState, Importance, JobType, Tier
from darner.db import Database, db_now_ms
from darner.db.tables.jobs import JOB_TABLES, history_dictionary, job, job_cluster, job_event, job_fold, job_part, job_payload
from darner.history.codec import Codec
from darner.history.dictionary import store, train_type, types_to_train
from darner.history.fold import fold_jobs
from darner.history.record import JobRecord
from darner.history.rows import put_record, read_records
from darner.history.twins import ArchiveTwin
from darner.jobs.events import Describe, Hold, JobQuery, Limits, NewJob, Release, Remove
from darner.jobs.sql import SqlHistory, SqlJobBook
from darner.jobs.view import job_json, part_json
from darner.retention.sql.remove import erase_jobs
from darner.testing.history import Shape, fill

JOBS = 700
HOUR_MS = 3_600_000
QUERIES = (
    JobQuery(limit=40),
    JobQuery(states=(DetailState.FAILED, DetailState.PARTIAL), limit=40),
    JobQuery(owner="user-7", limit=40),
    JobQuery(type="gc", limit=40),
    JobQuery(text="SVC-1/blobs", limit=40),
    JobQuery(text="answered 503", limit=40),
    JobQuery(text="100%", limit=40),
    JobQuery(before_id=300, limit=40),
    JobQuery(cluster_id=1, limit=40, offset=5),
    JobQuery(cluster_id=2, limit=40),
    JobQuery(tiers=(Tier.HOT, Tier.WARM), limit=40),
)


@pytest.fixture
def history(database: Database) -> Database:
    now = database.read_sync(db_now_ms)
    fill(database, Shape(jobs=JOBS, newest_ms=now - 7 * HOUR_MS, step_ms=1000, block=JOBS))
    return database


def dictionaries(db: Database, codec: Codec) -> None:
    for kind in db.read_sync(lambda conn: types_to_train(conn, 0)):
        trained = db.read_sync(lambda conn, kind=kind: train_type(conn, kind, codec))  # type: ignore[misc]
        db.write_sync(lambda conn, trained=trained: store(conn, trained, 1))  # type: ignore[misc]
    db.read_sync(codec.refresh)


async def seen(history: SqlHistory, query: JobQuery) -> list[Any]:
    def told(found: Any) -> Any:
        return (found.id, found.uuid, found.state, found.summary, found.error, found.bio, found.started_at, found.bytes_total)

    return [(told(found), args) for found, args in await history.page(query)]


async def test_warm_jobs_are_read_as_hot_ones_were(history: Database) -> None:
    codec, ids = Codec(), range(1, JOBS + 1)
    reader = SqlHistory(history, codec)
    dictionaries(history, codec)
    led = {"lease_holder": "w-1", "lease_id": "secret", "attempts": 2, "target_count": 3, "verified": 1, "digest": "sha256:1"}
    history.write_sync(lambda conn: conn.execute(update(job_part).values(led)))
    lists = [await seen(reader, query) for query in QUERIES]
    counts = [await reader.count(query, at_most=9_999) for query in QUERIES]
    some = ids[::70]
    before = [(await reader.details(key), await reader.parts(key), await reader.events(key)) for key in some]
    freed = history.write_sync(lambda conn: fold_jobs(conn, ids, codec))
    assert freed > 0
    assert [await seen(reader, query) for query in QUERIES] == lists
    assert [await reader.count(query, at_most=9_999) for query in QUERIES] == counts
    for key, (details, parts, events) in zip(some, before, strict=True):
        after = await SqlHistory(history).details(key)
        assert (after.job.tier, after.args, after.result, after.cluster_ids) == (
            Tier.WARM, details.args, details.result, details.cluster_ids,
        )  # fmt: skip
        assert job_json(after.job) == {**job_json(details.job), "tier": "warm"}
        assert [part_json(one) for one in await reader.parts(key)] == [part_json(one) for one in parts]
        assert parts[0].lease_holder == "w-1"
        assert await reader.events(key) == events
    left = {table.name: history.read_sync(count_of(table)) for table in JOB_TABLES}
    assert {name for name, count in left.items() if count} == {job.name, job_cluster.name, job_fold.name}
    assert history.write_sync(lambda conn: fold_jobs(conn, ids, codec)) == 0, "folded once is folded"


async def test_what_people_do_to_warm_jobs_and_to_removed_ones(history: Database) -> None:
    codec = Codec()
    book, reader = SqlJobBook(history, Limits()), SqlHistory(history)
    dictionaries(history, codec)
    history.write_sync(lambda conn: fold_jobs(conn, [5, 6, 7], codec))
    await book.act(5, Describe("größer 🙂"), by="ann")
    await book.act(5, Hold("audit", until=None), by="ann")
    with pytest.raises(ConflictError, match="audit"):
        await book.act(5, Remove(), by="ann")
    found = (await reader.details(5)).job
    assert (found.bio, found.held, found.hold_reason, bool(found.summary)) == ("größer 🙂", True, "audit", True)
    assert [one.id for one, _ in await reader.page(JobQuery(text="GRÖSSER"))] in ([5], [])
    await book.act(5, Release(), by="ann")
    for key in (5, 8):
        await book.act(key, Remove(), by="ann")
        with pytest.raises(NotFoundError, match="removed"):
            await book.act(key, Release(), by="ann")
    assert [one.id for one, _ in await reader.page(JobQuery(tiers=(Tier.DELETED,)))] == [8, 5]
    assert await reader.count(JobQuery(), at_most=9_999) == JOBS - 2
    assert await reader.count(JobQuery(tiers=(Tier.DELETED, Tier.HOT)), at_most=9_999) == JOBS - 2
    for key, tier in ((5, Tier.WARM), (8, Tier.HOT)):
        await book.act(key, Hold("back"), by="bob")
        again = (await reader.details(key)).job
        assert (again.tier, again.base_at, again.held) == (tier, again.finished_at, True)
        assert [line.kind for line in await reader.events(key)][-3:] == ["removed", "restored", "held"]
    ids = [line.id for line in await reader.events(5)]
    assert ids == sorted(ids)


async def test_an_idempotency_key_outlives_folding(history: Database) -> None:
    book = SqlJobBook(history, Limits())
    new = NewJob(
        uuid="u", type=JobType.PREHEAT, owner="ann", summary="s", bio="", tag="t", application="", priority=6, timeout_ms=9_000,
        cluster_ids=(1, 2), args={"url": "https://o.example/a", "tag": "secret: x", "n": 2**53}, sealed=b"s",
        idempotency_key="k" * 64, labels={"team": "größer"}, importance=Importance.HIGH,
    )  # fmt: skip
    key, fresh = await book.create(new)
    assert fresh
    assert await book.create(new) == (key, False)
    history.write_sync(lambda conn: conn.execute(update(job).where(job.c.id == key).values(state="FAILED", finished_at=1)))
    history.write_sync(lambda conn: fold_jobs(conn, [key], Codec()))
    assert await book.create(new) == (key, False)
    found = (await SqlHistory(history).details(key)).job
    assert (found.labels, found.importance) == ({"team": "größer"}, Importance.HIGH)


def test_a_record_comes_back_as_it_was(history: Database) -> None:
    codec = Codec()
    dictionaries(history, codec)
    [before] = history.read_sync(lambda conn: read_records(conn, [77], codec))
    now = history.read_sync(db_now_ms)
    history.write_sync(lambda conn: erase_jobs(conn, [77], now))
    history.write_sync(lambda conn: put_record(conn, before, codec, now_ms=now, values={"held": 1, "hold_reason": "restored"}))
    [after] = history.read_sync(lambda conn: read_records(conn, [77], codec))
    same = ("args", "result", "clusters", "parts", "events")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    changed = {name for name in before.job if before.job[name] != after.job[name]}
    assert changed <= {"tier", "held", "hold_reason", "class", "base_at", "updated_at"}


async def test_jobs_of_an_archive_and_of_the_database_are_one_list(history: Database) -> None:
    codec = Codec()
    archive = ArchiveTwin(take_out(history, [*range(100, 140), *range(300, 310), 1, JOBS], codec))
    # A job that moves just now is in both: the database's is shown.
    archive.records |= {one.id: one for one in history.read_sync(lambda conn: read_records(conn, [50, 51], codec))}
    history.write_sync(lambda conn: fold_jobs(conn, range(1, JOBS, 2), codec))
    reader = SqlHistory(history, codec, archive)
    walked: list[int] = []
    while page := await reader.page(JobQuery(limit=37, before_id=walked[-1] if walked else None)):
        walked += [found.id for found, _ in page]
        tiers = {found.id: found.tier for found, _ in page}
        assert all((tier == Tier.ARCHIVE) == (key in archive.records and key not in {50, 51}) for key, tier in tiers.items())
    assert walked == list(range(JOBS, 0, -1))
    assert (await reader.details(120)).job.tier == Tier.ARCHIVE
    assert (await reader.details(50)).job.tier == Tier.HOT
    assert len(await reader.events(120)) == 4
    with pytest.raises(NotFoundError):
        await reader.details(JOBS + 1)


def take_out(db: Database, ids: Sequence[int], codec: Codec) -> list[JobRecord]:
    """Records of jobs that are removed from the database."""
    records = db.read_sync(lambda conn: read_records(conn, ids, codec))
    now = db.read_sync(db_now_ms)
    db.write_sync(lambda conn: erase_jobs(conn, ids, now))
    return records


TOUCHED = range(1, JOBS + 1, 7)


def test_jobs_that_others_change_while_they_are_folded_are_neither_lost_nor_doubled(history: Database) -> None:
    """One thread folds as a sweep does (lock, judge, act); others hold and describe."""
    codec = Codec()
    dictionaries(history, codec)
    book = SqlJobBook(history, Limits(), codec=codec)

    def fold(first: int) -> None:
        history.write_sync(lambda conn: fold_free(conn, range(first, first + 25), codec))

    together(
        [(fold, range(1, JOBS + 1, 25))],
        [(lambda key: asyncio.run(book.act(key, Hold(f"h-{key}"), by="ann")), TOUCHED)],
        [(lambda key: asyncio.run(book.act(key, Describe(f"bio-{key}"), by="bob")), TOUCHED)],
    )
    records = {one.id: one for one in history.read_sync(lambda conn: read_records(conn, range(1, JOBS + 1), codec))}
    assert len(records) == JOBS
    for key, record in records.items():
        check_whole(history, record, bio=f"bio-{key}" if key in TOUCHED else "")
    assert history.read_sync(count_of(job_fold)) >= JOBS - len(TOUCHED)


def test_readers_see_whole_jobs_while_they_are_folded(history: Database) -> None:
    codec = Codec()
    dictionaries(history, codec)
    reader, done = SqlHistory(history, codec), threading.Event()

    def fold(first: int) -> None:
        history.write_sync(lambda conn: fold_free(conn, range(first, first + 5), codec))
        if first + 5 > JOBS:
            done.set()

    def look(_: int) -> None:
        while not done.is_set():
            page = asyncio.run(reader.page(JobQuery(limit=JOBS)))
            assert [found.id for found, _ in page] == list(range(JOBS, 0, -1))
            assert all(args and found.summary for found, args in page)

    def look_closely(_: int) -> None:
        key = 0
        while not done.is_set():
            key = key % JOBS + 1
            details = asyncio.run(reader.details(key))
            assert details.args
            assert details.result
            assert len(asyncio.run(reader.parts(key))) == 1
            assert len(asyncio.run(reader.events(key))) == 4

    def look_at_records(_: int) -> None:
        while not done.is_set():
            for record in history.read_sync(lambda conn: read_records(conn, range(1, JOBS, 9), codec)):
                assert record.args
                assert (len(record.parts), len(record.events), len(record.clusters)) == (1, 4, 1)

    together([(fold, range(1, JOBS + 1, 5))], [(look, [0])], [(look_closely, [0])], [(look_at_records, [0])])
    assert history.read_sync(count_of(job_fold)) == JOBS


def check_whole(db: Database, record: JobRecord, *, bio: str) -> None:
    """The job is whole, in one tier, and what was done to it is there."""
    assert record.args
    assert len(record.parts) == 1
    assert [line["kind"] for line in record.events][:4] == ["created", "planned", "running", "ended"]
    assert (record.job["bio"], record.job["held"]) == (bio, int(bool(bio)))
    folded = db.read_sync(rows_of(job_fold, record.id))
    assert folded + db.read_sync(rows_of(job_payload, record.id)) == 1, "in one tier, not in two"
    assert (record.job["tier"] == Tier.WARM) == bool(folded)


def together(*works: Sequence[tuple[Callable[[int], object], Sequence[int]]]) -> None:
    """Each in a thread of its own, begun at the same moment."""
    start, wrong = threading.Barrier(len(works)), []

    def run(work: Sequence[tuple[Callable[[int], object], Sequence[int]]]) -> None:
        start.wait(timeout=60)
        try:
            for act, keys in work:
                for key in keys:
                    act(key)
        except BaseException as error:  # noqa: BLE001  (told by the test's thread)
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not wrong


def fold_free(conn: Connection, ids: Sequence[int], codec: Codec) -> None:
    """As a sweep does: lock what is hot and not held, skipping what others have, then fold."""
    free = select(job.c.id).where(job.c.id.in_(ids), job.c.tier == int(Tier.HOT), job.c.held == 0)
    fold_jobs(conn, [int(key) for key in conn.execute(free.with_for_update(skip_locked=True)).scalars()], codec)


def count_of(table: Any) -> Callable[[Connection], int]:
    return lambda conn: int(conn.execute(select(func.count()).select_from(table)).scalar_one())


def rows_of(table: Any, key: int) -> Callable[[Connection], int]:
    return lambda conn: int(conn.execute(select(func.count()).select_from(table).where(table.c.job_id == key)).scalar_one())


async def test_a_search_that_costs_too_much_stops_and_goes_on_from_there(history: Database) -> None:
    codec = Codec()
    archive = ArchiveTwin(take_out(history, range(1, 51), codec))
    history.write_sync(lambda conn: fold_jobs(conn, range(1, JOBS + 1), codec))
    everything = [one.id for one, _ in await SqlHistory(history, codec, archive).page(JobQuery(text="svc-3/", limit=JOBS))]
    assert len(everything) > 20
    short = SqlHistory(history, codec, archive, look_at_most=60)
    walked: list[int] = []
    before, stops = None, 0
    while True:
        page = await short.page(JobQuery(text="svc-3/", limit=20, before_id=before))
        walked += [found.id for found, _ in page]
        if page.stopped_at is not None:
            stops, before = stops + 1, page.stopped_at[1]
        elif page:
            before = walked[-1]
        else:
            break
    assert walked == everything
    assert stops > 3


def test_dictionaries_get_new_numbers_and_old_blobs_keep_theirs(history: Database) -> None:
    codec = Codec()
    dictionaries(history, codec)
    history.write_sync(lambda conn: fold_jobs(conn, range(1, 300), codec))
    trained = history.read_sync(lambda conn: train_type(conn, "preheat", codec))
    history.write_sync(lambda conn: store(conn, trained, 2))
    history.read_sync(codec.refresh)
    history.write_sync(lambda conn: fold_jobs(conn, range(300, 600), codec))
    used = select(job_fold.c.dict_id).where(job_fold.c.dict_id > 0).distinct()
    assert len(history.read_sync(lambda conn: list(conn.execute(used).scalars()))) == 2
    assert len(history.read_sync(lambda conn: read_records(conn, range(1, 600), Codec()))) == 599
    assert history.read_sync(count_of(history_dictionary)) == 2


def test_a_job_with_long_texts_and_many_parts_is_folded_whole(history: Database) -> None:
    rows = [
        {"job_id": 9, "cluster_id": 5, "ordinal": n, "url": f"https://o/{n}", "state": "SUCCEEDED", "hosts": b"[]", "created_at": 1,
         "updated_at": 2, "error": "é" * 1024}
        for n in range(3_000)
    ]  # fmt: skip

    def make(conn: Connection) -> None:
        conn.execute(insert(job_part), rows)
        conn.execute(insert(job_event), [{"job_id": 9, "at": n, "kind": "note", "message": "ü" * 1024} for n in range(500)])
        conn.execute(update(job_payload).where(job_payload.c.job_id == 9).values(result='{"x":"' + "y" * 3_000_000 + '"}'))

    history.write_sync(make)
    codec = Codec()
    [before] = history.read_sync(lambda conn: read_records(conn, [9], codec))
    history.write_sync(lambda conn: fold_jobs(conn, [9], codec))
    [after] = history.read_sync(lambda conn: read_records(conn, [9], codec))
    assert (after.parts, after.events, after.result) == (before.parts, before.events, before.result)
