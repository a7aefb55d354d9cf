"""The health of the seeds: each is asked when it announces itself, again soon while it does not answer, and then at an interval.

A seed announces itself before it listens (scheduler.md, section 3), so the first questions follow each other quickly.
"""

import asyncio
import contextlib
from collections.abc import Callable

from darner.core.host import Host
from darner.kit.retry import backoff
from darner.scheduler.events import SeedChecked
from darner.scheduler.ports import SeedPort
from darner.scheduler.records import SeedHealth
from darner.scheduler.state import Swarms

FIRST_RETRY_S = 0.1
MAX_RETRY_S = 5.0


class SeedWatch:
    """One task per seed, all asked in parallel. `tell` takes the result."""

    def __init__(self, swarms: Swarms, seeds: SeedPort, tell: Callable[[SeedChecked], None], *, interval_s: float) -> None:
        """Watches nobody yet."""
        self._swarms = swarms
        self._seeds = seeds
        self._tell = tell
        self._interval_s = interval_s
        self._nudges: dict[str, asyncio.Event] = {}
        self._fresh = asyncio.Event()

    def nudge(self, host_id: str) -> None:
        """Ask this seed now, unless it is known to be well."""
        nudge = self._nudges.get(host_id)
        if nudge is None:
            self._fresh.set()
        elif self._health(host_id) is not SeedHealth.GOOD:
            nudge.set()

    async def run(self) -> None:
        """Watch every seed that comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._fresh.clear()
                for record in list(self._swarms.seeds()):
                    if record.id not in self._nudges:
                        self._nudges[record.id] = asyncio.Event()
                        group.create_task(self._follow(record.id))
                await self._fresh.wait()

    async def _follow(self, host_id: str) -> None:
        nudge, waits = self._nudges[host_id], backoff(first_s=FIRST_RETRY_S, cap_s=MAX_RETRY_S)
        while (seed := self._seed(host_id)) is not None:
            nudge.clear()
            healthy = await self._seeds.healthy(seed)
            self._tell(SeedChecked(host_id=host_id, healthy=healthy))
            if healthy:
                waits = backoff(first_s=FIRST_RETRY_S, cap_s=MAX_RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s if healthy else min(next(waits), self._interval_s)):
                    await nudge.wait()
        del self._nudges[host_id]

    def _seed(self, host_id: str) -> Host | None:
        return next((record.host for record in self._swarms.seeds() if record.id == host_id), None)

    def _health(self, host_id: str) -> SeedHealth | None:
        return next((record.health for record in self._swarms.seeds() if record.id == host_id), None)
