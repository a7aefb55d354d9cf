"""Works done in turn, one batch each, until none has more. What one work cannot do does not stop the others."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from darner.core.errors import DarnerError, TimedOutError, UnavailableError
from darner.db import Database, LeaseLostError, replica_lag_s
from darner.kit.clock import Clock, sleep_unless
from darner.kit.log import get_logger
from darner.retention.config import SweepConfig
from darner.retention.meters import SweepMeters
from darner.retention.ports import RetentionParts
from darner.retention.sweep.errors import SweepEndedError
from darner.retention.sweep.pace import Duty, Pace
from darner.retention.sweep.work import Done, SweepContext, Work

_log = get_logger("retention")
_LAG_TRIES = 60


class Runner:
    """Carries works out for one sweep. `failures`: what went wrong, by work."""

    def __init__(
        self,
        db: Database,
        *,
        config: SweepConfig,
        clock: Clock,
        parts: RetentionParts,
        stopping: asyncio.Event,
        meters: SweepMeters,
    ) -> None:
        """`stopping` ends everything after the batch at hand."""
        self._db = db
        self._config = config
        self._clock = clock
        self._parts = parts
        self._stopping = stopping
        self._meters = meters
        self._sorted_at = clock.monotonic()
        self._duty = Duty()
        self._paces: dict[str, Pace] = {}
        self._batches = 0
        self.cap: int | None = None
        self.failures: dict[str, str] = {}
        self.between: Callable[[], Work] | None = None

    async def all(
        self, works: Sequence[Work], sweep: SweepContext, *, while_: Callable[[], bool] | None = None, at_most: int | None = None
    ) -> int:
        """Do works until none has more, `stopping` is set, `while_` says no, or `at_most` batches are done; how many rows changed.

        What `between` makes, if it is set, has a batch every few seconds.
        """
        waiting, changed, batches = deque(works), 0, 0
        while waiting and not self._stopping.is_set() and batches != at_most and (while_ is None or while_()):
            batches += 1
            await self._in_between(sweep)
            work = waiting.popleft()
            done = await self._one(work, sweep)
            if done is None:
                continue
            changed += done.changed
            if done.more:
                waiting.append(work)
            if done.examined or done.changed:
                await self._rest(done)
        return changed

    async def _one(self, work: Work, sweep: SweepContext) -> Done | None:
        """One batch; None when the work failed for good. Ends the sweep only where its fence does."""
        pace = self._pace(work)
        try:
            async with asyncio.timeout(self._config.batch_deadline_s):
                done = await work.batch(sweep, pace.limit)
        except (LeaseLostError, SweepEndedError):
            raise
        except (UnavailableError, TimedOutError) as error:
            rest_s = pace.had_trouble()
            if rest_s is None:
                self._failed(work, error.message)
                return None
            _log.info("retention work is slowed down", work=work.name, reason=error.message, rows_at_once=pace.limit)
            await self.breathe(rest_s)
            return Done(more=True)
        except TimeoutError:
            self._failed(work, f"A batch did not end within {self._config.batch_deadline_s:.0f} s.")
            return None
        except DarnerError as error:
            self._failed(work, error.message)
            return None
        except Exception as error:  # noqa: BLE001  (the works of others go on)
            _log.exception("a retention work broke", work=work.name)
            self._failed(work, f"Unexpected: {type(error).__name__}.")
            return None
        if done.held_s:
            pace.went_well(done.held_s, done.examined)
        self._meters.batch(work.name, done)
        return done

    async def _in_between(self, sweep: SweepContext) -> None:
        if self.between is None or self._clock.monotonic() - self._sorted_at < self._config.prompt_s:
            return
        self._sorted_at = self._clock.monotonic()
        await self._one(self.between(), sweep)

    def failed(self, kind: str) -> bool:
        """Whether a work of a kind (what its name begins with) failed."""
        return any(name.partition(":")[0] == kind for name in self.failures)

    def _failed(self, work: Work, reason: str) -> None:
        self.failures[work.name] = reason
        self._meters.failures.labels(work.name.partition(":")[0]).inc()
        _log.warning("retention work failed", work=work.name, reason=reason)

    def _pace(self, work: Work) -> Pace:
        target_s = self._config.target_hold_s if self._db.dialect == "sqlite" else self._config.server_hold_s
        if work.name not in self._paces:
            self._paces[work.name] = Pace(self._config, target_hold_s=target_s, cap=self.cap)
        return self._paces[work.name]

    async def _rest(self, done: Done) -> None:
        self._batches += 1
        if self._batches % self._config.checkpoint_every == 0:
            await self._db.checkpoint()
            await self._wait_for_replicas()
        latency_s = self._parts.write_latency_s() if self._parts.write_latency_s else None
        await self.breathe(max(self._duty.rest_s(done.held_s, done.waited_s, latency_s), self._config.min_pause_s))

    async def _wait_for_replicas(self) -> None:
        """Where this server can say how far copies are behind: wait until they are not, but not for ever."""
        for _ in range(_LAG_TRIES):
            lag_s = await self._db.read(replica_lag_s)
            if lag_s is None or lag_s <= self._config.lag_limit_s or self._stopping.is_set():
                return
            await self.breathe(1.0)

    async def breathe(self, seconds: float) -> None:
        """Let others work for so long; `stopping` ends it at once."""
        await sleep_unless(self._clock, seconds, self._stopping)
