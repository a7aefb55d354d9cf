"""Policies over HTTP: versions, presets, differences, previews with tokens, suggestions, and what upstream was told."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.integration.retention.history import History

from darner import __version__
from darner.access import TokenService
from darner.app import problems
from darner.retention.engine import RetentionEngine
from darner.retention.parse import policy_from_json
from darner.retention.ports import RetentionParts
from darner.retention.records import add_policy
from darner.retention.rest import router


async def no_job(_: int) -> bool:
    return False


def client(history: History, engine: RetentionEngine, token: str) -> httpx.AsyncClient:
    app = FastAPI()
    app.state.tokens = TokenService(history.db)
    problems.install(app)
    app.include_router(router(engine))
    transport, headers = httpx.ASGITransport(app), {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/retention", headers=headers)


@pytest.fixture
async def http(history: History) -> AsyncIterator[httpx.AsyncClient]:
    _, token = await TokenService(history.db).create("ann", ["retention"])
    async with RetentionEngine(history.db) as engine, client(history, engine, token.reveal()) as opened:
        yield opened


async def test_a_fresh_installation_shows_where_its_policy_came_from(http: httpx.AsyncClient) -> None:
    seed = (await http.get("/policy")).json()
    assert (seed["version"], seed["origin"], seed["created_by"]) == (1, f"seed:{__version__}", "system")
    assert [rule["name"] for rule in seed["rules"]] == ["bookkeeping", "success", "rest"]
    assert all("archive" not in rule for rule in seed["rules"])
    assert seed["bookkeeping"] == {"runs": "400d", "samples": "400d", "audit": "400d"}
    assert (await http.get("/suggestions")).json() == []


async def test_where_there_is_an_archive_it_is_a_step_of_the_first_policy(history: History) -> None:
    _, token = await TokenService(history.db).create("ann", ["retention"])
    async with (
        RetentionEngine(history.db, parts=RetentionParts(restore_archived=no_job)) as engine,
        client(history, engine, token.reveal()) as http,
    ):
        seed = (await http.get("/policy")).json()
        assert [rule.get("archive") for rule in seed["rules"]] == [None, "180d", "400d"]
        assert (await http.get("/presets/forensic")).json()["rules"][2]["archive"] == "1095d"


async def test_a_change_says_what_it_means(http: httpx.AsyncClient) -> None:
    made = (await http.put("/policy", json={"keep": "36h", "reason": "small disk"})).json()
    assert made["rules"] == [{"name": "default", "match": {}, "basis": "finished", "hot": "6h", "warm": "36h", "undo": "24h"}]
    assert (made["version"], made["origin"], made["confirmed_at"]) == (2, "user", None)
    assert made["diff"]["tightens"] is True
    assert any("forgotten sooner" in said for said in made["diff"]["words"])
    again = (await http.put("/policy", json={"keep": "400d"})).json()
    assert (again["diff"]["effect"], again["diff"]["notes"]) == ("loosened", [])
    some = {"rules": [{"name": "bad", "match": {"states": ["FAILED"]}, "hot": "6h", "archive": "90d"}]}
    notes = (await http.put("/policy", json=some)).json()["diff"]["notes"]
    assert notes == (await http.post("/preview", json={"policy": some})).json()["notes"]
    assert [note.partition(" ")[0] for note in notes] == ["Jobs", "There"]


async def test_who_was_faster_is_told_to_who_was_slower(http: httpx.AsyncClient) -> None:
    first = await http.put("/policy", json={"keep": "36h", "base_version": 1, "reason": "mine"})
    assert first.status_code == 200
    second = await http.put("/policy", json={"keep": "40h", "base_version": 1})
    assert second.status_code == 409
    assert "Version 2 is in force, made by ann" in second.text
    assert "mine" in second.text
    assert (await http.get("/policy")).json()["version"] == 2


async def test_versions_are_compared_and_brought_back(http: httpx.AsyncClient) -> None:
    await http.put("/policy", json={"keep": "36h"})
    shown = (await http.get("/policies/1/diff", params={"to": 2})).json()
    assert (shown["from"], shown["to"], shown["effect"]) == (1, 2, "mixed")
    assert (await http.get("/policies/1/diff")).json() == shown
    back = (await http.post("/policies/1:rollback", json={"reason": "oops", "base_version": 2})).json()
    assert (back["version"], back["origin"], back["reason"]) == (3, "rollback", "oops")
    assert back["rules"] == (await http.get("/policies/1")).json()["rules"]
    assert (await http.post("/policies/3:rollback", json={})).status_code == 409
    for path in ("/policies/9", "/policies/9/diff"):
        assert (await http.get(path)).status_code == 404
    assert (await http.post("/policies/9:rollback", json={})).status_code == 404
    assert [one["version"] for one in (await http.get("/policies", params={"before": 3, "limit": 1})).json()] == [2]


async def test_presets_are_shown_and_chosen_by_name(http: httpx.AsyncClient) -> None:
    assert [one["name"] for one in (await http.get("/presets")).json()] == ["default", "dragonfly", "frugal", "forensic"]
    made = (await http.put("/policy", json={"preset": "dragonfly"})).json()
    assert (made["origin"], made["rules"]) == ("preset:dragonfly", [{"name": "all", "match": {}, "basis": "created", "hot": "6h"}])
    missing = await http.put("/policy", json={"preset": "dragonfli"})
    assert missing.status_code == 404
    assert "Did you mean dragonfly?" in missing.text
    assert (await http.put("/policy", json={"preset": "frugal", "keep": "6h"})).status_code == 422


async def test_a_preview_binds_a_change(http: httpx.AsyncClient, history: History) -> None:
    for hours in (2, 20, 50):
        history.add("FAILED", ended_h=hours)
    seen = (await http.post("/preview", json={"policy": {"keep": "36h"}})).json()
    assert seen["policy_version"] == 1
    assert seen["expires_at"].endswith("Z")
    assert seen["total"]["rows"] == 1
    assert {(one["action"], one["rows"]) for one in seen["rules"]} == {("fold", 1), ("hide", 1)}
    assert all(one["oldest"].endswith("Z") for one in seen["rules"])
    assert (seen["diff"]["rows_sooner"], seen["diff"]["removed_only_now"]) == (3, 1)
    other = await http.put("/policy", json={"keep": "37h", "preview_token": seen["token"]})
    assert other.status_code == 409
    made = (await http.put("/policy", json={"keep": "36h", "preview_token": seen["token"]})).json()
    assert made["confirmed_by"] == "ann"
    assert (await http.get("/policy")).json()["confirmed_at"].endswith("Z")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 200),
        ({"preset": "frugal"}, 200),
        ({"version": 1}, 200),
        ({"version": 7}, 404),
        ({"preset": "x"}, 404),
        ({"policy": {"keep": "1m"}}, 422),
        ({"policy": {"keep": "1h"}, "version": 1}, 422),
        ({"police": {}}, 422),
    ],
)
async def test_what_can_be_previewed(http: httpx.AsyncClient, body: dict[str, Any], status: int) -> None:
    assert (await http.post("/preview", json=body)).status_code == status


async def test_an_older_default_is_left_alone_and_todays_is_suggested(http: httpx.AsyncClient, history: History) -> None:
    old = policy_from_json({"rules": [{"name": "default", "hot": "6h", "then": "delete"}]})
    history.db.write_sync(lambda conn: add_policy(conn, old, origin="seed", by="system", reason="made at the first start"))
    history.add("FAILED", ended_h=30)
    (found,) = (await http.get("/suggestions")).json()
    assert (found["preset"], found["policy_version"], found["origin"]) == ("default", 2, "seed")
    assert found["preview"]["diff"]["effect"] == "loosened"
    assert found["preview"]["diff"]["rows_later"] == 1
    assert (await http.get("/policy")).json()["version"] == 2
    await http.put("/policy", json={"keep": "6h"})
    assert (await http.get("/suggestions")).json() == []


async def test_what_upstream_was_told_becomes_a_policy(http: httpx.AsyncClient) -> None:
    row = '{"audit":{"ttl":604800000000000},"job":{"ttl":1800000000000}}'
    made = (await http.post("/policies:import", json={"configs": row})).json()
    assert (made["origin"], made["rules"][0]["basis"], made["rules"][0]["hot"]) == ("grandfathered", "created", "1h")
    assert made["bookkeeping"]["audit"] == "604800000000000ns"
    assert "raised to 1h" in made["notes"][0]
    yaml = (await http.post("/policies:import", json={"manager_yaml": {"job": {"gc": {"ttl": "72h"}}}})).json()
    assert yaml["rules"][0]["hot"] == "72h"
    for body in ({}, {"configs": "{"}, {"configs": "{}"}, {"configs": "{}", "manager_yaml": {}}, {"manager_yaml": {"a": 1}}):
        assert (await http.post("/policies:import", json=body)).status_code == 422


async def test_another_scope_is_not_enough(http: httpx.AsyncClient, history: History) -> None:
    _, jobs = await TokenService(history.db).create("jobs", ["job", "cluster", "worker"])
    headers = {"Authorization": f"Bearer {jobs.reveal()}"}
    gets = ("/policies", "/policies/1", "/policies/1/diff", "/presets", "/presets/default", "/suggestions")
    posts: dict[str, Any] = {"/policies/1:rollback": {}, "/policies:import": {}, "/preview": {}}
    for path in gets:
        assert (await http.get(path, headers=headers)).status_code == 403
    for path, body in posts.items():
        assert (await http.post(path, headers=headers, json=body)).status_code == 403
