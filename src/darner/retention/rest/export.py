"""Sinks: what waits for them, why, and what a person can do about it."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict

from darner.kit.moments import rfc3339
from darner.retention.export.exporter import Exporter
from darner.retention.export.values import Failing, Refused, SinkBacklog
from darner.retention.rest.asker import Asker


class Span(BaseModel):
    """When the sink acknowledged what it has lost since; RFC 3339."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime
    until: AwareDatetime


SinkName = Annotated[str, Path(min_length=1, max_length=64)]


def routes(api: APIRouter, exporter: Exporter) -> None:
    """List sinks, try again, send again, forget one."""

    @api.get("/exports")
    async def exports(_: Asker) -> list[dict[str, Any]]:
        return [shown_sink(one) for one in await exporter.backlog()]

    @api.post("/exports/{sink}:retry")
    async def retry(sink: SinkName, asker: Asker) -> dict[str, Any]:
        return {"sink": sink, "retried": await exporter.retry(sink, by=asker.name)}

    @api.post("/exports/{sink}:resend")
    async def resend(sink: SinkName, body: Span, asker: Asker) -> dict[str, Any]:
        since_ms, until_ms = (int(at.timestamp() * 1000) for at in (body.since, body.until))
        return {"sink": sink, "resent": await exporter.send_again(sink, since_ms=since_ms, until_ms=until_ms, by=asker.name)}

    @api.delete("/exports/{sink}")
    async def drop(sink: SinkName, asker: Asker) -> dict[str, Any]:
        return {"sink": sink, "waited": await exporter.drop(sink, by=asker.name)}


def shown_sink(found: SinkBacklog) -> dict[str, Any]:
    """A sink as people read it. `state`: not configured, failing, refusing (it takes others), waiting, or idle."""
    return {
        "name": found.name,
        "kind": found.kind or None,
        "state": _state(found),
        "pending": found.pending,
        "oldest_at": rfc3339(found.oldest_at),
        "oldest_age_s": round(found.oldest_age_s, 3),
        "refused": found.refused,
        "delivered": found.delivered,
        "lost": found.lost,
        "acked_at": rfc3339(found.acked_at),
        "failing": None if found.failing is None else _shown_failing(found.failing),
        "last_error": found.last_error,
        "last_error_at": rfc3339(found.last_error_at),
        "refusals": [_shown_refusal(one) for one in found.refusals],
    }


def _state(found: SinkBacklog) -> str:
    if not found.configured:
        return "not configured"
    if found.failing is not None:
        return "failing"
    if found.refused:
        return "refusing"
    return "waiting" if found.pending else "idle"


def _shown_failing(found: Failing) -> dict[str, Any]:
    return {"since": rfc3339(found.since), "times": found.times, "error": found.error}


def _shown_refusal(found: Refused) -> dict[str, Any]:
    return {"job_id": found.job_id, "attempts": found.attempts, "next_at": rfc3339(found.next_at), "error": found.error}
