"""Records read from rows, hot and warm alike, and put back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Table, insert, select

from darner.core.errors import DarnerError
from darner.core.job import Tier
from darner.db import among
from darner.db.tables.jobs import job, job_cluster, job_event, job_fold, job_part, job_payload
from darner.history.codec import Codec, Folded
from darner.history.record import VERSION, JobRecord
from darner.history.redact import redact_job, redact_json, redact_texts

# Columns of `job` that no filter and no order needs: a warm job has them in its blob only, and the defaults in its row.
FOLDED: dict[str, Any] = {
    "uuid": "", "cluster_count": 0, "part_count": 0, "part_done": 0, "part_failed": 0, "bytes_total": 0, "bytes_done": 0,
    "summary": "", "error": "", "priority": 0, "bio": "", "started_at": None, "deadline_at": 0, "updated_at": 0,
}  # fmt: skip
# SQLAlchemy's names are a type of their own, which JSON does not know.
_JOB_NAMES = tuple(str(column.name) for column in job.columns)
# The lease is over; who held it last is shown.
_NOT_OF_PARTS = frozenset({"job_id", "lease_id", "lease_until"})
_PART_COLUMNS = tuple(column for column in job_part.columns if column.name not in _NOT_OF_PARTS)
_TIMES = frozenset({"at", "created_at", "started_at", "finished_at", "updated_at", "deadline_at", "not_before"})
_EVENT_COLUMNS = tuple(column for column in job_event.columns if column.name != "job_id")


class _Beside(NamedTuple):
    """The rows beside a hot job's own."""

    payload: Sequence[Mapping[str, Any]]
    parts: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How rows of a hot job become parts of its record: its columns, its request, other stored JSON, and rows with texts."""

    job: Callable[[dict[str, Any]], dict[str, Any]]
    args: Callable[[str], Any]
    document: Callable[[str | bytes], Any]
    row: Callable[[Mapping[str, Any]], dict[str, Any]]


PLAIN = Reading(job=dict, args=orjson.loads, document=orjson.loads, row=dict)
# For blobs only: documents that hold nothing secret stay the text they are, unread.
REDACTED = Reading(job=redact_job, args=partial(redact_json, args=True), document=redact_json, row=redact_texts)


def read_records(conn: Connection, ids: Sequence[int], codec: Codec, reading: Reading = PLAIN) -> list[JobRecord]:
    """The records of the jobs that there are, in the order of `ids`. What is folded already was redacted then."""
    rows = {
        int(row[0]): dict(zip(_JOB_NAMES, row, strict=True)) for row in conn.execute(select(job).where(among(conn, job.c.id, ids)))
    }
    maybe_hot = [key for key, row in rows.items() if row["tier"] != Tier.WARM]
    payloads = _by_job(conn, job_payload, (job_payload.c.args, job_payload.c.result), maybe_hot)
    parts = _by_job(conn, job_part, _PART_COLUMNS, maybe_hot)
    # A warm job may have events of its own again: it was held, for instance.
    events = _by_job(conn, job_event, _EVENT_COLUMNS, list(rows))
    clusters = _by_job(conn, job_cluster, (job_cluster.c.cluster_id,), list(rows))
    # Blobs last: a job that is folded between two of these statements has one, and what was read of its rows does not count.
    warm = read_folds(conn, list(rows), codec)
    found = []
    for key in ids:
        if key not in rows:
            continue
        mine = tuple(int(one["cluster_id"]) for one in clusters.get(key, ()))
        late = tuple(events.get(key, ()))
        if key in warm:
            row = {**rows[key], "tier": rows[key]["tier"] or int(Tier.WARM)}
            found.append(record_from(row, mine, warm[key], late))
        elif rows[key]["tier"] != Tier.WARM:
            beside = _Beside(payloads.get(key, ()), parts.get(key, ()), late)
            found.append(_from_rows(reading, rows[key], mine, beside))
    return found


def read_folds(conn: Connection, ids: Sequence[int], codec: Codec) -> dict[int, dict[str, Any]]:
    """The blobs of the warm jobs among `ids`, unfolded: `{v, j: columns, a: args, r: result, p: parts, e: events}`."""
    return {key: parsed(text) for key, text in read_fold_texts(conn, ids, codec).items()}


def readable_folds(conn: Connection, ids: Sequence[int], codec: Codec) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """The blobs that can be read, and what is wrong with the others."""
    blobs: dict[int, dict[str, Any]] = {}
    damaged: dict[int, str] = {}
    for key, text in read_fold_texts(conn, ids, codec, damaged=damaged).items():
        try:
            blobs[key] = parsed(text)
        except DarnerError as error:
            damaged[key] = error.message
    return blobs, damaged


def read_fold_texts(
    conn: Connection, ids: Sequence[int], codec: Codec, *, damaged: dict[int, str] | None = None
) -> dict[int, bytes]:
    """The same as JSON, for those who look for something in very many.

    `damaged` takes what is wrong with those that cannot be read, by id; without it they are a DarnerError.
    """
    if not ids:
        return {}
    rows = conn.execute(
        select(job_fold.c.job_id, job_fold.c.dict_id, job_fold.c.body).where(among(conn, job_fold.c.job_id, ids))
    ).all()
    codec.learn(conn, {row[1] for row in rows})
    found = {}
    for key, dict_id, body in rows:
        try:
            found[int(key)] = codec.unfold(dict_id, bytes(body))
        except DarnerError as error:
            if damaged is None:
                raise
            damaged[int(key)] = error.message
    return found


def is_folded(conn: Connection, job_id: int) -> bool:
    """Whether a job's rows have become a blob; a removed job may be either."""
    return conn.execute(select(job_fold.c.job_id).where(job_fold.c.job_id == job_id)).first() is not None


def whole_row(row: Mapping[str, Any], blob: Mapping[str, Any]) -> dict[str, Any]:
    """A warm job's columns: those of its row, and those that its blob holds."""
    return {**row, **FOLDED, **_shifted(blob["j"], int(row["created_at"]))}


def blob_of(record: JobRecord, *, omit: frozenset[str] = frozenset()) -> bytes:
    """What a warm job's blob holds: everything that is not left in its row, nor in the columns of `omit`."""
    since = int(record.job["created_at"])
    kept = {name: record.job[name] for name in FOLDED if name not in omit and record.job.get(name) != FOLDED[name]}
    parts, events = _near(record.parts, since, -1), _near(record.events, since, -1)
    document = {"v": VERSION, "j": _shifted(kept, -since), "a": record.args, "r": record.result, "p": parts, "e": events}
    return orjson.dumps(document)


def put_record(conn: Connection, record: JobRecord, codec: Codec, *, now_ms: int, values: Mapping[str, Any] | None = None) -> None:
    """Put a job that is not in the database back as a warm one, with its old id; `values` override columns of its row."""
    known = {column.name for column in job.columns}
    row = {name: value for name, value in record.job.items() if name in known}
    row |= {
        "id": record.id,
        **FOLDED,
        "class": 0,
        "tier": int(Tier.WARM),
        "base_at": record.job.get("finished_at"),
        "updated_at": now_ms,
    }
    conn.execute(insert(job).values({**row, **(values or {})}))
    insert_folds(conn, {record.id: codec.fold(str(record.job["type"]), blob_of(record))})
    if record.clusters:
        conn.execute(insert(job_cluster), [{"job_id": record.id, "cluster_id": one} for one in record.clusters])


def insert_folds(conn: Connection, folds: Mapping[int, Folded]) -> None:
    """Store blobs."""
    rows = [{"job_id": key, "dict_id": one.dict_id, "raw_len": one.raw_len, "body": one.body} for key, one in folds.items()]
    conn.execute(insert(job_fold), rows)


def record_from(
    row: dict[str, Any], clusters: tuple[int, ...], blob: dict[str, Any], late: tuple[Mapping[str, Any], ...]
) -> JobRecord:
    """A record from its row, what a blob holds, and the timeline's lines that came after it was folded."""
    since = int(row["created_at"])
    told = tuple(_near(blob["e"], since, 1))
    known = {event["id"] for event in told}
    return JobRecord(
        id=row["id"], job=whole_row(row, blob), args=blob["a"], result=blob["r"], clusters=clusters,
        parts=tuple(_near(blob["p"], since, 1)), events=(*told, *(event for event in late if event["id"] not in known)),
    )  # fmt: skip


def _near(rows: Iterable[Mapping[str, Any]], since: int, sign: int) -> list[dict[str, Any]]:
    """Times counted from the job's creation and ids from the row before (sign -1), or as they were (1): few digits, few bytes."""
    found, last = [], 0
    for row in rows:
        near = _shifted(row, sign * since)
        near["id"] = row["id"] + sign * last
        last = row["id"] if sign < 0 else near["id"]
        found.append(near)
    return found


def _shifted(row: Mapping[str, Any], by: int) -> dict[str, Any]:
    return {name: value + by if name in _TIMES and value is not None else value for name, value in row.items()}


def _from_rows(reading: Reading, row: dict[str, Any], clusters: tuple[int, ...], beside: "_Beside") -> JobRecord:
    payload = beside.payload[0] if beside.payload else None
    return JobRecord(
        id=row["id"],
        job=reading.job(row),
        args=reading.args(payload["args"]) if payload else {},
        result=reading.document(payload["result"]) if payload and payload["result"] else None,
        clusters=clusters,
        parts=tuple([{**reading.row(part), "hosts": reading.document(part["hosts"])} for part in beside.parts]),
        events=tuple([reading.row(event) for event in beside.events]),
    )


def _by_job(conn: Connection, table: Table, columns: Iterable[Any], ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    if not ids:
        return found
    wanted = tuple(columns)
    names = [str(column.name) for column in wanted]
    statement = select(table.c.job_id, *wanted).where(among(conn, table.c.job_id, ids)).order_by(*table.primary_key.columns)
    for row in conn.execute(statement).all():
        found.setdefault(int(row[0]), []).append(dict(zip(names, row[1:], strict=True)))
    return found


def parsed(text: bytes) -> dict[str, Any]:
    """A blob as a document. DarnerError for one that is none, or of a version that this Darner does not read."""
    try:
        return checked(orjson.loads(text))
    except (orjson.JSONDecodeError, AttributeError) as error:
        raise DarnerError("A folded job cannot be read: it is no record.") from error


def checked(blob: dict[str, Any]) -> dict[str, Any]:
    """A blob whose version this Darner reads; else DarnerError."""
    if blob.get("v") != VERSION:
        raise DarnerError(f"A folded job has version {blob.get('v')}; this Darner reads up to {VERSION}.")
    return blob
