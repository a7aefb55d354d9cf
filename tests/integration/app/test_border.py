"""The manager's whole REST application against strangers, floods and values that no database takes."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from darner.access import SCOPES, TokenService
from darner.app.border import MAX_BODY_BYTES
from darner.app.http import HttpServer
from darner.app.manager import ManagerConfig, SecurityConfig, jobs_of, rest_app
from darner.app.rest import OPEN_ROUTES
from darner.app.retention import Keeping
from darner.db import Database, migrate
from darner.fleet.engine import FleetEngine
from darner.history.codec import Codec
from darner.retention.engine import RetentionEngine

JSON = {"Content-Type": "application/json"}
A_JOB = {"type": "preheat", "args": {"type": "file", "url": "http://127.0.0.1:1/a"}}
MISFITS = {
    "half a JSON": b"{",
    "no UTF-8": b'{"bio":"\xff\xfe"}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "NUL": json.dumps({**A_JOB, "bio": "a\0b"}).encode(),
    "NUL in a name": json.dumps({**A_JOB, "a\0b": 1}).encode(),
    "half a surrogate pair": b'{"type":"preheat","args":{"type":"file","url":"http://127.0.0.1:1/a","extra":["\\udfff"]}}',
    "beyond 64 bits": json.dumps({"type": "preheat", "args": {**A_JOB["args"], "extra": 10**30}}).encode(),  # type: ignore[dict-item]
    "beyond all digits": b'{"type":"preheat","args":{"timeout":' + b"9" * 5000 + b"}}",
    "no number": json.dumps({"type": "preheat", "args": {**A_JOB["args"], "extra": float("nan")}}).encode(),  # type: ignore[dict-item]
    "endless": b'{"type":"preheat","args":{"timeout":1e999}}',
    "a list": b"[1]",
    "nothing": b"",
}


class Manager:
    """The application on a real socket and a real SQLite file; jobs and sweeps do not run."""

    def __init__(self, app: FastAPI, tokens: TokenService, client: httpx.AsyncClient) -> None:
        self.app, self.tokens, self.client = app, tokens, client

    async def bearer(self, scope: str) -> dict[str, str]:
        _, secret = await self.tokens.create(f"has {scope}", [scope])
        return {"Authorization": f"Bearer {secret.reveal()}"}

    def routes(self) -> list[tuple[str, str]]:
        """Every method and path, also those that no document lists."""
        paths = [(method, route.path) for route in all_routes(self.app.routes) for method in route.methods or ()]
        return [(method, path) for method, path in paths if path not in OPEN_ROUTES]

    async def status(self, method: str, path: str, **how: Any) -> int:
        return (await self.client.request(method, path, **how)).status_code


def all_routes(routes: Any) -> list[APIRoute]:
    found: list[APIRoute] = []
    for route in routes:
        assert isinstance(route, APIRoute) or hasattr(route, "original_router"), f"{route} is no route that was thought of"
        found += [route] if isinstance(route, APIRoute) else all_routes(route.original_router.routes)
    return found


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    db = Database.open(f"sqlite:///{tmp_path / 'darner.db'}")
    migrate(db)
    config = ManagerConfig(security=SecurityConfig(key_file=tmp_path / "secret.key"))
    tokens, fleet, kept = TokenService(db), FleetEngine(db), Keeping(engine=RetentionEngine(db), codec=Codec())
    app = rest_app(tokens, fleet, jobs_of(config, db, fleet, kept), kept)
    async with HttpServer(app, "127.0.0.1", 0) as server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield Manager(app, tokens, client)
    db.close()


def filled(path: str, value: str = "1") -> str:
    return re.sub(r"{[^}]+}", value, path)


async def test_strangers_learn_of_no_route_anything_but_that_a_token_is_wanted(manager: Manager) -> None:
    assert len(manager.routes()) > 30
    for method, path in manager.routes():
        for place in (filled(path), f"{filled(path, '9' * 30)}?page=%00"):
            assert await manager.status(method, place) == 401, (method, place)
            assert await manager.status(method, place, headers={"Authorization": "Bearer dat_invented"}) == 401, (method, place)
            assert await manager.status(method, place, headers=JSON, content=b"{") == 401, (method, place)
    for path in OPEN_ROUTES:
        assert await manager.status("GET", path) == 200


async def test_each_route_refuses_the_tokens_that_are_not_meant_for_it(manager: Manager) -> None:
    bearers = {scope: await manager.bearer(scope) for scope in SCOPES if scope != "admin"}
    for method, path in manager.routes():
        content = b"{}" if method in {"POST", "PUT", "PATCH"} else None
        refused = [
            scope
            for scope, bearer in bearers.items()
            if await manager.status(method, filled(path, "9999"), headers=bearer | JSON, content=content, timeout=30) == 403
        ]
        assert refused or path == "/openapi.json", (method, path)


@pytest.mark.parametrize("body", MISFITS.values(), ids=MISFITS)
async def test_a_body_that_does_not_fit_is_refused_and_stores_nothing(manager: Manager, body: bytes) -> None:
    admin = await manager.bearer("admin") | JSON
    answer = await manager.client.post("/api/v1/jobs", headers=admin, content=body)
    assert answer.status_code in {400, 422}
    assert answer.json()["detail"]
    assert (await manager.client.get("/api/v1/jobs", headers=admin)).json() == []


async def test_no_number_text_or_body_makes_any_route_fail(manager: Manager) -> None:
    admin = await manager.bearer("admin")
    query = "?page=99999999999999999999&limit=99999999999999999999&state=%00&name=%00&user_id=99999999999999999999&text=%ff"
    for method, path in manager.routes():
        for value in ("9223372036854775808", "9" * 30, "%00", "%ff", "..%2F..%2Fetc"):
            for content in (None, MISFITS["beyond 64 bits"]) if method in {"POST", "PUT", "PATCH"} else (None,):
                status = await manager.status(method, filled(path, value) + query, headers=admin | JSON, content=content)
                assert 400 <= status < 500, (method, path, value)


async def test_a_body_beyond_the_limit_is_refused_announced_or_not(manager: Manager) -> None:
    admin = await manager.bearer("admin") | JSON

    async def flood() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    content = b" " * (MAX_BODY_BYTES + 1)
    for sent in (content, flood()):
        answer = await manager.client.post("/api/v1/jobs", headers=admin, content=sent)
        assert (answer.status_code, "8 MiB" in answer.json()["detail"]) == (413, True)
    assert await manager.status("POST", "/api/v1/jobs", headers=JSON, content=content) == 401
