"""Holds: what is kept whatever the policy says; and jobs brought back."""

import dataclasses
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from darner.kit.moments import rfc3339
from darner.retention.engine import RetentionEngine
from darner.retention.rest.asker import Asker
from darner.retention.values import HoldRow

_MAX_ID = 2**63 - 1


class NewHold(BaseModel):
    """A hold on one job (`job_id`) or on all that match (`match`, as in a rule). `until`: RFC 3339; null: no end."""

    model_config = ConfigDict(extra="forbid")

    job_id: Annotated[int | None, Field(ge=1, le=_MAX_ID)] = None
    match: dict[str, Any] | None = None
    reason: Annotated[str, Field(max_length=512)]
    until: AwareDatetime | None = None


class Wanted(BaseModel):
    """The job that is wanted back."""

    model_config = ConfigDict(extra="forbid")

    job_id: Annotated[int, Field(ge=1, le=_MAX_ID)]


def routes(api: APIRouter, engine: RetentionEngine) -> None:
    """List, add and remove holds; restore."""

    @api.get("/holds")
    async def holds(
        _: Asker, after: Annotated[int, Query(ge=0, le=_MAX_ID)] = 0, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> list[dict[str, Any]]:
        return [shown_hold(one) for one in await engine.holds(after=after, limit=limit)]

    @api.post("/holds", status_code=201)
    async def add(body: NewHold, asker: Asker) -> dict[str, Any]:
        made = await engine.add_hold(
            reason=body.reason, by=asker.name, job_id=body.job_id, match=body.match, until=_unix_ms(body.until)
        )
        return shown_hold(made)

    @api.delete("/holds/{hold_id}")
    async def remove(hold_id: Annotated[int, Path(ge=1, le=_MAX_ID)], asker: Asker) -> dict[str, Any]:
        return shown_hold(await engine.remove_hold(hold_id, by=asker.name))

    @api.post("/restore")
    async def restore(body: Wanted, asker: Asker) -> dict[str, Any]:
        return shown_hold(await engine.restore(body.job_id, by=asker.name))


def shown_hold(found: HoldRow) -> dict[str, Any]:
    """A hold as people read it."""
    return {**dataclasses.asdict(found), "created_at": rfc3339(found.created_at), "until": rfc3339(found.until)}


def _unix_ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)
