"""One job as one JSON document in one line: the form that log systems get (docs/reference/export.md), versioned by `schema`.

The same job gives the same bytes whenever it is sent: what changes after its end (tier, holds) is not in it. Too large a document
is cut so that what is wanted most stays (the job itself, then its newest events, then parts, failed ones first), and says so.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from darner.core.job import DetailState, Importance, PartState, State, state_of
from darner.history.record import JobRecord
from darner.history.redact import redact_record
from darner.kit.moments import rfc3339
from darner.retention.export.values import Document

SCHEMA = "darner.job/1"
# A job runs once; one that is asked for anew is another job. So its first attempt is its only one.
ATTEMPT = 1
LEAST_BYTES = 2_048
_CUT = "…[truncated]"
_SHORT = 256
_SHORTER = 64
_MARKER_BYTES = 256
_UUID_CHARS = 8

_TEXTS = ("type", "owner", "summary", "error", "tag", "application", "bio")
_NUMBERS = (
    "priority", "cluster_count", "part_count", "part_done", "part_failed", "bytes_total", "bytes_done",
)  # fmt: skip
_JOB_TIMES = ("created_at", "started_at", "finished_at", "deadline_at")
_PART_FIELDS = (
    "id", "cluster_id", "ordinal", "url", "digest", "size_bytes", "target_count", "state", "attempts", "bytes_done", "piece_count",
    "pieces_done", "error", "hosts",
)  # fmt: skip
_PART_TIMES = ("created_at", "started_at", "finished_at")


def key_of(record: JobRecord) -> str:
    """`JOB-UUID:ATTEMPT`, the first digits of the job's uuid: ids begin anew when an old copy of a database is restored."""
    uuid = str(record.job.get("uuid") or "")[:_UUID_CHARS]
    return f"{record.id}-{uuid}:{ATTEMPT}" if uuid else f"{record.id}:{ATTEMPT}"


def document_of(record: JobRecord, *, instance: str, limit: int) -> Document:
    """The redacted document of an ended job, in at most `limit` bytes (2 KiB or more). Raises ValueError, TypeError, KeyError."""
    clean = redact_record(record)
    detail = DetailState(clean.job["state"])
    state = state_of(detail)
    at = int(clean.job["finished_at"] or clean.job["created_at"])
    key = key_of(clean)
    content = {
        "schema": SCHEMA,
        "key": key,
        "instance": instance,
        "time": _moment(at),
        "job": _job(clean, state, detail),
        "clusters": list(clean.clusters),
        "args": clean.args,
        "result": clean.result,
        "parts": [_part(part) for part in clean.parts],
        "events": [_event(event) for event in clean.events],
    }
    return Document(
        key=key,
        job_id=clean.id,
        at=at,
        failed=state == State.FAILURE,
        facts={"job": str(clean.id), "type": str(clean.job["type"]), "state": str(state), "detail_state": str(detail)},
        body=_fitting(content, limit),
    )


def _job(record: JobRecord, state: State, detail: DetailState) -> dict[str, Any]:
    row = record.job
    return {
        "id": record.id,
        "uuid": row.get("uuid") or "",
        "state": state,
        "detail_state": detail,
        "importance": Importance(row.get("importance") or 0).word,
        "labels": _labels(str(row.get("labels") or "")),
        **{name: row.get(name) or "" for name in _TEXTS},
        **{name: row.get(name) or 0 for name in _NUMBERS},
        **{name: _moment(row.get(name)) for name in _JOB_TIMES},
    }


def _labels(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:  # redaction may have cut into it
        return {"text": text}
    return found if isinstance(found, dict) else {"text": text}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: part.get(name) for name in _PART_FIELDS}
    return {**shown, "verified": bool(part.get("verified")), **{name: _moment(part.get(name)) for name in _PART_TIMES}}


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: event.get(name) for name in ("id", "part_id", "kind", "message")}, "at": _moment(event.get("at"))}


def _moment(unix_ms: int | None) -> str | None:
    """RFC 3339 with Z; None for a moment that no calendar has."""
    if not unix_ms:
        return None
    try:
        return rfc3339(unix_ms)
    except (ValueError, OverflowError, OSError):
        return None


def _bytes(content: Any) -> bytes:  # noqa: ANN401  (JSON)
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _fitting(content: dict[str, Any], limit: int) -> bytes:
    whole = _bytes(content)
    if len(whole) <= limit:
        return whole
    marker: dict[str, Any] = {"bytes": len(whole)}
    for cut in (_without_hosts, _with_few_parts, _with_short_texts, _bare):
        content = cut(content, marker, limit)
        found = _bytes({**content, "truncated": marker})
        if len(found) <= limit:
            return found
    raise ValueError(f"the document has {len(found)} bytes even without its content; {limit} are allowed")


def _without_hosts(content: dict[str, Any], marker: dict[str, Any], _limit: int) -> dict[str, Any]:
    """What each single host did is the first to go: there may be thousands to a part."""
    marker["hosts"] = sum(len(part["hosts"] or ()) for part in content["parts"])
    return {**content, "parts": [{**part, "hosts": []} for part in content["parts"]]}


def _with_few_parts(content: dict[str, Any], marker: dict[str, Any], limit: int) -> dict[str, Any]:
    parts, events = content["parts"], content["events"]
    room = limit - len(_bytes({**content, "parts": [], "events": []})) - _MARKER_BYTES
    newest, used = _as_many(reversed(events), room // 4)
    failed_first = sorted(parts, key=lambda part: part["state"] == PartState.SUCCEEDED)
    kept, _ = _as_many(failed_first, room - used)
    marker["parts"], marker["events"] = len(parts) - len(kept), len(events) - len(newest)
    in_order = sorted(kept, key=lambda part: part["id"] or 0)
    return {**content, "parts": in_order, "events": newest[::-1]}


def _as_many(rows: Iterable[Any], room: int) -> tuple[list[Any], int]:
    """Rows from the first on that fit, and the bytes they take."""
    kept, used = [], 0
    for row in rows:
        used_then = used + len(_bytes(row)) + 1
        if used_then > room:
            break
        kept.append(row)
        used = used_then
    return kept, used


def _with_short_texts(content: dict[str, Any], marker: dict[str, Any], _limit: int) -> dict[str, Any]:
    marker["cut"] = ["args", "job", "result"]
    marker["parts"] += len(content["parts"])
    marker["events"] += len(content["events"])
    args = {name: value if _is_short(value) else _CUT for name, value in content["args"].items()}
    args = args if len(_bytes(args)) <= LEAST_BYTES * 2 else {}
    return {**content, "parts": [], "events": [], "result": None, "args": args, "job": _shortened(content["job"], _SHORT)}


def _bare(content: dict[str, Any], marker: dict[str, Any], _limit: int) -> dict[str, Any]:
    marker["cut"] = ["args", "clusters", "job", "result"]
    return {**content, "args": {}, "clusters": [], "job": {**_shortened(content["job"], _SHORTER), "labels": {}}}


def _shortened(row: Mapping[str, Any], chars: int) -> dict[str, Any]:
    return {name: value[:chars] + _CUT if isinstance(value, str) and len(value) > chars else value for name, value in row.items()}


def _is_short(value: Any) -> bool:  # noqa: ANN401  (JSON)
    return len(_bytes(value)) <= _SHORT
