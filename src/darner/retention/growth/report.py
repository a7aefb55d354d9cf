"""What people are told about growth: figures now, rates, limits with their forecasts, the ladder, advice, and a series."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from darner.retention.growth import store
from darner.retention.growth.advice import archive_advice, ladder_advice, server_advice
from darner.retention.growth.forecast import DAY_MS
from darner.retention.growth.outlook import Outlook
from darner.retention.growth.values import HOUR_MS, Sample
from darner.retention.growth.watch import Look

POINTS = 240
_SINCE_MS = 30 * DAY_MS
_STEPS_SHOWN = 20


def report_of(conn: Connection, look: Look, seen: Outlook | None, *, since_ms: int | None, reserve: int | None) -> dict[str, Any]:
    """Times in unix ms, sizes in bytes. `since_ms`: where the series begins, by default 30 days ago."""
    last = store.last_sample(conn)
    standing, steps = store.ladder(conn)
    opted_in = look.budget is not None and look.budget.shorten is not None
    return {
        "now": look.now_ms,
        "sampled_at": last.at if last else None,
        "figures": _figures(look, reserve),
        "jobs": None if last is None else {"at": last.at, **asdict(last.counts)},
        "rates": None if last is None else _rates(last),
        "budget": look.budget.text if look.budget else "none",
        "shorten": look.budget.shorten.text if look.budget and look.budget.shorten else None,
        "growth": asdict(seen.growth) if seen else {"reason": "There is no sample yet; the first comes within the hour."},
        "limits": [asdict(one) for one in seen.limits] if seen else [],
        "ladder": {
            "stage": standing.stage.word,
            "since": standing.since or None,
            "calm_since": standing.calm_since,
            "cut": standing.cut,
            "steps": steps[-_STEPS_SHOWN:],
        },
        "advice": [
            *ladder_advice(standing.stage, last, opted_in=opted_in),
            *archive_advice(look.archive_disk),
            *server_advice(conn),
        ],
        "series": _series(conn, look.now_ms - _SINCE_MS if since_ms is None else since_ms),
    }


def _figures(look: Look, reserve: int | None) -> dict[str, Any]:
    return {
        "used": look.used,
        "database": {
            "bytes": look.sizes.bytes,
            "live": look.sizes.live,
            "reclaimable": look.sizes.reclaimable,
            "log": look.sizes.log,
        },
        "archive": {"bytes": look.archive[0], "jobs": look.archive[1], "counts": look.archive_local},
        "disk": None if look.disk is None else asdict(look.disk),
        "archive_disk": None if look.archive_disk is None else asdict(look.archive_disk),
        "reserve": reserve,
    }


def _rates(sample: Sample) -> dict[str, Any] | None:
    """Jobs per hour since the sample before."""
    if not sample.span_ms:
        return None
    hours = sample.span_ms / HOUR_MS
    moved = {action: round(count / hours, 1) for action, count in sorted(sample.moved.items())}
    return {"hours": round(hours, 2), "created": round(sample.created / hours, 1), "moved": moved}


def _series(conn: Connection, since_ms: int) -> list[dict[str, Any]]:
    """At most `POINTS` of the samples, evenly."""
    ids = store.sample_ids(conn, since_ms)
    return [_point(one) for one in store.samples_of(conn, thinned(ids))]


def thinned(ids: Sequence[int]) -> list[int]:
    """At most `POINTS` of them, evenly, the last always."""
    if len(ids) <= POINTS:
        return list(ids)
    return [ids[round(index * (len(ids) - 1) / (POINTS - 1))] for index in range(POINTS)]


def _point(sample: Sample) -> dict[str, Any]:
    return {
        "at": sample.at,
        "used": sample.used,
        "live": sample.sizes.live,
        "reclaimable": sample.sizes.reclaimable,
        "archive": sample.archive_bytes,
        "free": sample.disk.free if sample.disk else None,
        "jobs": sum(sample.counts.tiers.values()),
        "created": sample.created,
        "span_ms": sample.span_ms,
    }
