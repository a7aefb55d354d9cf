"""What a policy would do, before it does it."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from darner.core.errors import InvalidInputError
from darner.retention.engine import RetentionEngine
from darner.retention.rest.asker import Asker
from darner.retention.rest.times import with_moments

_MAX_ID = 2**63 - 1


class Candidate(BaseModel):
    """One of: a `policy` as for `PUT /policy`, the name of a `preset`, or the number of a `version`. None: the one in force."""

    model_config = ConfigDict(extra="forbid")

    policy: dict[str, Any] | None = None
    preset: Annotated[str | None, Field(max_length=64)] = None
    version: Annotated[int | None, Field(ge=1, le=_MAX_ID)] = None


def routes(api: APIRouter, engine: RetentionEngine) -> None:
    """Previews."""

    @api.post("/preview")
    async def preview(body: Candidate, asker: Asker) -> dict[str, Any]:
        given = body.model_dump(exclude_none=True)
        if len(given) > 1:
            raise InvalidInputError("Say one of policy, preset and version.", field=list(given)[1])
        data = given.pop("policy", given) if given else {"version": (await engine.policy()).version}
        return with_moments(await engine.preview(data, by=asker.name))
