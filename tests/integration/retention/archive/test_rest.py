"""The archive over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.integration.retention.archive.keeping import Kept, kept, several
from tests.integration.retention.history import History

from darner.access import TokenService
from darner.app import problems
from darner.retention.rest import router


@pytest.fixture
async def archived(history: History, tmp_path: Path) -> AsyncIterator[Kept]:
    several(history, 4)
    async with kept(history, tmp_path / "archive", segment_jobs=2) as it:
        await it.sweep()
        yield it


@pytest.fixture
async def http(archived: Kept) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    tokens = TokenService(archived.history.db)
    app.state.tokens = tokens
    problems.install(app)
    _, token = await tokens.create("ann", ["retention"])
    app.include_router(router(archived.engine, archive=archived.archive), prefix="")
    headers = {"Authorization": f"Bearer {token.reveal()}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/retention", headers=headers) as opened:
        yield opened


async def test_segments_and_figures(http: httpx.AsyncClient) -> None:
    newest, oldest = (await http.get("/archive/segments")).json()
    assert (newest["id"], newest["state"], newest["rule"], newest["row_count"]) == (2, "LIVE", "all", 2)
    assert newest["max_base_at"].endswith("Z")
    assert newest["expired_at"] is None
    assert (await http.get("/archive/segments?before=2&limit=1")).json() == [oldest]
    figures = (await http.get("/archive")).json()
    assert (figures["segments"], figures["jobs"], figures["problems"], figures["strays"]) == (2, 4, [], [])


async def test_erasing_and_restoring(http: httpx.AsyncClient, archived: Kept) -> None:
    told = (await http.post("/archive/erase", json={"ids": [1, 99], "reason": "asked for"})).json()
    assert told == {"jobs": 1, "segments": 1, "missing": [99]}
    assert sorted(await archived.ids()) == [2, 3, 4]
    assert (await http.post("/restore", json={"job_id": 2})).json()["job_id"] == 2
    for body, status in (
        ({"ids": [2], "reason": "asked for"}, 409),
        ({"ids": [99], "reason": "asked for"}, 404),
        ({"ids": [3], "reason": " "}, 422),
        ({"ids": [], "reason": "x"}, 422),
        ({"ids": [0], "reason": "x"}, 422),
        ({"ids": [2**63], "reason": "x"}, 422),
    ):
        assert (await http.post("/archive/erase", json=body)).status_code == status
    assert (await http.post("/restore", json={"job_id": 1})).status_code == 404


async def test_without_a_token_nothing_is_told(http: httpx.AsyncClient) -> None:
    for path in ("/archive", "/archive/segments"):
        assert (await http.get(path, headers={"Authorization": ""})).status_code == 401
