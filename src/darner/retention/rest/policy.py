"""The policy in force and those before it; presets, suggestions, and what an upstream installation was told to keep."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from darner.core.errors import InvalidInputError
from darner.kit.moments import rfc3339
from darner.retention.engine import RetentionEngine
from darner.retention.imports import policy_from_configs, policy_from_manager_yaml
from darner.retention.parse import policy_to_json
from darner.retention.presets import Preset
from darner.retention.rest.asker import Asker
from darner.retention.rest.times import with_moments
from darner.retention.values import PolicyVersion

_MAX_ID = 2**63 - 1
Version = Annotated[int, Path(ge=1, le=_MAX_ID)]
Number = Annotated[int | None, Query(ge=1, le=_MAX_ID)]


class _Change(BaseModel):
    """`reason` is kept with the version. `base_version`: what the change was made from; `preview_token`: what was looked at."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=1024)] = ""
    base_version: Annotated[int | None, Field(ge=0, le=_MAX_ID)] = None
    preview_token: Annotated[str | None, Field(max_length=64)] = None


class NewPolicy(_Change):
    """A policy: `rules` (and `bookkeeping`), `keep` for one rule for all jobs, or the name of a `preset`."""

    rules: list[dict[str, Any]] | None = None
    bookkeeping: dict[str, Any] | None = None
    keep: str | int | None = None
    hot: str | int | None = None
    preset: Annotated[str, Field(max_length=64)] = ""


class Rollback(_Change):
    """Back to a version."""


class UpstreamFile(BaseModel):
    """What upstream was told: the row `gc` of its `configs` (text or object), or its manager.yaml as an object."""

    model_config = ConfigDict(extra="forbid")

    configs: dict[str, Any] | Annotated[str, Field(max_length=4096)] | None = None
    manager_yaml: dict[str, Any] | None = None
    reason: Annotated[str, Field(max_length=1024)] = ""
    base_version: Annotated[int | None, Field(ge=0, le=_MAX_ID)] = None


def routes(api: APIRouter, engine: RetentionEngine) -> None:
    """The policy: read, set, history, differences, presets."""

    @api.get("/policy")
    async def policy(_: Asker) -> dict[str, Any]:
        return shown_policy(await engine.policy())

    @api.put("/policy")
    async def set_policy(body: NewPolicy, asker: Asker) -> dict[str, Any]:
        data = body.model_dump(exclude_unset=True, exclude={"reason", "base_version", "preview_token"})
        return await _made(engine, await engine.set_policy(data, by=asker.name, **_change(body)))

    async def history(_: Asker, before: Number = None, limit: Annotated[int, Query(ge=1, le=200)] = 100) -> list[dict[str, Any]]:
        return [shown_policy(one) for one in await engine.history(before=before, limit=limit)]

    for path in ("/policies", "/policy/history"):
        api.add_api_route(path, history, methods=["GET"])

    _version_routes(api, engine)

    @api.get("/presets")
    async def presets(_: Asker) -> list[dict[str, Any]]:
        return [_preset(one) for one in engine.presets()]

    @api.get("/presets/{name}")
    async def preset(name: str, _: Asker) -> dict[str, Any]:
        return _preset(engine.preset(name))

    @api.get("/suggestions")
    async def suggestions(_: Asker) -> list[dict[str, Any]]:
        return [with_moments(one) for one in await engine.suggestions()]


def _version_routes(api: APIRouter, engine: RetentionEngine) -> None:
    @api.get("/policies/{version}")
    async def one_version(version: Version, _: Asker) -> dict[str, Any]:
        return shown_policy(await engine.policy_version(version))

    @api.get("/policies/{version}/diff")
    async def diff(version: Version, _: Asker, to: Number = None) -> dict[str, Any]:
        return await engine.diff(version, to)

    @api.post("/policies/{version}:rollback")
    async def rollback(version: Version, body: Rollback, asker: Asker) -> dict[str, Any]:
        return await _made(engine, await engine.rollback(version, by=asker.name, **_change(body)))

    @api.post("/policies:import")
    async def import_policy(body: UpstreamFile, asker: Asker) -> dict[str, Any]:
        if (body.configs is None) == (body.manager_yaml is None):
            raise InvalidInputError("Send the row `gc` of `configs`, or `manager_yaml`.", field="configs")
        read = policy_from_configs(body.configs) if body.configs is not None else policy_from_manager_yaml(body.manager_yaml or {})
        if read is None:
            raise InvalidInputError("It says nothing about how long jobs are kept; nothing was changed.", field="job")
        made = await engine.grandfather(read, by=asker.name, reason=body.reason, base_version=body.base_version)
        return {**await _made(engine, made), "notes": list(read.notes)}


def _change(body: _Change) -> dict[str, Any]:
    return {"reason": body.reason, "base_version": body.base_version, "preview_token": body.preview_token}


async def _made(engine: RetentionEngine, made: PolicyVersion) -> dict[str, Any]:
    """A new version, and how it differs from the one before it."""
    return {**shown_policy(made), "diff": await engine.change_of(made.version)}


def _preset(found: Preset) -> dict[str, Any]:
    return {"name": found.name, "about": found.about, **policy_to_json(found.policy)}


def shown_policy(found: PolicyVersion) -> dict[str, Any]:
    """A version as people read it."""
    return {
        "version": found.version,
        "origin": found.origin,
        "created_at": rfc3339(found.created_at),
        "created_by": found.created_by,
        "reason": found.reason,
        "confirmed_at": rfc3339(found.confirmed_at),
        "confirmed_by": found.confirmed_by,
        **policy_to_json(found.policy),
    }
