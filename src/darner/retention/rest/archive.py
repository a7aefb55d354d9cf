"""The archive over HTTP: its segments, its figures, and erasure. Bringing a job back is `POST /restore`, as for hidden ones."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from darner.retention.archive.catalog import Segment
from darner.retention.archive.engine import Archive
from darner.retention.rest.asker import Asker
from darner.retention.rest.times import with_moments

_MAX_ID = 2**63 - 1
_SHOWN = (
    "id", "state", "rule", "location", "row_count", "bytes", "sha256", "min_id", "max_id", "min_created_at", "max_created_at",
    "max_base_at", "policy_version", "created_at", "sealed_at", "expired_at", "error",
)  # fmt: skip


class Erasure(BaseModel):
    """Jobs that must be forgotten: hidden at once, and taken out of the archive's files by the next sweep."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Annotated[int, Field(ge=1, le=_MAX_ID)]], Field(min_length=1, max_length=1_000)]
    reason: Annotated[str, Field(min_length=1, max_length=512)]


def routes(api: APIRouter, archive: Archive) -> None:
    """List segments, tell how much there is, erase."""

    @api.get("/archive")
    async def figures(_: Asker) -> dict[str, Any]:
        return await archive.figures()

    @api.get("/archive/segments")
    async def segments(
        _: Asker,
        before: Annotated[int | None, Query(ge=1, le=_MAX_ID)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> list[dict[str, Any]]:
        return [_shown(one) for one in await archive.segments(before=before, limit=limit)]

    @api.post("/archive/erase")
    async def erase(body: Erasure, asker: Asker) -> dict[str, Any]:
        return await archive.erase(body.ids, reason=body.reason, by=asker.name)


def _shown(segment: Segment) -> dict[str, Any]:
    known = dataclasses.asdict(segment)
    return with_moments({name: known[name] for name in _SHOWN})
