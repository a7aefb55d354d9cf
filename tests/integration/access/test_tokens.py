"""Tokens on a real database and over HTTP."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select, update

from darner.access import Principal, TokenService, require, router
from darner.app import problems
from darner.core.errors import InvalidInputError, NotFoundError
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.access import access_token


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path / 'darner.db'}")
    migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def tokens(db: Database) -> TokenService:
    return TokenService(db)


@pytest.fixture
async def http(tokens: TokenService) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.state.tokens = tokens
    problems.install(app)
    app.include_router(router())

    @app.get("/only-jobs")
    async def only_jobs(who: Annotated[Principal, Depends(require("job"))]) -> str:
        return who.name

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def everything_in(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir())


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def test_a_token_stands_for_its_name_and_scopes_and_is_nowhere_in_clear(
    db: Database, tokens: TokenService, tmp_path: Path
) -> None:
    record, secret = await tokens.create("ci", ["job", "cluster"])
    principal = await tokens.authenticate(secret.reveal())
    assert principal == Principal(name="ci", scopes=frozenset({"job", "cluster"}), token_id=record.id)
    assert secret.reveal().startswith(record.prefix)
    await db.checkpoint()
    assert secret.reveal().encode() not in everything_in(tmp_path)
    assert secret.reveal() not in repr(secret)


async def test_unknown_revoked_and_expired_tokens_stand_for_nobody(db: Database, tokens: TokenService) -> None:
    record, secret = await tokens.create("ci", ["job"])
    for text in ("", "dat_", "dat_nonsense", secret.reveal()[:-1], secret.reveal() + "x", secret.reveal().upper(), "Bearer"):
        assert await tokens.authenticate(text) is None
    now = await db.read(db_now_ms)
    _, brief = await tokens.create("brief", ["job"], now + 60_000)
    assert await tokens.authenticate(brief.reveal()) is not None
    await db.write(lambda conn: conn.execute(update(access_token).where(access_token.c.name == "brief").values(expires_at=now - 1)))
    assert await tokens.authenticate(brief.reveal()) is None
    await tokens.revoke(record.id)
    await tokens.revoke(record.id)
    assert await tokens.authenticate(secret.reveal()) is None
    with pytest.raises(NotFoundError):
        await tokens.revoke(999)


async def test_the_use_of_a_token_is_written_once_a_minute_at_most(db: Database, tokens: TokenService) -> None:
    _, secret = await tokens.create("ci", ["job"])
    await tokens.authenticate(secret.reveal())
    assert (await tokens.ls())[0].last_used_at is not None
    await db.write(lambda conn: conn.execute(update(access_token).values(last_used_at=7)))
    for _ in range(5):
        await tokens.authenticate(secret.reveal())
    assert await db.read(lambda conn: conn.execute(select(access_token.c.last_used_at)).scalar()) == 7


@pytest.mark.parametrize(
    ("name", "scopes", "field"),
    [("", ["job"], "name"), ("x" * 129, ["job"], "name"), ("x", [], "scopes"), ("x", ["all"], "scopes")],
)
async def test_a_wrong_token_request_names_the_field(tokens: TokenService, name: str, scopes: list[str], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await tokens.create(name, scopes)
    assert caught.value.field == field


async def test_the_file_token_is_made_once_and_again_when_the_file_is_lost(tokens: TokenService, tmp_path: Path) -> None:
    file = tmp_path / "token"
    first = await tokens.ensure_token("up", ["admin"], file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == first.reveal()
    file.chmod(0o644)
    assert await tokens.ensure_token("up", ["admin"], file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.unlink()
    second = await tokens.ensure_token("up", ["admin"], file)
    assert second != first
    assert await tokens.authenticate(first.reveal()) is None
    file.write_text("dat_of_another_installation")
    third = await tokens.ensure_token("up", ["admin"], file)
    assert await tokens.authenticate(third.reveal()) is not None


async def test_routes_ask_for_a_token_and_its_scope(http: httpx.AsyncClient, tokens: TokenService) -> None:
    _, jobs = await tokens.create("jobs", ["job"])
    _, clusters = await tokens.create("clusters", ["cluster"])
    _, admin = await tokens.create("root", ["admin"])
    assert (await http.get("/only-jobs")).status_code == 401
    assert (await http.get("/only-jobs", headers=bearer("dat_wrong"))).status_code == 401
    assert (await http.get("/only-jobs", headers={"Authorization": f"Basic {jobs.reveal()}"})).status_code == 401
    refused = await http.get("/only-jobs", headers=bearer(clusters.reveal()))
    assert refused.status_code == 403
    assert "job" in refused.json()["detail"]
    assert (await http.get("/only-jobs", headers=bearer(jobs.reveal()))).json() == "jobs"
    assert (await http.get("/only-jobs", headers={"X-Darner-Token": admin.reveal()})).json() == "root"


async def test_tokens_over_http_are_shown_once_and_revoked(http: httpx.AsyncClient, tokens: TokenService) -> None:
    _, admin = await tokens.create("root", ["admin"])
    headers, path = bearer(admin.reveal()), "/api/v1/personal-access-tokens"
    made = (await http.post(path, headers=headers, json={"name": "ci", "scopes": ["job"], "expires": "90d"})).json()
    assert made["token"].startswith(made["prefix"])
    assert made["state"] == "active"
    assert made["expired_at"].endswith("Z")
    listed = await http.get(path, headers=headers)
    assert made["token"] not in listed.text
    assert [one["name"] for one in listed.json()] == ["ci", "root"]
    assert (await http.get("/only-jobs", headers=bearer(made["token"]))).status_code == 200
    assert (await http.post(path, headers=bearer(made["token"]), json={"name": "x", "scopes": ["admin"]})).status_code == 403
    assert (await http.delete(f"{path}/{made['id']}", headers=headers)).status_code == 200
    assert (await http.get("/only-jobs", headers=bearer(made["token"]))).status_code == 401
    assert (await http.get(f"{path}/{made['id']}", headers=headers)).json()["state"] == "inactive"
    for body, field in (
        ({"name": "x", "scopes": ["job"], "expires": "soon"}, "expires"),
        ({"name": "x", "scopes": ["all"]}, "scopes"),
    ):
        wrong = await http.post(path, headers=headers, json=body)
        assert wrong.status_code == 422
        assert field in wrong.text
    past = await http.post(path, headers=headers, json={"name": "x", "scopes": ["job"], "expired_at": "2001-01-01T00:00:00Z"})
    assert past.status_code == 422
