"""Warm jobs read like hot ones, take less room, and are not lost when things happen at the same time."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from darner.core.errors import DarnerError, NotFoundError
from darner.core.job import DetailState, Tier
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import history_dictionary, job, job_event, job_fold, job_part, job_payload, job_secret
from darner.history.codec import Codec
from darner.history.dictionary import Trained, store, store_none, train_type, types_to_train
from darner.history.fold import fold_jobs
from darner.history.record import to_bytes
from darner.history.redact import redact_record
from darner.history.rows import put_record, read_records
from darner.jobs.events import JobQuery
from darner.jobs.sql import SqlHistory
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.ports import RetentionParts
from darner.retention.sql.remove import erase_jobs
from darner.retention.works.dictionaries import DictionaryWork
from darner.retention.works.fold import fold_work
from darner.testing.history import Shape, fill

HOUR_MS = 3_600_000
JOBS = 900


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database.open(f"sqlite:///{tmp_path}/history.db")
    migrate(made)
    now = made.read_sync(db_now_ms)
    fill(made, Shape(jobs=JOBS, newest_ms=now - 7 * HOUR_MS, step_ms=1000, block=JOBS))
    yield made
    made.close()


def count(db: Database, table: Any) -> int:
    return db.read_sync(lambda conn: int(conn.execute(select(func.count()).select_from(table)).scalar_one()))


async def seen(history: SqlHistory, query: JobQuery) -> list[Any]:
    return [
        (found.id, found.state, found.summary, found.error, found.owner, found.uuid, args)
        for found, args in await history.page(query)
    ]


QUERIES = (
    JobQuery(limit=50),
    JobQuery(states=(DetailState.FAILED, DetailState.PARTIAL), limit=30),
    JobQuery(owner="user-7", limit=30),
    JobQuery(type="gc", limit=30),
    JobQuery(text="svc-3/blobs", limit=30),
    JobQuery(text="answered 503", limit=30),
    JobQuery(before_id=500, limit=30),
    JobQuery(limit=20, offset=100),
    JobQuery(cluster_id=1, limit=10),
)


async def test_lists_details_parts_and_timelines_are_the_same_in_both_tiers(db: Database) -> None:
    codec = Codec()
    history = SqlHistory(db, codec)
    ids = list(range(1, JOBS + 1))
    lists = [await seen(history, query) for query in QUERIES]
    counts = [await history.count(query, at_most=10_000) for query in QUERIES]
    details = [await history.details(key) for key in ids[::50]]
    parts = [await history.parts(key) for key in ids[::50]]
    events = [await history.events(key, after_id=(key - 1) * 4 + 2) for key in ids[::50]]
    assert all(lists)
    db.write_sync(lambda conn: fold_jobs(conn, ids, codec))
    assert count(db, job_payload) == count(db, job_part) == count(db, job_event) == 0
    assert [await seen(history, query) for query in QUERIES] == lists
    assert [await history.count(query, at_most=10_000) for query in QUERIES] == counts
    for before in details:
        after = await history.details(before.job.id)
        assert after.job.tier == Tier.WARM
        assert (after.args, after.result, after.cluster_ids) == (before.args, before.result, before.cluster_ids)
    assert [await history.parts(key) for key in ids[::50]] == parts
    assert [await history.events(key, after_id=(key - 1) * 4 + 2) for key in ids[::50]] == events
    assert all(len(lines) == 2 for lines in events)


def test_a_trained_dictionary_makes_jobs_at_least_five_times_smaller(db: Database) -> None:
    codec = Codec()
    assert db.read_sync(lambda conn: types_to_train(conn, 0)) == ["preheat"]
    trained = db.read_sync(lambda conn: train_type(conn, "preheat", codec))
    assert trained.ratio >= 5
    db.write_sync(lambda conn: store(conn, trained, db_now_ms(conn)))
    db.write_sync(codec.refresh)
    db.write_sync(lambda conn: fold_jobs(conn, range(1, JOBS + 1), codec))
    lengths = select(func.sum(job_fold.c.raw_len), func.sum(func.length(job_fold.c.body))).where(job_fold.c.dict_id > 0)
    before, after = db.read_sync(lambda conn: conn.execute(lengths).one())
    assert before / after >= 5
    # Another process reads them without having been told of the dictionary.
    assert len(db.read_sync(lambda conn: read_records(conn, [1, 2, 3], Codec()))) == 3
    assert db.read_sync(lambda conn: types_to_train(conn, db_now_ms(conn))) == []


def test_a_dictionary_that_fits_badly_is_trained_anew(db: Database) -> None:
    def promise(conn: Connection) -> None:
        trained = train_type(conn, "preheat", Codec())
        store(conn, trained, now_ms=0)
        conn.execute(update(history_dictionary).values(ratio_percent=100_000))

    db.write_sync(promise)
    codec = Codec()
    db.write_sync(codec.refresh)
    db.write_sync(lambda conn: fold_jobs(conn, range(1, 700), codec))
    db.write_sync(lambda conn: conn.execute(update(job).values(tier=0)))
    assert db.read_sync(lambda conn: types_to_train(conn, db_now_ms(conn))) == ["preheat"]


def test_a_missing_dictionary_is_told_and_a_damaged_blob_too(db: Database) -> None:
    db.write_sync(lambda conn: fold_jobs(conn, [1, 2], Codec()))
    db.write_sync(lambda conn: conn.execute(update(job_fold).where(job_fold.c.job_id == 1).values(dict_id=99)))
    db.write_sync(lambda conn: conn.execute(update(job_fold).where(job_fold.c.job_id == 2).values(body=b"no frame")))
    with pytest.raises(NotFoundError, match="Dictionary 99"):
        db.read_sync(lambda conn: read_records(conn, [1], Codec()))
    with pytest.raises(DarnerError, match="cannot be read"):
        db.read_sync(lambda conn: read_records(conn, [2], Codec()))


def test_a_record_that_is_put_back_is_the_same_job(db: Database) -> None:
    codec = Codec()
    [before] = db.read_sync(lambda conn: read_records(conn, [77], codec))
    now = db.read_sync(db_now_ms)
    db.write_sync(lambda conn: erase_jobs(conn, [77], now))
    db.write_sync(lambda conn: put_record(conn, before, codec, now_ms=now, values={"held": 1}))
    [after] = db.read_sync(lambda conn: read_records(conn, [77], codec))
    assert (after.args, after.result, after.clusters, after.parts) == (before.args, before.result, before.clusters, before.parts)
    assert after.events == before.events
    assert (after.job["held"], after.job["uuid"], after.job["summary"]) == (1, before.job["uuid"], before.job["summary"])


async def test_a_sweep_folds_what_is_past_its_hot_time_with_a_dictionary_of_its_own(db: Database) -> None:
    codec = Codec()
    parts = RetentionParts(works=(partial(DictionaryWork, codec), partial(fold_work, codec)))
    db.write_sync(lambda conn: conn.execute(update(job).where(job.c.id > 890).values(finished_at=db_now_ms(conn) - HOUR_MS * 2)))
    db.write_sync(lambda conn: conn.execute(update(job).where(job.c.id > 890).values(base_at=job.c.finished_at)))
    async with RetentionEngine(db, config=SweepConfig(first_after_s=(3600, 3600)), parts=parts) as engine:
        await engine.set_policy({"rules": [{"name": "all", "hot": "6h", "warm": "30d"}]}, by="ann")
        run = await engine.run(dry_run=False, by="ann")
        while run.finished_at is None:
            run = await engine.find_run(run.id)
        assert (run.state, run.folded, run.removed) == ("DONE", 890, 0)
        assert run.bytes > 0
    assert count(db, job_fold) == 890
    tiers = select(job.c.tier, func.count()).group_by(job.c.tier)
    assert dict(db.read_sync(lambda conn: [tuple(row) for row in conn.execute(tiers)])) == {Tier.HOT: 10, Tier.WARM: 890}
    used = db.read_sync(lambda conn: conn.execute(select(func.count()).where(job_fold.c.dict_id > 0)).scalar_one())
    assert used > 600


def test_a_line_told_of_a_warm_job_is_in_its_timeline(db: Database) -> None:
    codec = Codec()
    db.write_sync(lambda conn: fold_jobs(conn, [5], codec))
    db.write_sync(lambda conn: conn.execute(insert(job_event).values(job_id=5, at=1, kind="held", message="held by ann")))
    [record] = db.read_sync(lambda conn: read_records(conn, [5], codec))
    assert [event["kind"] for event in record.events] == ["created", "planned", "running", "ended", "held"]


def test_blobs_are_written_and_read_by_many_threads_at_once(db: Database) -> None:
    codec = Codec()
    trained = db.read_sync(lambda conn: train_type(conn, "preheat", codec))
    db.write_sync(lambda conn: store(conn, trained, 1))
    db.read_sync(codec.refresh)
    records = db.read_sync(lambda conn: [redact_record(one) for one in read_records(conn, range(1, 200), codec)])
    wrong: list[object] = []

    def work() -> None:
        for record in records:
            raw = repr(record).encode()
            folded = codec.fold("preheat", raw)
            if codec.unfold(folded.dict_id, folded.body) != raw:
                wrong.append(record)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_jobs_that_are_warm_already_make_a_dictionary_too(db: Database) -> None:
    codec = Codec()
    db.write_sync(lambda conn: fold_jobs(conn, range(1, JOBS + 1), codec))
    assert db.read_sync(lambda conn: types_to_train(conn, 0)) == ["preheat"]
    assert db.read_sync(lambda conn: train_type(conn, "preheat", codec)).ratio >= 5


def test_what_makes_no_dictionary_is_not_tried_again_at_once(db: Database) -> None:
    codec, day = Codec(), 24 * HOUR_MS
    db.write_sync(lambda conn: store_none(conn, "preheat", day))
    assert db.read_sync(lambda conn: types_to_train(conn, 2 * day - 1)) == []
    assert db.read_sync(lambda conn: types_to_train(conn, 2 * day)) == ["preheat"]
    db.write_sync(lambda conn: store_none(conn, "preheat", 2 * day))
    assert count(db, history_dictionary) == 1
    db.read_sync(codec.refresh)
    db.write_sync(lambda conn: fold_jobs(conn, [1, 2], codec))
    used = db.read_sync(lambda conn: set(conn.execute(select(job_fold.c.dict_id)).scalars()))
    assert used == {0}


def test_a_dictionary_that_makes_nothing_smaller_is_refused(db: Database) -> None:
    useless = Trained(job_type="gc", body=b"x", samples=500, ratio=0.9)
    with pytest.raises(DarnerError, match="nothing smaller"):
        db.write_sync(lambda conn: store(conn, useless, 1))


async def test_a_type_that_cannot_be_trained_does_not_stop_a_sweep(db: Database) -> None:
    def same(conn: Connection) -> None:
        conn.execute(update(job).values(type="gc", uuid="", summary="", error="", bytes_total=0, started_at=None))
        conn.execute(update(job_payload).values(args="{}", result=None))
        for table in (job_part, job_event):
            conn.execute(delete(table))

    db.write_sync(same)
    codec = Codec()
    parts = RetentionParts(works=(partial(DictionaryWork, codec), partial(fold_work, codec)))
    async with RetentionEngine(db, config=SweepConfig(first_after_s=(3600, 3600)), parts=parts) as engine:
        await engine.set_policy({"rules": [{"name": "all", "hot": "6h", "warm": "30d"}]}, by="ann")
        run = await engine.run(dry_run=False, by="ann")
        while run.finished_at is None:
            run = await engine.find_run(run.id)
        assert (run.state, run.folded) == ("DONE", JOBS)
    assert len(db.read_sync(lambda conn: read_records(conn, range(1, JOBS + 1), Codec()))) == JOBS


async def test_a_damaged_job_is_shown_as_what_is_left_of_it_and_hides_no_other(db: Database) -> None:
    codec = Codec()
    db.write_sync(lambda conn: fold_jobs(conn, range(JOBS - 9, JOBS + 1), codec))
    damaged: dict[int, dict[str, Any]] = {
        JOBS: {"dict_id": 99},
        JOBS - 3: {"body": b"no frame"},
        JOBS - 5: {"body": Codec().fold("x", b"[]").body},
    }

    def damage(conn: Connection) -> None:
        for key, values in damaged.items():
            conn.execute(update(job_fold).where(job_fold.c.job_id == key).values(values))

    db.write_sync(damage)
    history = SqlHistory(db, codec)
    page = {found.id: found for found, _ in await history.page(JobQuery(limit=12))}
    assert list(page) == list(range(JOBS, JOBS - 12, -1))
    for key in damaged:
        assert "Dictionary 99" in page[key].error or "cannot be read" in page[key].error
        shown = await history.details(key)
        assert (shown.job.error, shown.job.owner, shown.args) == (page[key].error, page[key].owner, {})
        with pytest.raises(DarnerError):
            await history.events(key)
    assert all(page[key].summary for key in page if key not in damaged)
    assert await history.page(JobQuery(text="registry", limit=5))


def test_no_planted_secret_is_left_in_any_table_when_a_job_was_folded(db: Database) -> None:
    texts = (
        "Authorization: Bearer {}",
        "https://u:{}@o.example/a",
        "https://o.example/a?X-Amz-Signature={}",
        "password={}",
        "q-ak={}",
    )
    canary = "CANARY-0123456789"

    def plant(conn: Connection) -> None:
        for key, text in enumerate(texts, 1):
            said = text.format(canary)
            columns = dict.fromkeys(("summary", "error", "bio", "tag", "application", "hold_reason"), said)
            conn.execute(update(job).where(job.c.id == key).values(columns))
            args = {"url": said, "headers": {"Authorization": canary, "Cookie": canary}, "password": canary, "deep": [{"x": said}]}
            result = {"job_states": [{"error": said, "results": [{"failure_tasks": [{"description": said}]}]}]}
            payload = {"args": orjson.dumps(args).decode(), "result": orjson.dumps(result).decode()}
            conn.execute(update(job_payload).where(job_payload.c.job_id == key).values(payload))
            hosts = orjson.dumps([{"hostname": "h", "ip": "1.2.3.4", "state": "FAILED", "error": said}])
            conn.execute(update(job_part).where(job_part.c.job_id == key).values(url=said, error=said, hosts=hosts))
            conn.execute(update(job_event).where(job_event.c.job_id == key).values(message=said))
            conn.execute(insert(job_secret).values(job_id=key, sealed=canary.encode()))

    db.write_sync(plant)
    ids = list(range(1, len(texts) + 1))
    db.write_sync(lambda conn: fold_jobs(conn, ids, Codec()))
    records = db.read_sync(lambda conn: read_records(conn, ids, Codec()))
    assert [len(one.parts) for one in records] == [1] * len(texts)
    assert canary.encode() not in b"".join(to_bytes(one) for one in records)
    assert all(one.args["redacted"] for one in records)

    def everything(conn: Connection) -> str:
        return "".join(repr(conn.execute(select(table)).all()) for table in (job, job_payload, job_part, job_event, job_secret))

    assert canary not in db.read_sync(everything)
