"""The room's engine: the policy in force, sweeps by the clock and by hand, and what a person asks about them.

In: policies and orders from faces. Out: versions, runs, verdicts. It never sweeps at the start: a process that is restarted often,
or started with a wrong clock, must not be one that deletes.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

from darner.core.errors import ConflictError, DarnerError
from darner.db import Database, new_holder
from darner.kit.clock import Clock, SystemClock
from darner.kit.log import get_logger
from darner.kit.moments import rfc3339
from darner.retention.clock import BootReading, read_boot_clock
from darner.retention.config import SweepConfig
from darner.retention.desk import SweepDesk
from darner.retention.explain import KnownJob, explain
from darner.retention.meters import SweepMeters
from darner.retention.ports import RetentionParts
from darner.retention.presets import SEED_ORIGIN
from darner.retention.rules import Verdict
from darner.retention.sql import marks, runs
from darner.retention.sweep.begin import name_instance
from darner.retention.sweeper import Ask, Sweeper
from darner.retention.values import RunState

_log = get_logger("retention")


class RetentionEngine(SweepDesk):
    """Owns the sweeper. `async with` seeds the policy of a fresh installation and starts the clock."""

    def __init__(
        self,
        db: Database,
        *,
        holder: str = "",
        origin: str = SEED_ORIGIN,
        config: SweepConfig | None = None,
        clock: Clock | None = None,
        boot_clock: Callable[[], BootReading] = read_boot_clock,
        parts: RetentionParts | None = None,
    ) -> None:
        """`db` must have been migrated. `holder` names this process, unique among managers (default: host, pid, chance)."""
        holder = holder or new_holder()
        self._db = db
        self._origin = origin
        self._config = config or SweepConfig()
        self._clock = clock or SystemClock()
        self._parts = parts or RetentionParts()
        self._sweeper = Sweeper(db, config=self._config, clock=self._clock, holder=holder, boot_clock=boot_clock, parts=self._parts)
        self._holder = holder
        self._ticking: list[asyncio.Task[None]] = []
        self.sweeping: asyncio.Task[RunState] | None = None
        self._next_at: float | None = None
        self._turn = asyncio.Lock()

    @property
    def meters(self) -> SweepMeters:
        """Figures for Prometheus."""
        return self._sweeper.meters

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Seed the policy of a fresh installation; sweep by the clock from some minutes after now."""
        await self._db.write(name_instance)
        if await self.seed():
            _log.info("made the retention policy of a fresh installation: ended jobs are hot for 6h, then warm")
        first_s = random.uniform(*self._config.first_after_s)  # noqa: S311  (jitter)
        prompt_s = self._config.prompt_s
        self._ticking = [
            asyncio.create_task(self._every(first_s, self._config.interval_s, self.sweep_by_clock), name="retention-clock"),
            asyncio.create_task(self._every(prompt_s, prompt_s, self._sort_new), name="retention-sorting"),
        ]

    async def stop(self) -> None:
        """End a running sweep after its batch, then the clock."""
        self._sweeper.stop()
        for task in self._ticking:
            task.cancel()
        await asyncio.gather(*self._ticking, return_exceptions=True)
        self._ticking = []
        if self.sweeping is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self.sweeping

    async def explain(self, jobs: Sequence[KnownJob]) -> list[dict[str, Any]]:
        """For each job `{rule, tier, next_tier, moves_at, forgotten_at, reason}`; times in RFC 3339, or None and why not."""
        asked = partial(explain, jobs=jobs, archive=self.archives, adjust=self._parts.adjust)
        return [_explained(one) for one in await self._db.read(asked)]

    async def _every(self, first_s: float, interval_s: float, act: Callable[[], Any]) -> None:
        """Do something again and again: a cleaner that nobody runs is the commonest failure, so the next time must come."""
        wait_s = first_s
        while True:
            if act == self.sweep_by_clock:
                self._next_at = self._clock.monotonic() + wait_s
            await self._clock.sleep(wait_s)
            wait_s = interval_s
            try:
                await act()
            except DarnerError as error:
                _log.warning("no sweep this time", reason=error.message)
            except Exception:  # noqa: BLE001  (see above)
                _log.exception("a sweep broke")

    async def sweep_by_clock(self) -> None:
        """A sweep as it comes every few minutes; none while it is paused, or another manager sweeps."""
        if (await self._db.read(lambda conn: marks.mark(conn, "paused"))).get("paused"):
            return
        try:
            started = await self._start(Ask(trigger=runs.SCHEDULE, by_clock=True))
        except ConflictError:
            raise
        except DarnerError as error:
            failure = error.message
            await self._db.write(lambda conn: runs.tell_failure(conn, holder=self._holder, error=failure))
            raise
        if started is not None:
            await asyncio.shield(started[1])

    async def _sort_new(self) -> None:
        """A running sweep does so in between."""
        async with self._turn:
            if self.sweeping is None or self.sweeping.done():
                await self._sweeper.sort_new()


def _explained(found: Verdict) -> dict[str, Any]:
    return {
        "rule": found.rule,
        "tier": found.tier.word,
        "moves_at": rfc3339(found.moves_at),
        "next_tier": found.next_tier.word if found.next_tier is not None else None,
        "forgotten_at": rfc3339(found.forgotten_at),
        "reason": found.reason,
    }
