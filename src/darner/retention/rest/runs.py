"""Sweeps: by hand, their history, and how things stand."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from darner.retention.engine import RetentionEngine, moment
from darner.retention.rest.asker import Asker
from darner.retention.values import Run, RunState

_ACCEPTED = 202


class NewRun(BaseModel):
    """A sweep by hand. `accept_clock`: a person has looked at the clock after a jump, and it is right now."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False
    accept_clock: bool = False


def routes(api: APIRouter, engine: RetentionEngine) -> None:
    """Runs, status, pause."""

    @api.get("/status")
    async def status(_: Asker) -> dict[str, Any]:
        return shown_status(await engine.status())

    @api.post("/runs")
    async def run(body: NewRun, asker: Asker, response: Response) -> dict[str, Any]:
        found = await engine.run(dry_run=body.dry_run, by=asker.name, accept_clock=body.accept_clock)
        if found.state == RunState.RUNNING:
            response.status_code = _ACCEPTED
        return shown_run(found)

    @api.get("/runs")
    async def runs(_: Asker, before: int | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> list[dict[str, Any]]:
        return [shown_run(one) for one in await engine.runs(before=before, limit=limit)]

    @api.get("/runs/{run_id}")
    async def one_run(run_id: int, _: Asker) -> dict[str, Any]:
        return shown_run(await engine.find_run(run_id))

    @api.post("/pause")
    async def pause(asker: Asker) -> dict[str, Any]:
        await engine.pause(paused=True, by=asker.name)
        return shown_status(await engine.status())

    @api.post("/resume")
    async def resume(asker: Asker) -> dict[str, Any]:
        await engine.pause(paused=False, by=asker.name)
        return shown_status(await engine.status())


def shown_run(found: Run) -> dict[str, Any]:
    """A run as people read it."""
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


def shown_status(found: dict[str, Any]) -> dict[str, Any]:
    """The status as people read it."""
    last: Run | None = found["last_run"]
    lease = found["lease"]
    return {
        **found,
        "now": moment(found["now"]),
        "next_run_at": moment(found["next_run_at"]),
        "lease": None if lease is None else {**lease, "until": moment(lease["until"])},
        "last_run": None if last is None else shown_run(last),
    }
