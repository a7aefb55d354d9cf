"""Retention over HTTP: the policy, its history, sweeps and their history. Scope `retention` or `admin`.

Times are RFC 3339; durations are shown as they were typed.
"""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from darner.access import Principal, require
from darner.retention.engine import RetentionEngine, moment
from darner.retention.parse import policy_to_json
from darner.retention.values import PolicyVersion, Run, RunState

_PREFIX = "/api/v1/retention"
_ACCEPTED = 202
Asker = Annotated[Principal, Depends(require("retention"))]


class NewPolicy(BaseModel):
    """A policy: `rules`, or `keep` for one rule for all jobs. `reason` is kept with the version."""

    model_config = ConfigDict(extra="forbid")

    rules: list[dict[str, Any]] | None = None
    keep: str | int | None = None
    hot: str | int | None = None
    reason: Annotated[str, Field(max_length=1024)] = ""


class NewRun(BaseModel):
    """A sweep by hand. `accept_clock`: a person has looked at the clock after a jump, and it is right now."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False
    accept_clock: bool = False


def router(engine: RetentionEngine) -> APIRouter:
    """All routes of retention."""
    api = APIRouter(prefix=_PREFIX, tags=["retention"])
    _policy_routes(api, engine)
    _run_routes(api, engine)
    return api


def _policy_routes(api: APIRouter, engine: RetentionEngine) -> None:
    @api.get("/policy")
    async def policy(_: Asker) -> dict[str, Any]:
        return _policy(await engine.policy())

    @api.put("/policy")
    async def set_policy(body: NewPolicy, asker: Asker) -> dict[str, Any]:
        data = body.model_dump(exclude_unset=True, exclude={"reason"})
        return _policy(await engine.set_policy(data, by=asker.name, reason=body.reason))

    async def history(_: Asker) -> list[dict[str, Any]]:
        return [_policy(one) for one in await engine.history()]

    for path in ("/policies", "/policy/history"):
        api.add_api_route(path, history, methods=["GET"])


def _run_routes(api: APIRouter, engine: RetentionEngine) -> None:
    @api.get("/status")
    async def status(_: Asker) -> dict[str, Any]:
        return _status(await engine.status())

    @api.post("/runs")
    async def run(body: NewRun, asker: Asker, response: Response) -> dict[str, Any]:
        found = await engine.run(dry_run=body.dry_run, by=asker.name, accept_clock=body.accept_clock)
        if found.state == RunState.RUNNING:
            response.status_code = _ACCEPTED
        return _run(found)

    @api.get("/runs")
    async def runs(_: Asker, before: int | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> list[dict[str, Any]]:
        return [_run(one) for one in await engine.runs(before=before, limit=limit)]

    @api.get("/runs/{run_id}")
    async def one_run(run_id: int, _: Asker) -> dict[str, Any]:
        return _run(await engine.find_run(run_id))

    @api.post("/pause")
    async def pause(asker: Asker) -> dict[str, Any]:
        await engine.pause(paused=True, by=asker.name)
        return _status(await engine.status())

    @api.post("/resume")
    async def resume(asker: Asker) -> dict[str, Any]:
        await engine.pause(paused=False, by=asker.name)
        return _status(await engine.status())


def _policy(found: PolicyVersion) -> dict[str, Any]:
    return {
        "version": found.version,
        "origin": found.origin,
        "created_at": moment(found.created_at),
        "created_by": found.created_by,
        "reason": found.reason,
        **policy_to_json(found.policy),
    }


def _run(found: Run) -> dict[str, Any]:
    shown = dataclasses.asdict(found)
    shown |= {"started_at": moment(found.started_at), "finished_at": moment(found.finished_at)}
    shown["report"] = None if found.report is None else _report(found.report)
    return shown


def _report(report: dict[str, Any]) -> dict[str, Any]:
    return {key: _report_value(key, value) for key, value in report.items()}


def _report_value(key: str, value: Any) -> Any:  # noqa: ANN401  (JSON)
    if key == "now" or key.endswith("_at"):
        return moment(value)
    if isinstance(value, list):
        return [_report(one) if isinstance(one, dict) else one for one in value]
    return value


def _status(found: dict[str, Any]) -> dict[str, Any]:
    last: Run | None = found["last_run"]
    lease = found["lease"]
    return {
        **found,
        "now": moment(found["now"]),
        "next_run_at": moment(found["next_run_at"]),
        "lease": None if lease is None else {**lease, "until": moment(lease["until"])},
        "last_run": None if last is None else _run(last),
    }
