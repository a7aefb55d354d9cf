"""Rows to values and back."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, insert, select

from darner.core.errors import NotFoundError
from darner.core.job import DetailState, Importance, PartState, Tier
from darner.core.work import hosts_from_json, hosts_to_json
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_event, job_part
from darner.jobs.events import Job, Part, TimelineEvent
from darner.jobs.timeline import Line

Columns = RowMapping | Mapping[str, Any]
_JOB_FIELDS = (
    "id",
    "uuid",
    "type",
    "owner",
    "cluster_count",
    "part_count",
    "part_done",
    "part_failed",
    "bytes_total",
    "bytes_done",
    "summary",
    "error",
    "tag",
    "application",
    "priority",
    "bio",
    "created_at",
    "updated_at",
    "deadline_at",
    "started_at",
    "finished_at",
    "base_at",
    "hold_reason",
)
_PART_FIELDS = (
    "id",
    "job_id",
    "cluster_id",
    "ordinal",
    "url",
    "digest",
    "size_bytes",
    "target_count",
    "attempts",
    "lease_id",
    "lease_holder",
    "lease_until",
    "bytes_done",
    "piece_count",
    "pieces_done",
    "error",
    "not_before",
    "created_at",
    "started_at",
    "finished_at",
    "updated_at",
)
_NO_LEASE = {"lease_id": "", "lease_holder": "", "lease_until": 0}
JOB_COLUMNS = tuple(job_table.c[name] for name in (*_JOB_FIELDS, "state", "tier", "held", "labels", "importance"))


def job_from(row: Columns) -> Job:
    """A job from a row with JOB_COLUMNS."""
    plain = {name: row[name] for name in _JOB_FIELDS}
    labels = orjson.loads(row["labels"]) if row["labels"] else {}
    return Job(
        **plain,
        state=DetailState(row["state"]),
        tier=Tier(row["tier"]),
        held=bool(row["held"]),
        labels=labels,
        importance=Importance(row["importance"]),
    )


def part_from(row: Columns) -> Part:
    """A part from its row, or from a record, which keeps no leases and has the hosts as a list."""
    plain = {name: row.get(name, _NO_LEASE.get(name)) for name in _PART_FIELDS}
    stored = row["hosts"]
    hosts = hosts_from_json(stored if isinstance(stored, list) else orjson.loads(stored))
    return Part(**plain, state=PartState(row["state"]), verified=bool(row["verified"]), hosts=hosts)


def part_values(part: Part) -> dict[str, Any]:
    """The columns of a part, without its id."""
    plain = {name: getattr(part, name) for name in _PART_FIELDS if name != "id"}
    return {**plain, "state": part.state, "verified": int(part.verified), "hosts": orjson.dumps(hosts_to_json(part.hosts))}


def event_from(row: Columns) -> TimelineEvent:
    """A timeline line from its row."""
    return TimelineEvent(**{name: row[name] for name in ("id", "job_id", "part_id", "at", "kind", "message")})


def lock_job(conn: Connection, job_id: int) -> Job:
    """The job, locked until the transaction ends. Raises NotFoundError."""
    row = conn.execute(select(*JOB_COLUMNS).where(job_table.c.id == job_id).with_for_update()).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}")
    return job_from(row)


def parts_of(conn: Connection, job_id: int) -> list[Part]:
    """All parts of a job."""
    rows = conn.execute(select(job_part).where(job_part.c.job_id == job_id).order_by(job_part.c.id)).mappings()
    return [part_from(row) for row in rows]


def tell(conn: Connection, job_id: int, lines: list[Line], *, now: int) -> None:
    """Append to a job's timeline."""
    if lines:
        rows = [
            {"job_id": job_id, "at": now, "part_id": line.part_id, "kind": line.kind, "message": line.message} for line in lines
        ]
        conn.execute(insert(job_event), rows)
