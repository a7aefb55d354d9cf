"""Turns jobs that were just created into parts: files at once, images after their manifests were read.

Reads its work from the database, so a job whose manager was killed between the answer to POST and planning is planned by
whichever manager looks next. Two managers may resolve the same image at the same time; only one plan is written.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from darner.core.errors import DarnerError, TimedOutError
from darner.jobs.bell import PLAN, WORK, Bell
from darner.jobs.config import JobsConfig
from darner.jobs.events import IMAGE, Content, JobSpec, Plan
from darner.jobs.ports import ImageResolver, JobBook, Resolved, Sealer
from darner.jobs.rules import may_help_to_retry, shown_url
from darner.jobs.secrets import body_of, pack, unpack
from darner.kit.clock import Clock
from darner.kit.log import get_logger
from darner.kit.retry import backoff

RESOLVE_TIMEOUT_S = 120.0
LOOK_LIMIT = 100
_log = get_logger("jobs")

# How long the room's loops wait, at most, while the database is away.
TROUBLE_CAP_S = 5.0


@dataclass(slots=True)
class _Tries:
    """How often this process has tried a job, and when it may again (monotonic seconds)."""

    count: int = 0
    not_before: float = 0.0
    waits: Iterator[float] = field(default_factory=lambda: backoff(first_s=1.0, cap_s=15.0))


class Planner:
    """`run` until cancelled."""

    def __init__(
        self, config: JobsConfig, book: JobBook, resolver: ImageResolver, vault: Sealer, bell: Bell, *, clock: Clock
    ) -> None:
        """Nothing runs yet."""
        self._config = config
        self._book = book
        self._resolver = resolver
        self._vault = vault
        self._bell = bell
        self._clock = clock
        self._busy: set[int] = set()
        self._tries: dict[int, _Tries] = {}

    async def run(self) -> None:
        """Plan what waits, as it comes."""
        trouble = backoff(first_s=self._config.tick_s, cap_s=TROUBLE_CAP_S)
        async with asyncio.TaskGroup() as group:
            with self._bell.listen(PLAN) as ear:
                while True:
                    try:
                        for job_id in await self._due():
                            self._busy.add(job_id)
                            group.create_task(self._one(job_id))
                    except DarnerError as error:
                        _log.warning("cannot look for jobs to plan", reason=error.message)
                        await self._clock.sleep(next(trouble))
                    else:
                        trouble = backoff(first_s=self._config.tick_s, cap_s=TROUBLE_CAP_S)
                    await ear.wait(self._config.tick_s)

    async def _due(self) -> list[int]:
        free = self._config.plan_concurrency - len(self._busy)
        if free <= 0:
            return []
        waiting = await self._book.unplanned(LOOK_LIMIT)
        self._tries = {job_id: tries for job_id, tries in self._tries.items() if job_id in set(waiting)}
        now = self._clock.monotonic()
        due = (job_id for job_id in waiting if job_id not in self._busy and self._may_try(job_id, now))
        return [job_id for job_id, _ in zip(due, range(free), strict=False)]

    def _may_try(self, job_id: int, now: float) -> bool:
        tries = self._tries.get(job_id)
        return tries is None or tries.not_before <= now

    async def _one(self, job_id: int) -> None:
        try:
            plan = await self._plan(job_id)
            if plan is not None and await self._book.plan(job_id, plan):
                _log.info("job planned", job_id=job_id, contents=len(plan.contents), reason=plan.error or None)
                self._bell.ring(job_id, WORK)
        except DarnerError as error:
            # The database: the job stays as it is and is looked at again.
            self._again(job_id, error.message)
        finally:
            self._busy.discard(job_id)
            self._bell.ring(PLAN)

    async def _plan(self, job_id: int) -> Plan | None:
        """What to write, or None if the job has ended or is to be tried again later."""
        sealed = await self._book.sealed(job_id)
        if sealed is None:
            return None
        try:
            packed = self._vault.open(sealed)
            spec = unpack(packed).spec
            plan = await self._resolve(spec, packed) if spec.source == IMAGE else Plan(contents=_files(spec))
        except DarnerError as error:
            tries = self._tries.get(job_id, _Tries())
            if may_help_to_retry(error) and tries.count + 1 < self._config.plan_attempts:
                self._again(job_id, error.message)
                return None
            return Plan(error=error.message)
        except Exception as error:  # noqa: BLE001  (a defect must end the job with a reason, not leave it open)
            _log.exception("planning failed", job_id=job_id)
            return Plan(error=f"planning failed unexpectedly ({type(error).__name__}); the manager's log says more")
        clusters = max(1, len(spec.cluster_ids or (1,)))
        if len(plan.contents) * clusters > self._config.max_parts:
            return Plan(error=f"the job would have more than {self._config.max_parts} parts; split it")
        return plan

    def _again(self, job_id: int, reason: str) -> None:
        tries = self._tries.setdefault(job_id, _Tries())
        tries.count += 1
        wait_s = next(tries.waits)
        tries.not_before = self._clock.monotonic() + wait_s
        _log.info("planning is tried again", job_id=job_id, reason=reason, attempt=tries.count, wait_s=round(wait_s, 1))

    async def _resolve(self, spec: JobSpec, packed: bytes) -> Plan:
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                resolved: Resolved = await self._resolver.resolve(spec)
        except TimeoutError:
            raise TimedOutError(f"the registry of {shown_url(spec.urls[0])} took more than {RESOLVE_TIMEOUT_S:.0f} s") from None
        headers = {**spec.headers.without(*resolved.headers), **resolved.headers}
        sealed = self._vault.seal(pack(body_of(packed), headers))
        return Plan(contents=resolved.contents, sealed=sealed, notes=resolved.notes)


def _files(spec: JobSpec) -> tuple[Content, ...]:
    return tuple(Content(url=shown_url(url)) for url in spec.urls)
