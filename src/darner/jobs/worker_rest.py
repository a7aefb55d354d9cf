"""The face that workers speak to: lease parts, tell progress, tell the end. Scope `worker`.

`POST /api/v1/worker/leases {worker, cluster_id, max, wait_s?}` → `{leases: [order…]}`, after at most 20 s; orders hold secrets in
clear. `POST …/{lease_id}/progress` and `…/{lease_id}/finish` take a report and answer `{accepted, cancel}`: with `cancel`, or not
`accepted`, the worker stops. Both may be repeated, doubled or come late; only the holder's word counts.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from darner.access import Principal, require
from darner.core.errors import InvalidInputError
from darner.core.work import order_to_json, report_from_json
from darner.jobs.engine import JobsEngine

MAX_LEASES = 64


class LeaseQuestion(BaseModel):
    """Who asks for work, and how much it can take."""

    worker: Annotated[str, Field(min_length=1, max_length=128)]
    cluster_id: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1, le=MAX_LEASES)] = 1
    wait_s: Annotated[float | None, Field(ge=0)] = None


def worker_router(engine: JobsEngine) -> APIRouter:
    """The three routes."""
    api = APIRouter(prefix="/api/v1/worker/leases", tags=["worker"])
    worker = Annotated[Principal, Depends(require("worker"))]

    @api.post("")
    async def lease(question: LeaseQuestion, request: Request, _: worker) -> dict[str, Any]:
        orders = await engine.lease(
            question.cluster_id, question.worker, question.max, gone=request.is_disconnected, wait_s=question.wait_s
        )
        return {"leases": [order_to_json(order) for order in orders]}

    @api.post("/{lease_id}/progress")
    async def progress(lease_id: str, body: dict[str, Any], _: worker) -> dict[str, bool]:
        report = report_from_json(body)
        if report.outcome is not None:
            raise InvalidInputError("progress has no outcome; tell it with finish", field="outcome")
        verdict = await engine.report(lease_id, report)
        return {"accepted": verdict.accepted, "cancel": verdict.cancel}

    @api.post("/{lease_id}/finish")
    async def finish(lease_id: str, body: dict[str, Any], _: worker) -> dict[str, bool]:
        report = report_from_json(body)
        if report.outcome is None:
            raise InvalidInputError("outcome: expected done, released or cancelled", field="outcome")
        verdict = await engine.report(lease_id, report)
        return {"accepted": verdict.accepted, "cancel": verdict.cancel}

    return api
