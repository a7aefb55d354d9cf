"""Jobs of all tiers over HTTP: one list, filters, removal with undo, holds; an archive in memory, the real retention room."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, select, update

from darner.access import TokenService, Vault
from darner.app import problems
from darner.core.errors import UnavailableError
from darner.core.job import Tier
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import job, job_event, job_fold
from darner.db.tables.retention import retention_hold
from darner.history.codec import Codec
from darner.history.fold import fold_jobs
from darner.history.record import JobRecord
from darner.history.rows import put_record, read_records
from darner.history.twins import ArchiveTwin
from darner.jobs.config import JobsConfig
from darner.jobs.engine import JobPorts, JobsEngine, limits_of
from darner.jobs.rest import router
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.jobs.twins import ClustersTwin, ResolverTwin
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.ports import RetentionParts
from darner.retention.sql.remove import erase_jobs
from darner.testing.history import Shape, fill

HOUR_MS = 3_600_000
JOBS = 60


@dataclass(frozen=True, kw_only=True)
class Face:
    """A manager's job routes. Of the jobs 1 … 60, older ones first, 1 … 20 are archived, 21 … 40 warm, the others hot."""

    api: httpx.AsyncClient
    db: Database
    archive: ArchiveTwin
    codec: Codec
    first_ms: int

    async def ids(self, **query: Any) -> list[int]:
        """The ids that a list shows."""
        answer = await self.api.get("/api/v1/jobs", params={"per_page": 100, **query})
        assert answer.status_code == 200, answer.text
        return [one["id"] for one in answer.json()]


@pytest.fixture
async def face(tmp_path: Path) -> AsyncIterator[Face]:
    async with AsyncExitStack() as stack:
        db = Database.open(f"sqlite:///{tmp_path}/darner.db")
        stack.callback(db.close)
        migrate(db)
        now = db.read_sync(db_now_ms)
        fill(db, Shape(jobs=JOBS, newest_ms=now - 7 * HOUR_MS, step_ms=1000))
        codec = Codec()
        archive = ArchiveTwin(_archived(db, codec, now))
        db.write_sync(lambda conn: fold_jobs(conn, range(21, 41), codec))

        async def restore(job_id: int) -> bool:
            record = archive.records.pop(job_id, None)
            if record is None:
                return False
            values = {"held": 1, "hold_reason": "restored from the archive"}
            db.write_sync(lambda conn: put_record(conn, record, codec, now_ms=now, values=values))
            return True

        parts = RetentionParts(restore_archived=restore)
        config = SweepConfig(first_after_s=(3600, 3600), prompt_s=3600)
        retention = await stack.enter_async_context(RetentionEngine(db, config=config, parts=parts))
        await retention.set_policy({"rules": [{"name": "all", "hot": "6h", "warm": "90d", "undo": "24h"}]}, by="ann")
        app = await _app(db, codec, archive, retention, tmp_path)
        _, token = await app.state.tokens.create("ann", ["job"])
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        transport = httpx.ASGITransport(app=app)
        api = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://manager", headers=headers))
        yield Face(api=api, db=db, archive=archive, codec=codec, first_ms=now - 7 * HOUR_MS - (JOBS - 1) * 1000)


def _archived(db: Database, codec: Codec, now: int) -> list[JobRecord]:
    records = db.read_sync(lambda conn: read_records(conn, range(1, 21), codec))
    db.write_sync(lambda conn: erase_jobs(conn, range(1, 21), now))
    return records


async def _app(db: Database, codec: Codec, archive: ArchiveTwin, retention: RetentionEngine, directory: Path) -> FastAPI:
    limits = limits_of(JobsConfig())
    ports = JobPorts(
        book=SqlJobBook(db, limits, codec=codec),
        work=SqlWorkBook(db, limits),
        history=SqlHistory(db, codec, archive),
        clusters=ClustersTwin(),
        resolver=ResolverTwin(),
        retention=retention,
        vault=Vault.at(directory / "key"),
    )
    app = FastAPI()
    problems.install(app)
    app.state.tokens = TokenService(db)
    app.include_router(router(JobsEngine(JobsConfig(), ports)))
    return app


async def test_one_list_holds_the_jobs_of_all_tiers_and_each_says_its_own(face: Face) -> None:
    assert await face.ids() == list(range(60, 0, -1))
    found = (await face.api.get("/api/v1/jobs", params={"per_page": 100})).json()
    assert [one["tier"] for one in found] == ["hot"] * 20 + ["warm"] * 20 + ["archive"] * 20
    assert all(one["retention"]["tier"] == one["tier"] for one in found)
    assert all(one["summary"] and one["uuid"] and one["args"] for one in found)


async def test_a_walk_by_keyset_shows_each_job_once(face: Face) -> None:
    seen: list[int] = []
    while page := await face.ids(per_page=7, **({"before_id": seen[-1]} if seen else {})):
        seen += page
    assert seen == list(range(60, 0, -1))


async def test_pages_by_number_are_of_the_database_and_their_total_too(face: Face) -> None:
    answer = await face.api.get("/api/v1/jobs", params={"page": 2, "per_page": 30})
    assert [one["id"] for one in answer.json()] == list(range(30, 20, -1))
    assert "page=2&per_page=30>;rel=last" in answer.headers["Link"]
    assert await face.ids(page=1) == list(range(60, 20, -1))
    assert await face.ids(page=3, per_page=20) == []


async def test_tiers_are_filters_and_removed_jobs_are_shown_only_when_asked_for(face: Face) -> None:
    assert (await face.api.delete("/api/v1/jobs/59")).status_code == 200
    assert (await face.api.delete("/api/v1/jobs/33")).status_code == 200
    assert await face.ids(tier="hot") == [60, *range(58, 40, -1)]
    assert await face.ids(tier="warm") == [*range(40, 33, -1), *range(32, 20, -1)]
    assert await face.ids(tier="archive") == list(range(20, 0, -1))
    assert await face.ids(tier="deleted") == [59, 33]
    assert await face.ids(tier=["hot", "archive"]) == [60, *range(58, 40, -1), *range(20, 0, -1)]
    assert await face.ids(tier=["deleted", "hot"], per_page=3) == [60, 59, 58]
    assert set(await face.ids()) == set(range(1, 61)) - {59, 33}
    answer = await face.api.get("/api/v1/jobs", params={"tier": "cold"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "tier")
    answer = await face.api.get("/api/v1/jobs", params={"tier": "archive", "page": 1})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "page")


async def test_since_and_until_bound_all_tiers_alike(face: Face) -> None:
    def moment(number: int) -> str:
        return datetime.fromtimestamp((face.first_ms + (number - 1) * 1000) / 1000, tz=UTC).isoformat()

    bounds = {"since": moment(15), "until": moment(45)}
    assert await face.ids(**bounds) == list(range(44, 14, -1))
    assert await face.ids(until="6h") == list(range(60, 0, -1))
    assert await face.ids(since="6h") == []
    for name in ("since", "until"):
        answer = await face.api.get("/api/v1/jobs", params={name: "yesterday"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, name)


async def test_text_is_found_in_every_tier(face: Face) -> None:
    def texts(record: JobRecord) -> str:
        return f"{record.job['summary']} {record.job['error']}"

    rows = face.db.read_sync(lambda conn: read_records(conn, range(1, 61), face.codec))
    everything = [*rows, *face.archive.records.values()]
    for text in ("registry-3", "SVC-1/", "answered", "no such thing"):
        wanted = sorted((one.id for one in everything if text.lower() in texts(one).lower()), reverse=True)
        assert await face.ids(text=text) == wanted


async def test_a_removed_job_is_told_to_be_restorable_and_comes_back(face: Face) -> None:
    await face.api.delete("/api/v1/jobs/30")
    for path in ("30", "30/parts", "30/events"):
        answer = await face.api.get(f"/api/v1/jobs/{path}")
        assert answer.status_code == 404
        assert "was removed; it can be restored until 20" in answer.json()["detail"]
        assert (await face.api.get(f"/api/v1/jobs/{path}", params={"tier": "deleted"})).status_code == 200
    assert (await face.api.get("/api/v1/jobs/30", params={"tier": "deleted"})).json()["is_del"] == 1
    assert (await face.api.delete("/api/v1/jobs/30")).status_code == 404
    back = (await face.api.post("/api/v1/jobs/30:restore")).json()
    assert (back["tier"], back["held"], back["hold_reason"], back["is_del"]) == ("warm", True, "restored by ann", 0)
    kinds = [one["kind"] for one in (await face.api.get("/api/v1/jobs/30/events")).json()]
    assert kinds[-3:] == ["removed", "restored", "held"]
    assert (await face.api.post("/api/v1/jobs/30:restore")).status_code == 200, "twice is once"
    assert (await face.api.post("/api/v1/jobs/31:restore")).status_code == 409
    assert (await face.api.post("/api/v1/jobs/999:restore")).status_code == 404


async def test_a_hold_has_an_end_and_brings_archived_and_removed_jobs_back(face: Face) -> None:
    await face.api.delete("/api/v1/jobs/25")
    for job_id in (5, 25, 45):
        held = await face.api.post(f"/api/v1/jobs/{job_id}:hold", json={"reason": "audit", "until": "30d"})
        assert held.status_code == 200, held.text
        assert (held.json()["held"], held.json()["hold_reason"]) == (True, "audit")
    assert [one["tier"] for one in (await face.api.get("/api/v1/jobs", params={"per_page": 100})).json() if one["held"]] == [
        "hot", "warm", "warm",
    ]  # fmt: skip
    rows = face.db.read_sync(lambda conn: conn.execute(select(retention_hold.c.job_id, retention_hold.c.until)).all())
    now = face.db.read_sync(db_now_ms)
    assert sorted(row.job_id for row in rows) == [5, 25, 45]
    assert all(29 * 24 * HOUR_MS < row.until - now < 31 * 24 * HOUR_MS for row in rows)
    assert (await face.api.post("/api/v1/jobs/45:release")).json()["held"] is False
    assert (await face.api.delete("/api/v1/jobs/25")).status_code == 409
    for wrong in ("soon", "2001-01-01T00:00:00Z"):
        answer = await face.api.post("/api/v1/jobs/45:hold", json={"reason": "audit", "until": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "until")


async def test_archived_jobs_are_read_whole_and_do_not_change_where_they_are(face: Face) -> None:
    for job_id, tier in ((7, "archive"), (27, "warm"), (47, "hot")):
        shown = (await face.api.get(f"/api/v1/jobs/{job_id}")).json()
        assert (shown["tier"], shown["id"], len(shown["scheduler_clusters"])) == (tier, job_id, 1)
        assert shown["result"]["group_uuid"] == f"group_{shown['uuid'].replace('-', '')}"
        assert len((await face.api.get(f"/api/v1/jobs/{job_id}/parts")).json()) == 1
        events = (await face.api.get(f"/api/v1/jobs/{job_id}/events")).json()
        assert [one["kind"] for one in events] == ["created", "planned", "running", "ended"]
        later = (await face.api.get(f"/api/v1/jobs/{job_id}/events", params={"after_id": events[1]["id"]})).json()
        assert later == events[2:]
    assert (await face.api.patch("/api/v1/jobs/7", json={"bio": "x"})).status_code == 409
    assert (await face.api.delete("/api/v1/jobs/7")).status_code == 409
    assert (await face.api.post("/api/v1/jobs/7:cancel")).status_code == 409


async def test_a_warm_job_is_described_like_a_hot_one(face: Face) -> None:
    for job_id in (30, 50):
        for bio in ("größer", ""):
            shown = (await face.api.patch(f"/api/v1/jobs/{job_id}", json={"bio": bio})).json()
            assert (shown["bio"], bool(shown["summary"]), bool(shown["result"])) == (bio, True, True)
    await face.api.patch("/api/v1/jobs/30", json={"bio": "Largest of Them"})
    assert await face.ids(text="largest of") == [30]


async def test_warm_and_archived_jobs_are_retried_with_labels_and_importance(face: Face) -> None:
    def plain(conn: Connection) -> None:
        for job_id in (30, 50):
            conn.execute(update(job).where(job.c.id == job_id).values(labels='{"team":"ml"}', importance=2))

    face.db.write_sync(plain)
    args = {"type": "file", "url": "https://o.example/a.bin"}
    body = {"type": "preheat", "args": args, "labels": {"team": "ml", "a.b/c": "größer"}, "importance": "high"}
    made = (await face.api.post("/api/v1/jobs", json=body)).json()
    assert (made["labels"], made["importance"]) == ({"a.b/c": "größer", "team": "ml"}, "high")
    _end(face.db, made["id"])
    face.db.write_sync(lambda conn: fold_jobs(conn, [made["id"]], face.codec))
    warm = (await face.api.get(f"/api/v1/jobs/{made['id']}")).json()
    assert (warm["tier"], warm["labels"], warm["args"]) == ("warm", made["labels"], made["args"])
    again = (await face.api.post(f"/api/v1/jobs/{made['id']}:retry")).json()
    assert (again["labels"], again["importance"], again["args"]) == (made["labels"], "high", made["args"])
    assert again["id"] != made["id"]


@pytest.mark.parametrize("token", ["", "?token=CANARY-1"])
async def test_an_idempotency_key_is_known_when_its_job_is_folded_or_removed(face: Face, token: str) -> None:
    headers = {"Idempotency-Key": "k-1"}
    args = {"type": "file", "url": f"https://o.example/a.bin{token}", "tag": "secret=abc"}
    body = {"type": "preheat", "args": args}
    first = (await face.api.post("/api/v1/jobs", json=body, headers=headers)).json()
    _end(face.db, first["id"])
    changes: list[Any] = [lambda conn: fold_jobs(conn, [first["id"]], face.codec), lambda conn: _hide(conn, first["id"])]
    for change in changes:
        face.db.write_sync(change)
        again = await face.api.post("/api/v1/jobs", json=body, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, first["id"])
        for other in ({**body, "importance": "low"}, {**body, "args": {**args, "tag": "x"}}):
            assert (await face.api.post("/api/v1/jobs", json=other, headers=headers)).status_code == 409


async def test_a_folded_request_that_lost_a_secret_is_not_retried(face: Face) -> None:
    body = {"type": "preheat", "args": {"type": "file", "url": "https://o.example/a.bin", "tag": "token=abcdef"}}
    made = (await face.api.post("/api/v1/jobs", json=body)).json()
    _end(face.db, made["id"])
    face.db.write_sync(lambda conn: fold_jobs(conn, [made["id"]], face.codec))
    answer = await face.api.post(f"/api/v1/jobs/{made['id']}:retry")
    assert (answer.status_code, "credentials" in answer.json()["detail"]) == (409, True)


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"labels": ["a"]}, "labels"),
        ({"labels": {f"k{n}": "v" for n in range(17)}}, "labels"),
        ({"labels": {"": "v"}}, "labels"),
        ({"labels": {"a" * 64: "v"}}, "labels"),
        ({"labels": {"a b": "v"}}, "labels"),
        ({"labels": {"a": 5}}, "labels.a"),
        ({"labels": {"a": "v" * 129}}, "labels.a"),
        ({"labels": {"a": "two\nlines"}}, "labels.a"),
        ({"labels": {f"k{n}": "v" * 128 for n in range(16)}}, "labels"),
        ({"labels": {"password": "CANARY-1"}}, "labels"),
        ({"labels": {"source": "https://u:CANARY-1@o.example/"}}, "labels"),
        ({"importance": "highest"}, "importance"),
        ({"importance": 2}, "importance"),
    ],
)
async def test_wrong_labels_and_importance_name_their_field(face: Face, extra: dict[str, Any], field: str) -> None:
    body = {"type": "preheat", "args": {"type": "file", "url": "https://o.example/a.bin"}, **extra}
    answer = await face.api.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert await face.ids(per_page=1) == [60]


async def test_the_timeline_of_a_removed_job_is_kept_with_it(face: Face) -> None:
    await face.api.delete("/api/v1/jobs/30")
    stored = select(job_event.c.message).where(job_event.c.job_id == 30)
    assert face.db.read_sync(lambda conn: list(conn.execute(stored).scalars())) == ["removed by ann"]
    tier = select(job.c.tier, job_fold.c.raw_len).join(job_fold, job_fold.c.job_id == job.c.id).where(job.c.id == 30)
    assert face.db.read_sync(lambda conn: conn.execute(tier).one()).tier == Tier.DELETED


def _end(db: Database, job_id: int) -> None:
    def end(conn: Connection) -> None:
        now = db_now_ms(conn)
        values = {"state": "SUCCEEDED", "finished_at": now, "base_at": now, "tier": 0}
        conn.execute(update(job).where(job.c.id == job_id).values(values))

    db.write_sync(end)


def _hide(conn: Connection, job_id: int) -> None:
    conn.execute(update(job).where(job.c.id == job_id).values(tier=int(Tier.DELETED)))


async def test_an_archive_that_is_away_does_not_take_the_database_along(face: Face) -> None:
    face.archive.failure = UnavailableError("the store größer does not answer")
    answer = await face.api.get("/api/v1/jobs", params={"per_page": 100})
    assert [one["id"] for one in answer.json()] == list(range(60, 20, -1))
    assert answer.headers["X-Darner-Incomplete"].startswith("archived jobs are missing: the store gr")
    full = await face.api.get("/api/v1/jobs", params={"per_page": 100, "tier": ["hot", "warm"]})
    assert "X-Darner-Incomplete" not in full.headers
    assert (await face.api.get("/api/v1/jobs", params={"tier": "archive"})).status_code == 503
    assert (await face.api.get("/api/v1/jobs/7")).status_code == 503
    assert (await face.api.get("/api/v1/jobs/27")).status_code == 200


async def test_a_full_page_of_the_database_asks_the_archive_for_nothing_older(face: Face) -> None:
    await face.ids(per_page=10)
    assert face.archive.asked[-1].since_ms == face.first_ms + 50 * 1000
    await face.ids(per_page=10, since="9h")
    assert face.archive.asked[-1].since_ms == face.first_ms + 50 * 1000
    await face.ids(per_page=100)
    assert face.archive.asked[-1].since_ms is None
