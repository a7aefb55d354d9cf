"""Sweeps: by hand, their history, and how things stand."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from darner.kit.moments import rfc3339
from darner.retention.engine import RetentionEngine
from darner.retention.rest.asker import Asker
from darner.retention.rest.times import with_moments
from darner.retention.values import Audit, Run, RunState

_ACCEPTED = 202
_MAX_ID = 2**63 - 1
RunId = Annotated[int, Path(ge=1, le=_MAX_ID)]
Before = Annotated[int | None, Query(ge=1, le=_MAX_ID)]
After = Annotated[int, Query(ge=0, le=_MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=200)]


class NewRun(BaseModel):
    """A sweep by hand. `accept_clock`: a person has looked at the clock after a jump, and it is right now.

    `preview_token`: what it removes was looked at, so the guard does not hold it back; `yes`: nor does the maintenance window.
    """

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False
    accept_clock: bool = False
    preview_token: Annotated[str | None, Field(max_length=128)] = None
    yes: bool = False


class Pause(BaseModel):
    """Why nothing is swept for now."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=512)] = ""


class NewWindow(BaseModel):
    """When sweeps may remove: `22:00-06:00`, on the clock of a zone; null: at any time."""

    model_config = ConfigDict(extra="forbid")

    window: Annotated[str | None, Field(max_length=32)]
    zone: Annotated[str, Field(max_length=64)] = "UTC"


def routes(api: APIRouter, engine: RetentionEngine) -> None:
    """Runs, status, pause, window."""
    _run_routes(api, engine)
    _switch_routes(api, engine)


def _run_routes(api: APIRouter, engine: RetentionEngine) -> None:
    @api.post("/runs")
    async def run(body: NewRun, asker: Asker, response: Response) -> dict[str, Any]:
        return _answer(await engine.run(by=asker.name, **body.model_dump()), response)

    @api.get("/runs")
    async def runs(_: Asker, before: Before = None, limit: Limit = 20) -> list[dict[str, Any]]:
        return [shown_run(one) for one in await engine.runs(before=before, limit=limit)]

    @api.get("/runs/{run_id}")
    async def one_run(run_id: RunId, _: Asker) -> dict[str, Any]:
        found = await engine.find_run(run_id)
        return {**shown_run(found), "rules": await engine.moved_by_rule(run_id)}

    @api.get("/runs/{run_id}/batches")
    async def batches(run_id: RunId, _: Asker, after: After = 0, limit: Limit = 100) -> list[dict[str, Any]]:
        return [_shown_batch(one) for one in await engine.batches(run_id, after=after, limit=limit)]

    @api.post("/runs/{run_id}:cancel")
    async def cancel(run_id: RunId, asker: Asker) -> dict[str, Any]:
        return shown_run(await engine.cancel_run(run_id, by=asker.name))

    @api.post("/runs/{run_id}:confirm")
    async def confirm(run_id: RunId, asker: Asker, response: Response) -> dict[str, Any]:
        return _answer(await engine.confirm_run(run_id, by=asker.name), response)


def _switch_routes(api: APIRouter, engine: RetentionEngine) -> None:
    @api.get("/status")
    async def status(_: Asker) -> dict[str, Any]:
        return shown_status(await engine.status())

    @api.post("/pause")
    async def pause(asker: Asker, body: Pause | None = None) -> dict[str, Any]:
        await engine.pause(paused=True, by=asker.name, reason=body.reason if body else "")
        return shown_status(await engine.status())

    @api.post("/resume")
    async def resume(asker: Asker) -> dict[str, Any]:
        await engine.pause(paused=False, by=asker.name)
        return shown_status(await engine.status())

    @api.get("/window")
    async def window(_: Asker) -> dict[str, Any]:
        return await engine.window()

    @api.put("/window")
    async def set_window(body: NewWindow, asker: Asker) -> dict[str, Any]:
        return await engine.set_window(body.window, zone=body.zone, by=asker.name)


def _answer(found: Run, response: Response) -> dict[str, Any]:
    if found.state == RunState.RUNNING:
        response.status_code = _ACCEPTED
    return shown_run(found)


def shown_run(found: Run) -> dict[str, Any]:
    """A run as people read it."""
    shown = dataclasses.asdict(found)
    shown |= {"started_at": rfc3339(found.started_at), "finished_at": rfc3339(found.finished_at)}
    shown["report"] = None if found.report is None else with_moments(found.report)
    return shown


def _shown_batch(found: Audit) -> dict[str, Any]:
    times = {name: rfc3339(getattr(found, name)) for name in ("at", "oldest_at", "newest_at")}
    return {**dataclasses.asdict(found), **times}


def shown_status(found: dict[str, Any]) -> dict[str, Any]:
    """The status as people read it."""
    last: Run | None = found["last_run"]
    lease, window = found["lease"], found["window"]
    return {
        **found,
        "now": rfc3339(found["now"]),
        "next_run_at": rfc3339(found["next_run_at"]),
        "swept_at": rfc3339(found["swept_at"]),
        "lease": None if lease is None else {**lease, "until": rfc3339(lease["until"])},
        "window": None if window is None else {**window, "opens_at": rfc3339(window["opens_at"])},
        "last_run": None if last is None else shown_run(last),
    }
