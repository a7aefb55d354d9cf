"""The face that people and programs speak to: `/api/v1/jobs` and, the same, `/oapi/v1/jobs` (manager.md, 4 and 6). Scope `job`.

Answers at once: manifests are read afterwards. Unknown keys, null, 0 and "" mean "default". Durations are whole nanoseconds or text
like `60m`, sizes bytes or text like `4MiB`.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from darner.access import Principal, require
from darner.core.errors import InvalidInputError
from darner.core.job import Tier
from darner.jobs.engine import JobsEngine
from darner.jobs.events import Action, Cancel, Describe, Details, Hold, Release, Remove
from darner.jobs.listing import COUNT_LIMIT, MAX_ID, ListQuery, job_query, links, when
from darner.jobs.stream import follow
from darner.jobs.view import event_json, job_json, part_json
from darner.jobs.worker_rest import worker_router
from darner.kit.moments import rfc3339
from darner.kit.units import parse_duration, parse_size

PREFIXES = ("/api/v1/jobs", "/oapi/v1/jobs")
NANOS = 1_000_000_000
JobId = Annotated[int, Path(ge=1, le=MAX_ID)]
Asker = Annotated[Principal, Depends(require("job"))]
Tiers = Annotated[Sequence[str], Query()]


class NewJobBody(BaseModel):
    """Upstream's envelope. `type`: preheat, delete_task or get_task; `args`: manager.md, section 6.2; no ids = all clusters.

    Ours: `labels`, up to 16 `{key: text}`, and `importance`: normal, low, high or critical; retention rules match on them.
    """

    model_config = ConfigDict(extra="ignore")

    type: Any = None
    args: Any = None
    bio: str | None = None
    user_id: Any = None
    scheduler_cluster_ids: Any = None
    labels: Any = None
    importance: Any = None


class BioBody(BaseModel):
    """What upstream's PATCH may change."""

    model_config = ConfigDict(extra="ignore")

    bio: Annotated[str | None, Field(max_length=1000)] = None


class HoldBody(BaseModel):
    """Why a job must be kept, and until when: RFC 3339, or from now like `30d`; null: to a release."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    until: Annotated[str | None, Field(max_length=40)] = None


def router(engine: JobsEngine) -> APIRouter:
    """All routes of the room: jobs under both prefixes, and the workers' face."""
    api = APIRouter(tags=["jobs"])
    for prefix in PREFIXES:
        inner = APIRouter(prefix=prefix)
        _collection(inner, engine)
        _one(inner, engine)
        _lists(inner, engine)
        _actions(inner, engine)
        api.include_router(inner)
    api.include_router(worker_router(engine))
    return api


def _collection(api: APIRouter, engine: JobsEngine) -> None:
    @api.post("")
    async def create(body: NewJobBody, who: Asker, idempotency_key: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        """Create a job. The same Idempotency-Key and request again answer the job of then."""
        decoded = {**body.model_dump(exclude={"user_id"}), "args": decoded_args(body.args)}
        return await _shown(engine, await engine.create(decoded, owner=who.name, idempotency_key=idempotency_key))

    @api.get("")
    async def ls(query: Annotated[ListQuery, Query()], request: Request, response: Response, _: Asker) -> list[dict[str, Any]]:
        """Jobs, newest first: a bare array. Totals in `Link`, as upstream; or walk on with `before_id`.

        A search for text that stopped before the page was full says in `X-Darner-Searched-To` at which id, to go on from. When the
        archive does not answer, the jobs of the database are shown, and `X-Darner-Incomplete` says what is missing.
        """
        wanted = job_query(query, now=time.time())
        if wanted is None:
            return []
        page = await engine.history.page(wanted)
        if page.missing:
            response.headers["X-Darner-Incomplete"] = page.missing.encode("ascii", "replace").decode().replace("\n", " ")
        if page.stopped_at is not None:
            response.headers["X-Darner-Searched-To"] = str(page.stopped_at[1])
        if query.before_id is None:
            # A page that is not full is the last one: nothing needs counting.
            seen = wanted.offset + len(page)
            is_last = len(page) < wanted.limit and (page or not wanted.offset)
            # Archived jobs are in the list, but not counted.
            total = seen if is_last else max(seen, await engine.history.count(wanted, at_most=COUNT_LIMIT))
            response.headers["Link"] = links(request.url.path, query.page or 1, wanted.limit, total)
        kept = await engine.explain([job for job, _ in page])
        return [job_json(job, args=args, retention=one) for (job, args), one in zip(page, kept, strict=True)]


def _one(api: APIRouter, engine: JobsEngine) -> None:
    @api.get("/{job_id}")
    async def show(job_id: JobId, _: Asker, tier: Tiers = ()) -> dict[str, Any]:
        """One job with its result and how long it is kept; a removed one only with `tier=deleted`."""
        return await _shown(engine, await engine.details(job_id, removed=_removed(tier)))

    @api.patch("/{job_id}")
    async def describe(job_id: JobId, body: BioBody, who: Asker) -> dict[str, Any]:
        """Change the description."""
        if body.bio is not None:
            await engine.act(job_id, Describe(body.bio), by=who.name)
        return await _shown(engine, await engine.details(job_id))

    @api.delete("/{job_id}")
    async def remove(job_id: JobId, who: Asker) -> Response:
        """Remove an ended job from lists; for a while it can be restored."""
        await engine.act(job_id, Remove(), by=who.name)
        return Response(status_code=200)


def _lists(api: APIRouter, engine: JobsEngine) -> None:
    @api.get("/{job_id}/parts")
    async def parts(
        job_id: JobId,
        _: Asker,
        after_id: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
        limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
        tier: Tiers = (),
    ) -> list[dict[str, Any]]:
        """The parts of a job with their hosts, by id."""
        await engine.details(job_id, removed=_removed(tier))
        return [part_json(part) for part in await engine.history.parts(job_id, after_id=after_id, limit=limit)]

    @api.get("/{job_id}/events", response_model=None)
    async def events(
        job_id: JobId,
        request: Request,
        _: Asker,
        after_id: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
        limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
        tier: Tiers = (),
    ) -> list[dict[str, Any]] | Response:
        """The timeline; with `Accept: text/event-stream` as a stream that goes on to the job's end."""
        await engine.details(job_id, removed=_removed(tier))
        if "text/event-stream" not in request.headers.get("accept", ""):
            return [event_json(line) for line in await engine.history.events(job_id, after_id=after_id, limit=limit)]
        last = request.headers.get("last-event-id", "")
        start = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else after_id  # noqa: PLR2004
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(follow(engine, job_id, after_id=start), media_type="text/event-stream", headers=headers)


def _actions(api: APIRouter, engine: JobsEngine) -> None:
    async def done(job_id: int, action: Action, who: Principal) -> dict[str, Any]:
        await engine.act(job_id, action, by=who.name)
        return await _shown(engine, await engine.details(job_id))

    @api.post("/{job_id}:cancel")
    async def cancel(job_id: JobId, who: Asker) -> dict[str, Any]:
        """Stop a job; its workers are told with their next message."""
        return await done(job_id, Cancel(), who)

    @api.post("/{job_id}:retry")
    async def retry(job_id: JobId, who: Asker) -> dict[str, Any]:
        """A new job like an ended one."""
        return await _shown(engine, await engine.retry(job_id, by=who.name))

    @api.post("/{job_id}:hold")
    async def hold(job_id: JobId, body: HoldBody, who: Asker) -> dict[str, Any]:
        """Keep a job whatever the retention policy says; a removed or archived one comes back for it."""
        until = when(body.until, "until", now=time.time(), sign=1) if body.until else None
        return await done(job_id, Hold(body.reason, until), who)

    @api.post("/{job_id}:release")
    async def release(job_id: JobId, who: Asker) -> dict[str, Any]:
        """Let the retention policy decide again."""
        return await done(job_id, Release(), who)

    @api.post("/{job_id}:restore")
    async def restore(job_id: JobId, who: Asker) -> dict[str, Any]:
        """Bring a removed or archived job back; it is held from then on."""
        return await _shown(engine, await engine.restore(job_id, by=who.name))


def _removed(tiers: Sequence[str]) -> bool:
    return Tier.DELETED.word in tiers


async def _shown(engine: JobsEngine, details: Details) -> dict[str, Any]:
    names = await engine.cluster_names()
    job = details.job
    times = {"created_at": rfc3339(job.created_at), "updated_at": rfc3339(job.created_at), "is_del": 0}
    clusters = [{"id": key, "name": names.get(key, f"cluster-{key}"), **times} for key in details.cluster_ids]
    (kept,) = await engine.explain([job])
    return job_json(job, args=details.args, result=await engine.result(details), clusters=clusters, retention=kept)


def decoded_args(args: Any) -> Any:  # noqa: ANN401
    """The args with durations and sizes as numbers. Raises InvalidInputError."""
    if not isinstance(args, Mapping):
        return args
    decoded = dict(args)
    for key, decode in (("timeout", _nanos), ("piece_length", _bytes)):
        if isinstance(decoded.get(key), str) and decoded[key]:
            try:
                decoded[key] = decode(decoded[key])
            except ValueError as error:
                raise InvalidInputError(f"args.{key}: {error}", field=f"args.{key}") from None
    return decoded


def _nanos(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else round(parse_duration(text) * NANOS)


def _bytes(text: str) -> int:
    return parse_size(text)
