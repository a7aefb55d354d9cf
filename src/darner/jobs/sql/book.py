"""Jobs written: create, plan, and what people do to them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from darner.core.errors import ConflictError, NotFoundError
from darner.core.job import END_STATES, DetailState, PartState, Tier
from darner.db import Database, db_now_ms
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_cluster, job_part, job_payload, job_secret
from darner.history.codec import Codec
from darner.history.fold import change_fold
from darner.history.holds import hide_job, hold_job, release_job
from darner.history.redact import redact_args
from darner.history.rows import read_folds
from darner.jobs.events import (
    Action,
    Cancel,
    CancelAsked,
    Describe,
    Hold,
    Job,
    Limits,
    NewJob,
    Plan,
    Release,
    Remove,
)
from darner.jobs.rules import labels_text
from darner.jobs.sql.rows import lock_job, parts_of, tell
from darner.jobs.sql.settle import end_unplanned, finish, settle, write_parts
from darner.jobs.state import after
from darner.jobs.timeline import Line

PART_CHUNK = 500


class SqlJobBook:
    """JobBook over a Database. `now` reads the clock that all times come from (tests move it)."""

    def __init__(
        self, db: Database, limits: Limits, *, now: Callable[[Connection], int] = db_now_ms, codec: Codec | None = None
    ) -> None:
        """Use a migrated database. `codec` reads and changes folded jobs."""
        self._db = db
        self._limits = limits
        self._now = now
        self._codec = codec or Codec()

    async def create(self, new: NewJob) -> tuple[int, bool]:
        """Store the job and its first timeline line; (id, True). The same idempotency key again: (id of then, False).

        ConflictError if that key came with another request.
        """
        return await self._db.write(lambda conn: _create(conn, new, self._codec, now=self._now(conn)))

    async def unplanned(self, limit: int) -> list[int]:
        """Ids of jobs that wait to be planned, oldest first."""
        job = job_table.c
        where = (job.state == DetailState.QUEUED, job.part_count == 0)
        statement = select(job.id).where(*where).order_by(job.created_at, job.id).limit(limit)
        return await self._db.read(lambda conn: [int(key) for key in conn.execute(statement).scalars()])

    async def sealed(self, job_id: int) -> bytes | None:
        """The sealed request; None once the job has ended."""
        statement = select(job_secret.c.sealed).where(job_secret.c.job_id == job_id)
        return await self._db.read(lambda conn: conn.execute(statement).scalar_one_or_none())

    async def plan(self, job_id: int, plan: Plan) -> bool:
        """Write the parts, or end the job with the plan's error. False if it was planned or ended meanwhile."""
        return await self._db.write(lambda conn: _plan(conn, job_id, plan, now=self._now(conn)))

    async def act(self, job_id: int, action: Action, *, by: str) -> Job:
        """Do what a person asks; the job afterwards. NotFoundError, or ConflictError if its state forbids it."""

        def run(conn: Connection) -> Job:
            job, now = lock_job(conn, job_id), self._now(conn)
            if job.tier == Tier.DELETED and not isinstance(action, Hold):
                raise NotFoundError(f"job {job_id} was removed; restore it first")
            if isinstance(action, Describe):
                return _describe(conn, job, action, self._codec, line=Line(kind="described", message=f"described by {by}"), now=now)
            return _act(conn, job, action, by, now, self._limits)

        return await self._db.write(run)


def _create(conn: Connection, new: NewJob, codec: Codec, *, now: int) -> tuple[int, bool]:
    args = orjson.dumps(new.args).decode()
    if new.idempotency_key is not None:
        earlier = _earlier(conn, new, args, codec)
        if earlier is not None:
            return earlier, False
    values = {name: getattr(new, name) for name in ("uuid", "type", "owner", "summary", "bio", "tag", "application", "priority")}
    times = {"created_at": now, "updated_at": now, "deadline_at": now + new.timeout_ms}
    told = {"labels": labels_text(new.labels), "importance": int(new.importance)}
    row = {**values, **times, **told, "state": DetailState.QUEUED, "cluster_count": len(new.cluster_ids)}
    inserted = conn.execute(insert(job_table).values(**row, idempotency_key=new.idempotency_key))
    key = inserted.inserted_primary_key
    if key is None:
        raise ConflictError("the database gave the job no id")
    job_id = int(key[0])
    conn.execute(insert(job_payload).values(job_id=job_id, args=args))
    conn.execute(insert(job_secret).values(job_id=job_id, sealed=new.sealed))
    conn.execute(insert(job_cluster), [{"job_id": job_id, "cluster_id": cluster_id} for cluster_id in new.cluster_ids])
    tell(conn, job_id, [Line(kind="created", message=f"created by {new.owner or 'nobody named'}: {new.summary}")], now=now)
    return job_id, True


def _earlier(conn: Connection, new: NewJob, args: str, codec: Codec) -> int | None:
    """The job that came with this idempotency key, in whatever tier. ConflictError if its request was another one."""
    job = job_table.c
    columns = (job.id, job.type, job.labels, job.importance, job_payload.c.args)
    beside = job_table.outerjoin(job_payload, job_payload.c.job_id == job.id)
    found = select(*columns).select_from(beside).where(job.idempotency_key == new.idempotency_key)
    row = conn.execute(found).one_or_none()
    if row is None:
        return None
    same = (row.type, row.labels, row.importance) == (new.type, labels_text(new.labels), int(new.importance))
    if not (same and _same_args(conn, row.id, row.args, args, codec)):
        raise ConflictError("this Idempotency-Key came with another request before; use a new one", field="Idempotency-Key")
    return int(row.id)


def _same_args(conn: Connection, job_id: int, stored: str | None, args: str, codec: Codec) -> bool:
    if stored is not None:
        return stored == args
    # A folded request has lost its secrets once more.
    folded = read_folds(conn, [job_id], codec).get(job_id)
    return folded is not None and folded["a"] == redact_args(orjson.loads(args))


def _plan(conn: Connection, job_id: int, plan: Plan, *, now: int) -> bool:
    job = lock_job(conn, job_id)
    if job.state != DetailState.QUEUED or job.part_count:
        return False
    if plan.error or not plan.contents:
        end_unplanned(conn, job, DetailState.FAILED, plan.error or "there is nothing to do", now=now)
        return True
    if plan.sealed is not None:
        conn.execute(update(job_secret).where(job_secret.c.job_id == job_id).values(sealed=plan.sealed))
    clusters = list(conn.execute(select(job_cluster.c.cluster_id).where(job_cluster.c.job_id == job_id)).scalars())
    rows = [
        {**_part_row(job_id, cluster_id, now), "ordinal": ordinal, "url": content.url, "digest": content.digest,
         "size_bytes": content.size_bytes}
        for ordinal, content in enumerate(plan.contents)
        for cluster_id in clusters
    ]  # fmt: skip
    for start in range(0, len(rows), PART_CHUNK):
        conn.execute(insert(job_part), rows[start : start + PART_CHUNK])
    text = f"planned: {len(plan.contents)} content{'' if len(plan.contents) == 1 else 's'} for clusters {_names(clusters)}"
    lines = [Line(kind="planned", message=text), *(Line(kind="note", message=note[:1024]) for note in plan.notes)]
    settle(conn, job, now=now, lines=lines)
    return True


def _names(clusters: Sequence[int]) -> str:
    return ", ".join(str(cluster_id) for cluster_id in clusters[:20]) + ("…" if len(clusters) > 20 else "")  # noqa: PLR2004


def _part_row(job_id: int, cluster_id: int, now: int) -> dict[str, Any]:
    times = {"not_before": now, "created_at": now, "updated_at": now}
    return {"job_id": job_id, "cluster_id": cluster_id, "state": PartState.WAITING, "hosts": b"[]", **times}


def _act(conn: Connection, job: Job, action: Cancel | Hold | Release | Remove, by: str, now: int, limits: Limits) -> Job:
    match action:
        case Cancel():
            return _cancel(conn, job, by, now, limits)
        case Hold(reason=reason, until=until):
            hold_job(conn, job.id, reason=reason, by=by, until=until, now_ms=now)
            return lock_job(conn, job.id)
        case Release():
            release_job(conn, job.id, by=by, now_ms=now)
            return lock_job(conn, job.id)
        case Remove():
            return _remove(conn, job, by, now)


def _cancel(conn: Connection, job: Job, by: str, now: int, limits: Limits) -> Job:
    if job.state in END_STATES:
        raise ConflictError(f"job {job.id} has ended already ({job.state}); there is nothing to cancel")
    if job.state == DetailState.CANCELLING:
        return job
    asked = [Line(kind="cancel_asked", message=f"{by} asked to cancel")]
    tell(conn, job.id, asked, now=now)
    if not job.part_count:
        return end_unplanned(conn, job, DetailState.CANCELLED, "cancelled by a person", now=now)
    cancelling = finish(conn, job, replace(job, state=DetailState.CANCELLING, updated_at=now), now=now, lines=[])
    parts = parts_of(conn, job.id)
    event = CancelAsked()
    changes = [(part, after(part, event, job=cancelling.state, now=now, limits=limits)) for part in parts]
    return settle(conn, cancelling, now=now, lines=write_parts(conn, changes))


def _describe(conn: Connection, job: Job, action: Describe, codec: Codec, *, line: Line, now: int) -> Job:
    if job.tier == Tier.HOT:
        conn.execute(update(job_table).where(job_table.c.id == job.id).values(bio=action.bio))
    else:
        change_fold(conn, job.id, codec, bio=action.bio)
        # Whoever archives the job at this moment sees by its timeline that it has changed.
        tell(conn, job.id, [line], now=now)
    return replace(job, bio=action.bio)


def _remove(conn: Connection, job: Job, by: str, now: int) -> Job:
    if job.state not in END_STATES:
        raise ConflictError(f"job {job.id} is still {job.state}; cancel it first")
    if job.held:
        raise ConflictError(f"job {job.id} is held ({job.hold_reason}); release it first")
    hide_job(conn, job.id, by=by, now_ms=now)
    return replace(job, tier=Tier.DELETED, base_at=now)
