"""Retention over HTTP: what people and the command line see."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from tests.integration.retention.history import History

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
        app.include_router(router(engine), prefix="")
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/retention", headers=headers) as opened:
            yield opened


async def test_the_policy_is_shown_changed_and_remembered(http: httpx.AsyncClient) -> None:
    seed = (await http.get("/policy")).json()
    assert (seed["version"], seed["origin"]) == (1, "seed")
    assert seed["rules"] == [{"name": "default", "match": {}, "basis": "finished", "hot": "6h", "then": "delete"}]
    made = (await http.put("/policy", json={"keep": "36h", "reason": "an audit wants it"})).json()
    assert (made["version"], made["created_by"], made["reason"], made["rules"][0]["hot"]) == (2, "ann", "an audit wants it", "36h")
    assert (await http.get("/policy")).json() == made
    for path in ("/policies", "/policy/history"):
        assert [one["version"] for one in (await http.get(path)).json()] == [2, 1]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"keep": "59m"}, "keep", "1h"),
        ({"keep": "soon"}, "keep", "soon"),
        ({"keep": "-5h"}, "keep", "-5h"),
        ({"keep": 0}, "keep", "keep nothing"),
        ({"rules": [{"name": "a", "hot": "1s"}]}, "rules[0].hot", "too short"),
        ({"reason": "x"}, "keep", "Say what to keep"),
        ({"kepp": "6h"}, "kepp", ""),
    ],
)
async def test_a_wrong_policy_is_refused_with_its_field_and_nothing_changes(
    http: httpx.AsyncClient, body: dict[str, object], field: str, said: str
) -> None:
    answer = await http.put("/policy", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert field in problem["errors"][0]["field"]
    assert said in answer.text
    assert (await http.get("/policy")).json()["version"] == 1


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
    assert (await http.get(f"/runs/{done['id']}")).json() == done
    assert (await http.get("/runs/99")).status_code == 404
    status = (await http.get("/status")).json()
    assert (status["due"], status["running"], status["paused"], status["last_run"]["id"]) == (0, False, False, done["id"])
    assert status["next_run_at"].endswith("Z")


async def test_pause_and_resume(http: httpx.AsyncClient) -> None:
    assert (await http.post("/pause")).json()["paused"] is True
    assert (await http.get("/status")).json()["next_run_at"] is None
    assert (await http.post("/resume")).json()["paused"] is False


async def test_another_scope_is_not_enough(http: httpx.AsyncClient, history: History) -> None:
    _, jobs = await TokenService(history.db).create("jobs", ["job", "cluster", "worker"])
    headers = {"Authorization": f"Bearer {jobs.reveal()}"}
    for method, path in (
        ("GET", "/policy"),
        ("PUT", "/policy"),
        ("GET", "/status"),
        ("POST", "/runs"),
        ("GET", "/runs"),
        ("POST", "/pause"),
    ):
        body = {"keep": "1h"} if method == "PUT" else {} if path == "/runs" and method == "POST" else None
        assert (await http.request(method, path, headers=headers, json=body)).status_code == 403
        assert (await http.request(method, path, headers={"Authorization": ""}, json=body)).status_code == 401
