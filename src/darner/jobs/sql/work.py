"""Parts handed out, reported on, and taken back."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, select, union_all, update

from darner.core.job import END_STATES, PART_END_STATES, DetailState, PartState
from darner.core.work import WorkReport
from darner.db import Database, db_now_ms
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_part, job_secret
from darner.jobs.events import (
    DeadlinePassed,
    Job,
    LeaseChecked,
    Leased,
    LeasedPart,
    Limits,
    Part,
    PartEvent,
    Refused,
    Reply,
    Reported,
)
from darner.jobs.sql.rows import lock_job, part_from, part_values, parts_of
from darner.jobs.sql.settle import add_progress, end_unplanned, settle, write_parts
from darner.jobs.state import after

OPEN_STATES = (DetailState.QUEUED, DetailState.RUNNING, DetailState.CANCELLING)
TICK_LIMIT = 200


class SqlWorkBook:
    """WorkBook over a Database."""

    def __init__(self, db: Database, limits: Limits, *, now: Callable[[Connection], int] = db_now_ms) -> None:
        """Use a migrated database."""
        self._db = db
        self._limits = limits
        self._now = now

    async def lease(self, cluster_id: int, holder: str, lease_ids: Sequence[str]) -> list[LeasedPart]:
        """Hand out at most as many parts as there are fresh lease ids, those that wait longest first."""
        if not await self._db.read(lambda conn: conn.execute(waiting(cluster_id, self._now(conn), 1)).first()):
            return []
        return await self._db.write(lambda conn: self._lease(conn, cluster_id, holder, lease_ids))

    async def report(self, lease_id: str, report: WorkReport) -> Reply:
        """Take in how far a part is. A report of somebody who has lost the lease changes nothing."""
        # Progress may be told again, an end must survive a power cut.
        return await self._db.write(lambda conn: self._report(conn, lease_id, report), durable=report.outcome is not None)

    async def refuse(self, part_id: int, reason: str) -> int | None:
        """End a part that can't be carried out; the id of its job."""

        def run(conn: Connection) -> int | None:
            row = conn.execute(select(job_part.c.job_id).where(job_part.c.id == part_id)).first()
            if row is None:
                return None
            self._change(conn, int(row[0]), Refused(reason=reason), part_ids={part_id})
            return int(row[0])

        return await self._db.write(run)

    async def tick(self) -> list[int]:
        """Take back parts whose worker went silent and end jobs past their deadline; ids of the jobs that changed."""
        lost, late = await self._db.read(self._due)
        changed = []
        for job_id, part_id in lost:
            await self._db.write(partial(self._change, job_id=job_id, event=LeaseChecked(), part_ids={part_id}))
            changed.append(job_id)
        for job_id in late:
            await self._db.write(partial(self._deadline, job_id=job_id))
            changed.append(job_id)
        return changed

    def _lease(self, conn: Connection, cluster_id: int, holder: str, lease_ids: Sequence[str]) -> list[LeasedPart]:
        now = self._now(conn)
        statement = waiting(cluster_id, now, len(lease_ids)).with_for_update(skip_locked=True)
        parts = [part_from(row) for row in conn.execute(statement).mappings()]
        by_job: dict[int, list[Part]] = {}
        for part in parts:
            by_job.setdefault(part.job_id, []).append(part)
        fresh, out = iter(lease_ids), []
        for job_id, kept in sorted(by_job.items()):
            out += self._lease_of(conn, lock_job(conn, job_id), kept, [Leased(lease_id=next(fresh), holder=holder) for _ in kept])
        return out

    def _lease_of(self, conn: Connection, job: Job, parts: list[Part], events: list[Leased]) -> list[LeasedPart]:
        now = self._now(conn)
        sealed = conn.execute(select(job_secret.c.sealed).where(job_secret.c.job_id == job.id)).scalar_one_or_none()
        if sealed is None:
            return []
        pairs = [
            (part, after(part, event, job=job.state, now=now, limits=self._limits))
            for part, event in zip(parts, events, strict=True)
        ]
        taken = [(before, then) for before, then in pairs if then is not before]
        running = settle(conn, job, now=now, lines=write_parts(conn, taken))
        return [LeasedPart(part=then, job=running, sealed=sealed, now=now) for _, then in taken]

    def _report(self, conn: Connection, lease_id: str, report: WorkReport) -> Reply:
        row = conn.execute(select(job_part.c.job_id).where(job_part.c.lease_id == lease_id)).first() if lease_id else None
        if row is None:
            return Reply(accepted=False, cancel=True)
        job = lock_job(conn, int(row[0]))
        part = part_from(conn.execute(select(job_part).where(job_part.c.lease_id == lease_id)).mappings().one())
        now = self._now(conn)
        then = after(part, Reported(lease_id=lease_id, report=report), job=job.state, now=now, limits=self._limits)
        if then is part:
            # A repeated last message of the holder is accepted, so that it may stop; nothing changes.
            return Reply(accepted=part.state in PART_END_STATES, cancel=True)
        if then.state == part.state:
            conn.execute(update(job_part).where(job_part.c.id == part.id).values(**part_values(then)))
            add_progress(conn, job, part, then)
        else:
            settle(conn, job, now=now, lines=write_parts(conn, [(part, then)]))
        return Reply(accepted=True, cancel=job.state == DetailState.CANCELLING, job_id=job.id)

    def _change(self, conn: Connection, job_id: int, event: PartEvent, *, part_ids: set[int] | None = None) -> None:
        job = lock_job(conn, job_id)
        now = self._now(conn)
        parts = [part for part in parts_of(conn, job_id) if part_ids is None or part.id in part_ids]
        pairs = [(part, after(part, event, job=job.state, now=now, limits=self._limits)) for part in parts]
        if any(then is not before for before, then in pairs):
            settle(conn, job, now=now, lines=write_parts(conn, pairs))

    def _deadline(self, conn: Connection, job_id: int) -> None:
        job = lock_job(conn, job_id)
        now = self._now(conn)
        if job.state in END_STATES or job.deadline_at > now:
            return
        if job.part_count:
            self._change(conn, job_id, DeadlinePassed())
        else:
            end_unplanned(conn, job, DetailState.TIMED_OUT, "the deadline passed before the work could be planned", now=now)

    def _due(self, conn: Connection) -> tuple[list[tuple[int, int]], list[int]]:
        now = self._now(conn)
        lost = [(int(row[0]), int(row[1])) for row in conn.execute(lost_leases(now))]
        return lost, [int(key) for key in conn.execute(late_jobs(now)).scalars()]


def waiting(cluster_id: int, now: int, limit: int) -> Select[Any]:
    """Parts of a cluster that may be handed out."""
    part = job_part.c
    where = (part.state == PartState.WAITING, part.cluster_id == cluster_id, part.not_before <= now)
    return select(job_part).where(*where).order_by(part.not_before, part.id).limit(limit)


def lost_leases(now: int) -> Select[Any]:
    """Parts whose worker went silent."""
    part = job_part.c
    return select(part.job_id, part.id).where(part.state == PartState.LEASED, part.lease_until <= now).limit(TICK_LIMIT)


def late_jobs(now: int) -> CompoundSelect[Any]:
    """Open jobs past their deadline; one walk per state, because the few open jobs hide among very many ended ones."""
    job = job_table.c
    return union_all(*(select(job.id).where(job.state == state, job.deadline_at <= now) for state in OPEN_STATES)).limit(TICK_LIMIT)
