"""How the history grows, the budget, and figures for Prometheus."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from darner.access import Principal, require
from darner.core.errors import InvalidInputError
from darner.kit.moments import around
from darner.retention.growth.growth import Growth
from darner.retention.rest.asker import Asker
from darner.retention.rest.times import with_moments

_TIMES = frozenset({"at", "since", "calm_since", "now"})
_LONGEST_S = 10 * 366 * 86_400
Since = Annotated[
    str, Query(max_length=64, description="Where the series begins: a moment in RFC 3339, or how long ago, like 90d.")
]


class NewBudget(BaseModel):
    """`keep at most 20 GiB`, `keep 10 % of the disk free`, or `none`.

    `shorten`: when the disk is nearly full, history may be removed earlier than its rules say, but nothing younger than that.
    """

    model_config = ConfigDict(extra="forbid")

    budget: Annotated[str, Field(max_length=128)]
    shorten: Annotated[str, Field(max_length=32)] | bool | None = None
    reason: Annotated[str, Field(max_length=1024)] = ""


def routes(api: APIRouter, growth: Growth) -> None:
    """Growth and budget."""

    @api.get("/growth")
    async def report(_: Asker, since: Since = "30d") -> dict[str, Any]:
        return with_moments(await growth.report(since_ms=_moment_of(since)), _TIMES)

    @api.get("/budget")
    async def budget(_: Asker) -> dict[str, Any]:
        return with_moments(await growth.budget(), _TIMES)

    @api.put("/budget")
    async def set_budget(body: NewBudget, asker: Asker) -> dict[str, Any]:
        made = await growth.set_budget(body.budget, by=asker.name, reason=body.reason, shorten=body.shorten)
        return with_moments(made, _TIMES)


def metrics(registries: Sequence[CollectorRegistry]) -> APIRouter:
    """`GET /metrics` for Prometheus, with a token of scope `metrics`. A scrape reads nothing but what was counted before."""
    api = APIRouter(tags=["metrics"])

    @api.get("/metrics")
    async def scrape(_: Annotated[Principal, Depends(require("metrics"))]) -> Response:
        return Response(b"".join(generate_latest(one) for one in registries), media_type=CONTENT_TYPE_LATEST)

    return api


def _moment_of(text: str) -> int:
    """Unix ms of a moment, or of so long ago. InvalidInputError."""
    now_s = datetime.now(tz=UTC).timestamp()
    try:
        ago_s = now_s - around(text, now_s, sign=-1)
    except ValueError as error:
        said = f"{text!r} is neither a moment nor a duration; write 2026-11-25T08:00:00Z or 90d."
        raise InvalidInputError(said, field="since") from error
    return int((now_s - min(max(ago_s, 0), _LONGEST_S)) * 1000)
