"""A whole job as one value: what is folded, archived, exported and restored.

Its JSON form is versioned, because bytes written today are read for years: readers know every version, writers write the newest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from darner.core.errors import DarnerError

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """`job`, `parts` and `events` hold the columns of their tables by name, times in unix ms; a part's `hosts` is a list.

    `args` is the redacted request, `result` what upstream's API shows; `clusters` are ids.
    """

    id: int
    job: Mapping[str, Any]
    args: Mapping[str, Any]
    result: Mapping[str, Any] | None
    clusters: tuple[int, ...]
    parts: tuple[Mapping[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Which records to find, newest first by (created_at, id). Empty fields mean any; `before` is the keyset, exclusive."""

    states: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    owner: str = ""
    cluster_id: int | None = None
    tag: str = ""
    text: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    before: tuple[int, int] | None = None
    limit: int = 50


def to_bytes(record: JobRecord) -> bytes:
    """The whole record as JSON, for archives and exports."""
    document = {
        "v": VERSION, "id": record.id, "job": record.job, "args": record.args, "result": record.result,
        "clusters": record.clusters, "parts": record.parts, "events": record.events,
    }  # fmt: skip
    return orjson.dumps(document)


def from_bytes(data: bytes) -> JobRecord:
    """What `to_bytes` wrote, in any version. DarnerError for bytes that are no record."""
    try:
        document = orjson.loads(data)
        version = document["v"]
        if version != VERSION:
            raise DarnerError(f"A job record has version {version}; this Darner reads up to {VERSION}.")
        return JobRecord(
            id=int(document["id"]),
            job=document["job"],
            args=document["args"],
            result=document["result"],
            clusters=tuple(document["clusters"]),
            parts=tuple(document["parts"]),
            events=tuple(document["events"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DarnerError("These bytes are no job record.") from error
