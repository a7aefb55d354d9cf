"""Retention over HTTP: what people and the command line see."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import GONE

from darner.access import TokenService
from darner.app import problems
from darner.retention.engine import RetentionEngine
from darner.retention.rest import router


@pytest.fixture
async def http(history: History) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    tokens = TokenService(history.db)
    app.state.tokens = tokens
    problems.install(app)
    _, token = await tokens.create("ann", ["retention"])
    async with RetentionEngine(history.db) as engine:
        await engine.set_policy(GONE, by="ann")
        app.include_router(router(engine), prefix="")
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/retention", headers=headers) as opened:
            yield opened


async def test_dry_run_then_run_then_history(http: httpx.AsyncClient, history: History) -> None:
    for hours in (7, 8):
        history.add("FAILED", ended_h=hours)
    dry = (await http.post("/runs", json={"dry_run": True})).json()
    assert (dry["dry_run"], dry["state"], dry["report"]["total"]) == (True, "DONE", 2)
    state = dry["report"]["rules"][0]["states"][0]
    assert state["oldest_finished_at"].endswith("Z")
    assert state["samples"] == [2, 1]
    assert (await http.get("/status")).json()["due"] == 2
    done = (await http.post("/runs", json={})).json()
    assert (done["state"], done["removed"]) == ("DONE", 2)
    assert [run["id"] for run in (await http.get("/runs")).json()] == [done["id"], dry["id"]]
    told = (await http.get(f"/runs/{done['id']}")).json()
    assert told.pop("rules") == [{"rule": "default", "action": "delete", "rows": 2, "bytes": done["bytes"], "batches": 1}]
    assert told == done
    (batch,) = (await http.get(f"/runs/{done['id']}/batches")).json()
    assert (batch["rule"], batch["action"], batch["removed"], batch["policy_version"]) == ("default", "delete", 2, 2)
    assert batch["oldest_at"].endswith("Z")
    assert (await http.get(f"/runs/{done['id']}/batches?after={batch['id']}")).json() == []
    for missing in ("/runs/99", "/runs/99/batches"):
        assert (await http.get(missing)).status_code == 404
    for verb in ("cancel", "confirm"):
        assert (await http.post(f"/runs/{done['id']}:{verb}")).status_code == 409
        assert (await http.post(f"/runs/99:{verb}")).status_code == 404
    status = (await http.get("/status")).json()
    assert (status["due"], status["running"], status["paused"], status["last_run"]["id"]) == (0, False, False, done["id"])
    assert status["next_run_at"].endswith("Z")


async def test_pause_and_resume(http: httpx.AsyncClient) -> None:
    assert (await http.post("/pause")).json()["paused"] is True
    paused = (await http.post("/pause", json={"reason": "a backup was restored"})).json()
    assert (paused["paused"], paused["paused_reason"]) == (True, "a backup was restored")
    assert (await http.get("/status")).json()["next_run_at"] is None
    assert (await http.post("/resume")).json()["paused"] is False


async def test_the_window_is_set_shown_and_taken_away(http: httpx.AsyncClient) -> None:
    assert (await http.get("/window")).json() == {"window": None, "zone": None}
    assert (await http.put("/window", json={"window": "22:00-6:00"})).json() == {"window": "22:00-06:00", "zone": "UTC"}
    assert (await http.get("/status")).json()["window"]["opens_at"].endswith("Z")
    for wrong, field in (({"window": "25:00-26:00"}, "window"), ({"window": "1:00-2:00", "zone": "Moon"}, "zone")):
        answer = await http.put("/window", json=wrong)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field
    assert (await http.put("/window", json={"window": None})).json()["window"] is None


async def test_holds_are_added_listed_and_removed(http: httpx.AsyncClient, history: History) -> None:
    key = history.add("FAILED", ended_h=9)
    one = (await http.post("/holds", json={"job_id": key, "reason": "a post-mortem", "until": "2099-01-01T00:00:00Z"})).json()
    assert (one["job_id"], one["match"], one["created_by"], one["until"]) == (key, None, "ann", "2099-01-01T00:00:00.000Z")
    many = await http.post("/holds", json={"match": {"owners": ["bob"]}, "reason": "an audit"})
    assert (many.status_code, many.json()["match"]) == (201, {"owners": ["bob"]})
    assert [found["id"] for found in (await http.get("/holds")).json()] == [one["id"], many.json()["id"]]
    assert (await http.get("/status")).json()["holds"] == 2
    assert (await http.post("/runs", json={})).json()["removed"] == 0
    assert (await http.delete(f"/holds/{one['id']}")).json()["job_id"] == key
    assert (await http.delete(f"/holds/{one['id']}")).status_code == 404
    assert (await http.post("/runs", json={})).json()["removed"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"reason": "x"}, "match"),
        ({"job_id": 1, "match": {"owners": ["a"]}, "reason": "x"}, "match"),
        ({"match": {"states": ["DONE"]}, "reason": "x"}, "match.states"),
        ({"match": {"onwers": ["a"]}, "reason": "x"}, "match.onwers"),
        ({"match": {"owners": ["a"]}, "reason": " "}, "reason"),
        ({"match": {"owners": ["a"]}, "reason": "x", "until": "2001-01-01T00:00:00Z"}, "until"),
        ({"job_id": 2**63, "reason": "x"}, "job_id"),
    ],
)
async def test_a_wrong_hold_is_refused_with_its_field(http: httpx.AsyncClient, body: dict[str, object], field: str) -> None:
    answer = await http.post("/holds", json=body)
    assert answer.status_code == 422
    assert field in answer.json()["errors"][0]["field"]
    assert (await http.get("/holds")).json() == []


async def test_a_job_that_is_nowhere_is_neither_held_nor_restored(http: httpx.AsyncClient) -> None:
    assert (await http.post("/holds", json={"job_id": 77, "reason": "x"})).status_code == 404
    assert (await http.post("/restore", json={"job_id": 77})).status_code == 404


async def test_another_scope_is_not_enough(http: httpx.AsyncClient, history: History) -> None:
    _, jobs = await TokenService(history.db).create("jobs", ["job", "cluster", "worker"])
    headers = {"Authorization": f"Bearer {jobs.reveal()}"}
    for method, path in (
        ("GET", "/policy"),
        ("PUT", "/policy"),
        ("GET", "/status"),
        ("POST", "/runs"),
        ("GET", "/runs"),
        ("POST", "/runs/1:cancel"),
        ("POST", "/runs/1:confirm"),
        ("GET", "/runs/1/batches"),
        ("POST", "/pause"),
        ("GET", "/window"),
        ("PUT", "/window"),
        ("GET", "/holds"),
        ("POST", "/holds"),
        ("DELETE", "/holds/1"),
        ("POST", "/restore"),
    ):
        body: dict[str, object] | None = {} if method in {"PUT", "POST"} else None
        assert (await http.request(method, path, headers=headers, json=body)).status_code == 403
        assert (await http.request(method, path, headers={"Authorization": ""}, json=body)).status_code == 401
