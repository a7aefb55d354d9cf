"""The policy in force and those before it."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from darner.retention.engine import RetentionEngine, moment
from darner.retention.parse import policy_to_json
from darner.retention.rest.asker import Asker
from darner.retention.values import PolicyVersion


class NewPolicy(BaseModel):
    """A policy: `rules`, or `keep` for one rule for all jobs. `reason` is kept with the version."""

    model_config = ConfigDict(extra="forbid")

    rules: list[dict[str, Any]] | None = None
    keep: str | int | None = None
    hot: str | int | None = None
    reason: Annotated[str, Field(max_length=1024)] = ""


def routes(api: APIRouter, engine: RetentionEngine) -> None:
    """The policy: read, set, history."""

    @api.get("/policy")
    async def policy(_: Asker) -> dict[str, Any]:
        return shown_policy(await engine.policy())

    @api.put("/policy")
    async def set_policy(body: NewPolicy, asker: Asker) -> dict[str, Any]:
        data = body.model_dump(exclude_unset=True, exclude={"reason"})
        return shown_policy(await engine.set_policy(data, by=asker.name, reason=body.reason))

    async def history(_: Asker) -> list[dict[str, Any]]:
        return [shown_policy(one) for one in await engine.history()]

    for path in ("/policies", "/policy/history"):
        api.add_api_route(path, history, methods=["GET"])


def shown_policy(found: PolicyVersion) -> dict[str, Any]:
    """A version as people read it."""
    return {
        "version": found.version,
        "origin": found.origin,
        "created_at": moment(found.created_at),
        "created_by": found.created_by,
        "reason": found.reason,
        **policy_to_json(found.policy),
    }
