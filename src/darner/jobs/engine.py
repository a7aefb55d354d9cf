"""The manager's side of jobs: creates them, hands out their parts, takes reports in, and keeps time.

Holds no truth of its own: everything is in the database, and any number of engines may work on the same one. `async with engine`
runs the planner and the ticker; leaving it stops both. `stop_waiting` ends long polls and streams, so that a server can close.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from darner.core.errors import ConflictError, DarnerError, InvalidInputError, NotFoundError, StorageFullError
from darner.core.job import Importance, Tier
from darner.core.work import PartOrder, Verdict, WorkReport
from darner.history.redact import redact_text
from darner.jobs.bell import PLAN, WORK, Bell
from darner.jobs.config import JobsConfig
from darner.jobs.events import Action, Details, Hold, Job, JobSpec, LeasedPart, Limits, NewJob
from darner.jobs.planner import TROUBLE_CAP_S, Planner
from darner.jobs.ports import Admission, HostDirectory, ImageResolver, JobBook, JobHistory, RetentionView, Sealer, WorkBook
from darner.jobs.rules import labels_text, parse_request, shown_args, summary_of
from darner.jobs.secrets import WORK as WORK_OF_TYPE
from darner.jobs.secrets import Sealed, pack, unpack
from darner.jobs.view import MAX_RESULT_HOSTS, result_json
from darner.kit.clock import Clock, SystemClock
from darner.kit.log import get_logger
from darner.kit.retry import backoff

KEPT_SPECS = 256
_log = get_logger("jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPorts:
    """What the engine needs of others."""

    book: JobBook
    work: WorkBook
    history: JobHistory
    clusters: HostDirectory
    resolver: ImageResolver
    retention: RetentionView
    vault: Sealer
    admission: Admission | None = None


def limits_of(config: JobsConfig) -> Limits:
    """The state machine's share of the configuration."""
    return Limits(
        lease_ms=round(config.lease_s * 1000),
        max_attempts=config.max_attempts,
        patience_ms=round(config.patience_s * 1000),
        retry_first_ms=round(config.retry_first_s * 1000),
        retry_cap_ms=round(config.retry_cap_s * 1000),
    )


class JobsEngine:
    """One per manager process."""

    def __init__(self, config: JobsConfig, ports: JobPorts, *, clock: Clock | None = None) -> None:
        """Nothing runs yet."""
        self.config = config
        self.history = ports.history
        self.bell = Bell()
        self._ports = ports
        self._clock = clock or SystemClock()
        self._planner = Planner(config, ports.book, ports.resolver, ports.vault, self.bell, clock=self._clock)
        self._specs: dict[int, tuple[bytes, Sealed]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the planner and the ticker."""
        tasks = [asyncio.create_task(self._forever(run)) for run in (self._planner.run, self._tick)]
        self._stack.push_async_callback(_cancel, tasks)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waiting ends first, then the loops; open work stays in the database."""
        self.stop_waiting()
        await self._stack.aclose()

    def stop_waiting(self) -> None:
        """End long polls and streams."""
        self.bell.stop()

    async def create(self, body: Mapping[str, Any], *, owner: str, idempotency_key: str | None = None) -> Details:
        """Store the job a decoded request asks for. InvalidInputError names the field at fault; then nothing is stored.

        StorageFullError: there is hardly any room, and the job is of low importance.
        """
        spec = parse_request(body, timeout_s=self.config.default_timeout_s, max_timeout_s=self.config.max_timeout_s)
        if spec.source == "file" and len(spec.urls) > self.config.max_parts:
            raise InvalidInputError(f"args.urls: at most {self.config.max_parts} contents per job", field="args.urls")
        if spec.importance == Importance.LOW and self._ports.admission is not None:
            refusal = self._ports.admission.refuses_low_priority()
            if refusal:
                raise StorageFullError(refusal)
        if redact_text(labels_text(spec.labels)) != labels_text(spec.labels):
            raise InvalidInputError("labels: one looks like a secret, and everybody who sees the job sees them", field="labels")
        cluster_ids = await self._clusters_for(spec)
        args = shown_args(body["args"])
        new = NewJob(
            uuid=str(uuid.uuid4()),
            type=spec.type,
            owner=owner[:128],
            summary=summary_of(spec),
            bio=spec.bio,
            tag=spec.tag,
            application=spec.application,
            priority=spec.priority,
            timeout_ms=round(spec.timeout_s * 1000),
            cluster_ids=cluster_ids,
            args=args,
            sealed=self._ports.vault.seal(pack({**body, "scheduler_cluster_ids": list(cluster_ids)})),
            idempotency_key=_key(owner, idempotency_key),
            labels=spec.labels,
            importance=spec.importance,
        )
        job_id, fresh = await self._ports.book.create(new)
        _log.info("job created" if fresh else "job known by its idempotency key", job_id=job_id, type=spec.type, owner=owner)
        self.bell.ring(PLAN)
        return await self.history.details(job_id)

    async def retry(self, job_id: int, *, by: str) -> Details:
        """A new job like an ended one. ConflictError if it is still open, or had secrets (they were dropped when it ended)."""
        old = await self.details(job_id)
        if old.job.finished_at is None:
            raise ConflictError(f"job {job_id} is still {old.job.state}; cancel it first")
        if old.args.get("redacted"):
            raise ConflictError(f"the credentials of job {job_id} were dropped when it ended; create a new job with them")
        body = {
            "type": old.job.type,
            "args": old.args,
            "scheduler_cluster_ids": list(old.cluster_ids),
            "bio": old.job.bio,
            "labels": dict(old.job.labels),
            "importance": old.job.importance.word,
        }
        return await self.create(body, owner=by)

    async def act(self, job_id: int, action: Action, *, by: str) -> Job:
        """Cancel, hold, release, describe or remove. NotFoundError, ConflictError. An archived job comes back to be held."""
        try:
            job = await self._ports.book.act(job_id, action, by=by)
        except NotFoundError:
            if (await self.details(job_id)).job.tier != Tier.ARCHIVE:
                raise
            if not isinstance(action, Hold):
                raise ConflictError(f"job {job_id} is in the archive, where nothing changes; restore it first") from None
            await self._ports.retention.restore(job_id, by=by)
            job = await self._ports.book.act(job_id, action, by=by)
        _log.info("job changed by a person", job_id=job_id, action=type(action).__name__, by=by, state=job.state)
        self.bell.ring(job_id)
        return job

    async def details(self, job_id: int, *, removed: bool = False) -> Details:
        """One job; `removed`: even if it was removed. Raises NotFoundError, which says so and until when it can be restored."""
        found = await self.history.details(job_id)
        if removed or found.job.tier != Tier.DELETED:
            return found
        (kept,) = await self.explain([found.job])
        until = f" until {kept['moves_at']}" if kept.get("moves_at") else ""
        raise NotFoundError(f"job {job_id} was removed; it can be restored{until} (darner jobs restore {job_id})")

    async def restore(self, job_id: int, *, by: str) -> Details:
        """Bring a removed or archived job back; it is held from then on. NotFoundError, ConflictError if it was never away."""
        await self._ports.retention.restore(job_id, by=by)
        self.bell.ring(job_id)
        return await self.history.details(job_id)

    async def lease(
        self, cluster_id: int, worker: str, limit: int, *, gone: Callable[[], Awaitable[bool]], wait_s: float | None = None
    ) -> list[PartOrder]:
        """Up to `limit` parts for a worker; waits for one. `gone`: whether the asker hung up (then nothing is handed out)."""
        wait_s = self.config.long_poll_s if wait_s is None else min(wait_s, self.config.long_poll_s)
        ends = self._clock.monotonic() + wait_s
        with self.bell.listen(WORK) as ear:
            while not self.bell.stopped and not await gone():
                leased = await self._ports.work.lease(cluster_id, worker, [str(uuid.uuid4()) for _ in range(limit)])
                orders = [order for part in leased if (order := await self._order(part)) is not None]
                self.bell.ring(*{part.job.id for part in leased})
                rest_s = ends - self._clock.monotonic()
                if orders or rest_s <= 0:
                    return orders
                await ear.wait(min(self.config.tick_s, rest_s))
        return []

    async def report(self, lease_id: str, report: WorkReport) -> Verdict:
        """Take in how far a part is, or how it ended."""
        reply = await self._ports.work.report(lease_id, report)
        if reply.job_id is not None:
            self.bell.ring(reply.job_id)
        return Verdict(accepted=reply.accepted, cancel=reply.cancel)

    async def result(self, details: Details) -> Mapping[str, Any]:
        """Upstream's `result`: as stored at the end, until then from the parts as they are."""
        if details.result is not None:
            return details.result
        return result_json(details.job, await self.history.parts(details.job.id, limit=MAX_RESULT_HOSTS))

    async def explain(self, jobs: Sequence[Job]) -> Sequence[Mapping[str, Any]]:
        """How long each job is kept, and why."""
        return await self._ports.retention.explain(jobs)

    async def cluster_names(self) -> dict[int, str]:
        """Names of clusters by id."""
        return {cluster.id: cluster.name for cluster in await self._ports.clusters.clusters()}

    async def _clusters_for(self, spec: JobSpec) -> tuple[int, ...]:
        known = await self._ports.clusters.clusters()
        if spec.cluster_ids is None:
            chosen = [cluster.id for cluster in known if cluster.active] or [cluster.id for cluster in known]
            if not chosen:
                raise InvalidInputError("there is no cluster yet; start a scheduler first", field="scheduler_cluster_ids")
            return tuple(sorted(chosen))
        unknown = sorted(set(spec.cluster_ids) - {cluster.id for cluster in known})
        if unknown:
            names = ", ".join(str(cluster.id) for cluster in known) or "none"
            message = f"scheduler_cluster_ids: there is no cluster {unknown[0]}; known are {names}"
            raise InvalidInputError(message, field="scheduler_cluster_ids")
        return spec.cluster_ids

    async def _order(self, leased: LeasedPart) -> PartOrder | None:
        part, job = leased.part, leased.job
        try:
            sealed = self._opened(job.id, leased.sealed)
            download = sealed.download(part)
        except DarnerError as error:
            await self._ports.work.refuse(part.id, f"its request cannot be read: {error.message}")
            return None
        return PartOrder(
            lease_id=part.lease_id,
            part_id=part.id,
            job_id=job.id,
            cluster_id=part.cluster_id,
            kind=WORK_OF_TYPE[sealed.spec.type],
            download=download,
            target=sealed.spec.target,
            lease_s=self.config.lease_s,
            deadline_in_s=max((job.deadline_at - leased.now) / 1000, 0.0),
            concurrent_task_count=sealed.spec.concurrent_task_count,
            earlier=part.hosts,
        )

    def _opened(self, job_id: int, sealed: bytes) -> Sealed:
        kept = self._specs.get(job_id)
        if kept is not None and kept[0] == sealed:
            return kept[1]
        opened = unpack(self._ports.vault.open(sealed))
        while len(self._specs) >= KEPT_SPECS:
            self._specs.pop(next(iter(self._specs)))
        self._specs[job_id] = (sealed, opened)
        return opened

    async def _forever(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001  (a defect must not stop planning or leases for good)
                _log.exception("a loop of the jobs room failed; it starts again")
            await self._clock.sleep(1.0)

    async def _tick(self) -> None:
        trouble = backoff(first_s=self.config.tick_s, cap_s=TROUBLE_CAP_S)
        while True:
            await self._clock.sleep(self.config.tick_s)
            try:
                changed = await self._ports.work.tick()
            except DarnerError as error:
                _log.warning("cannot look after leases", reason=error.message)
                await self._clock.sleep(next(trouble))
                continue
            trouble = backoff(first_s=self.config.tick_s, cap_s=TROUBLE_CAP_S)
            if changed:
                self.bell.ring(WORK, *changed)


def _key(owner: str, given: str | None) -> str | None:
    if given is None:
        return None
    if not 1 <= len(given) <= 256:  # noqa: PLR2004
        raise InvalidInputError("Idempotency-Key: expected 1 to 256 characters", field="Idempotency-Key")
    return hashlib.sha256(f"{owner}\0{given}".encode()).hexdigest()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
