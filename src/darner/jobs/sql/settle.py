"""Stores changed parts and folds them into their job, in the caller's transaction: the one place where a job's state changes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, select, update

from darner.core.job import END_STATES, PART_END_STATES, DetailState, PartState
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_part, job_payload, job_secret
from darner.jobs.events import Job, Part
from darner.jobs.sql.rows import part_values, parts_of, tell
from darner.jobs.state import Tally, fold, reason
from darner.jobs.timeline import Line, job_line, part_line
from darner.jobs.view import result_json


def write_parts(conn: Connection, changes: Iterable[tuple[Part, Part]]) -> list[Line]:
    """Store parts that changed (before, after); what the timeline is to tell of them."""
    lines = []
    for before, after in changes:
        if after is before:
            continue
        conn.execute(update(job_part).where(job_part.c.id == after.id).values(**part_values(after)))
        line = part_line(before, after)
        if line is not None:
            lines.append(line)
    return lines


def add_progress(conn: Connection, job: Job, before: Part, after: Part) -> None:
    """Carry a part's progress over to its job without counting all parts; the next change of a state counts anew."""
    bytes_done = after.bytes_done - before.bytes_done
    bytes_total = _weight(after) - _weight(before)
    if bytes_done or bytes_total:
        counted = {
            "bytes_done": job_table.c.bytes_done + bytes_done,
            "bytes_total": job_table.c.bytes_total + bytes_total,
            "updated_at": after.updated_at,
        }
        conn.execute(update(job_table).where(job_table.c.id == job.id).values(**counted))


def _weight(part: Part) -> int:
    return part.size_bytes * max(part.target_count, 1)


def settle(conn: Connection, job: Job, *, now: int, lines: list[Line] | None = None) -> Job:
    """Fold the parts of a locked job into it and store it; at its end also the result, and its secrets go."""
    tally, figures = _count(conn, job.id)
    state = fold(job.state, tally)
    after = replace(job, state=state, **figures, updated_at=now)
    if state != DetailState.QUEUED and job.started_at is None and tally.begun:
        after = replace(after, started_at=now)
    if state in END_STATES:
        after = replace(after, finished_at=now, error=reason(state, tally.total, _errors(conn, job.id)))
    return finish(conn, job, after, now=now, lines=lines or [])


def end_unplanned(conn: Connection, job: Job, state: DetailState, error: str, *, now: int) -> Job:
    """End a job that has no parts."""
    after = replace(job, state=state, error=error, finished_at=now, updated_at=now)
    return finish(conn, job, after, now=now, lines=[])


def finish(conn: Connection, before: Job, after: Job, *, now: int, lines: list[Line]) -> Job:
    """Store the job as it is now, and its timeline."""
    values: dict[str, Any] = {
        name: getattr(after, name)
        for name in (
            "state", "error", "part_count", "part_done", "part_failed", "bytes_total", "bytes_done",
            "started_at", "finished_at", "updated_at",
        )
    }  # fmt: skip
    if after.finished_at is not None:
        values["base_at"] = after.finished_at
    conn.execute(update(job_table).where(job_table.c.id == after.id).values(**values))
    if after.state in END_STATES and before.state not in END_STATES:
        result = orjson.dumps(result_json(after, parts_of(conn, after.id))).decode()
        conn.execute(update(job_payload).where(job_payload.c.job_id == after.id).values(result=result))
        conn.execute(delete(job_secret).where(job_secret.c.job_id == after.id))
    line = job_line(before.state, after)
    tell(conn, after.id, [*lines, line] if line else lines, now=now)
    return after


def _count(conn: Connection, job_id: int) -> tuple[Tally, dict[str, Any]]:
    part = job_part.c
    targets = func.max(part.target_count, 1) if conn.dialect.name == "sqlite" else func.greatest(part.target_count, 1)
    statement = (
        select(
            part.state,
            func.count().label("parts"),
            func.sum(part.size_bytes * targets).label("total"),
            func.sum(part.bytes_done).label("done"),
            func.max(part.attempts).label("attempts"),
        )
        .where(part.job_id == job_id)
        .group_by(part.state)
    )
    rows = conn.execute(statement).mappings().all()
    counts = {PartState(row["state"]): int(row["parts"]) for row in rows}
    ended = sum(count for state, count in counts.items() if state in PART_END_STATES)
    figures = {
        "part_count": sum(counts.values()),
        "part_done": ended,
        "part_failed": ended - counts.get(PartState.SUCCEEDED, 0),
        "bytes_total": sum(int(row["total"]) for row in rows),
        "bytes_done": sum(int(row["done"]) for row in rows),
    }
    return Tally(counts=counts, begun=any(row["attempts"] for row in rows)), figures


def _errors(conn: Connection, job_id: int) -> dict[str, int]:
    part = job_part.c
    statement = (
        select(part.error, func.count())
        .where(part.job_id == job_id, part.state.not_in([PartState.SUCCEEDED]), part.error != "")
        .group_by(part.error)
    )
    return {text: int(count) for text, count in conn.execute(statement)}
