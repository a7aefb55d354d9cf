"""One sweep: sort what ended, move what loses nothing, then remove what is due, in small transactions with pauses.

Only the holder of the lease sweeps, and every transaction checks it first: a sweeper that was paused, or whose clock jumped, loses
it and changes nothing more. Works are done in turn, a batch each; one that fails does not stop the others, but the run is told to
have failed then.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from darner.core.errors import DarnerError
from darner.core.job import Tier
from darner.db import Database, acquire_lease, release_lease
from darner.kit.clock import Clock
from darner.kit.log import get_logger
from darner.retention import records
from darner.retention.clock import BootReading, distrust, marked
from darner.retention.config import SweepConfig
from darner.retention.ports import RetentionParts
from darner.retention.rules import Order
from darner.retention.sql import fence, marks, runs
from darner.retention.sql.classes import classes_to_sort, make_classes
from darner.retention.sql.fence import LEASE
from darner.retention.sql.remove import erase_jobs, hide_jobs
from darner.retention.sweep.classing import Loose, classify_works
from darner.retention.sweep.context import Sweep
from darner.retention.sweep.errors import SweepEndedError, SweepRefusedError
from darner.retention.sweep.moving import MovesWork
from darner.retention.sweep.runner import Runner
from darner.retention.sweep.work import Work
from darner.retention.values import RunState

__all__ = ["LEASE", "Ask", "Sweep", "SweepRefusedError", "Sweeper"]
_log = get_logger("retention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Who wants a sweep. `accept_clock`: a person has looked at the clock, and it is right now; `yes`: nothing may hold it back."""

    trigger: str
    by: str = ""
    by_clock: bool = False
    accept_clock: bool = False
    yes: bool = False


class Sweeper:
    """Carries sweeps out. `stop()` ends one after its batch."""

    def __init__(
        self,
        db: Database,
        *,
        config: SweepConfig,
        clock: Clock,
        holder: str,
        boot_clock: Callable[[], BootReading],
        parts: RetentionParts | None = None,
    ) -> None:
        """`holder` names this process among the managers; `boot_clock` is a clock that does not jump."""
        self._db = db
        self._config = config
        self._clock = clock
        self._holder = holder
        self._boot_clock = boot_clock
        self._parts = parts or RetentionParts()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the running sweep after its batch."""
        self._stopping.set()

    async def begin(self, ask: Ask) -> Sweep | None:
        """Take the lease and write the run's row; None when another manager sweeps. SweepRefusedError when there is no policy."""
        self._stopping.clear()
        boot = self._boot_clock()
        return await self._db.write(lambda conn: self._begin(conn, ask, boot))

    def _begin(self, conn: Connection, ask: Ask, boot: BootReading) -> Sweep | None:
        policy = records.policy_in_force(conn)
        if policy is None:
            raise SweepRefusedError(
                "There is no retention policy, so nothing is removed; set one with `darner retention policy set`."
            )
        held = acquire_lease(conn, LEASE, self._holder, ttl_s=self._config.lease_ttl_s)
        if held is None:
            return None
        seen, mark = fence.look(conn), marks.mark(conn, "clock")
        tolerance_ms = int(self._config.clock_tolerance_s * 1000)
        reason = None if ask.accept_clock else distrust(mark, boot, seen.now_ms, tolerance_ms=tolerance_ms)
        run_id = runs.begin_run(conn, policy_version=policy.version, trigger=ask.trigger, holder=self._holder, epoch=held.epoch)
        order = Order(policy=policy.policy)
        sweep = Sweep(
            db=self._db,
            lease=held,
            run_id=run_id,
            policy=policy,
            order=order,
            seen=seen,
            boot_clock=self._boot_clock,
            began=boot,
            began_ms=seen.now_ms,
            lease_ttl_ms=int(self._config.lease_ttl_s * 1000),
            tolerance_ms=tolerance_ms,
            yes=ask.yes,
            by_clock=ask.by_clock,
        )
        if reason:
            said = f"{reason} Nothing is removed until a person says that it is right (a run with accept_clock)."
            runs.end_run(conn, run_id, RunState.HELD, error=said)
            release_lease(conn, held)
            sweep.refused = said
            return sweep
        marks.set_mark(conn, "clock", marked({} if ask.accept_clock else mark, boot, seen.now_ms), by=self._holder)
        sweep.classes = make_classes(conn, order)
        return sweep

    async def carry_out(self, sweep: Sweep) -> RunState:
        """Do it, and write how it ended. Never raises a DarnerError: a failed run is history too."""
        if sweep.refused:
            _log.warning("sweep held back", run=sweep.run_id, reason=sweep.refused)
            return RunState.HELD
        state, error = RunState.DONE, ""
        try:
            error = await self._sweep(sweep)
            state = RunState.FAILED if error else RunState.STOPPED if self._stopping.is_set() else RunState.DONE
        except SweepEndedError as change:
            state, error = RunState.STOPPED, change.message
        except DarnerError as failure:
            state, error = RunState.FAILED, failure.message
        except asyncio.CancelledError:
            await self._finish(sweep, RunState.STOPPED, "The manager stopped.")
            raise
        except Exception as failure:
            await self._finish(sweep, RunState.FAILED, f"Unexpected: {type(failure).__name__}.")
            raise
        if state == RunState.FAILED:
            _log.warning("sweep failed", run=sweep.run_id, reason=error)
        await self._finish(sweep, state, error)
        return state

    async def _finish(self, sweep: Sweep, state: RunState, error: str) -> None:
        def finish(conn: Connection) -> None:
            runs.end_run(conn, sweep.run_id, state, error=error)
            release_lease(conn, sweep.lease)

        try:
            await self._db.write(finish)
        except DarnerError as failure:
            _log.warning("the end of a sweep could not be written", run=sweep.run_id, reason=failure.message)

    async def classify(self, order: Order) -> None:
        """Sort ended jobs into the classes of an order, for a dry run."""
        classes = await self._db.write(lambda conn: make_classes(conn, order), durable=False)
        stale = await self._db.read(lambda conn: classes_to_sort(conn, classes))
        self._stopping.clear()
        await self._runner().all(classify_works(stale, self._parts), Loose(self._db, order, classes))

    async def _sweep(self, sweep: Sweep) -> str:
        """All phases; what failed, in one sentence."""
        runner = self._runner()
        stale = await self._db.read(lambda conn: classes_to_sort(conn, sweep.classes))
        classified = await runner.all(classify_works(stale, self._parts), sweep)
        made = [make() for make in self._parts.works]
        moved = await runner.all([work for work in made if not work.removes], sweep)
        removed = await runner.all([*_own_works(), *(work for work in made if work.removes)], sweep)
        if removed or moved or classified:
            _log.info("sweep done", run=sweep.run_id, classified=classified, moved=moved, removed=removed)
        await self._forget(sweep)
        if removed:
            await self._give_space_back(runner)
        return "; ".join(f"{name}: {reason}" for name, reason in runner.failures.items())

    async def _forget(self, sweep: Sweep) -> None:
        before_ms = sweep.began_ms - sweep.policy.policy.bookkeeping.runs.ms
        await self._db.write(lambda conn: runs.forget_runs(conn, before_ms=before_ms), durable=False)

    async def _give_space_back(self, runner: Runner) -> None:
        """SQLite keeps the room of deleted rows; return it in steps, so that nobody waits long (spec/retention.md, 4.3)."""
        with contextlib.suppress(DarnerError):  # it can wait for the next sweep
            while await self._db.return_space() and not self._stopping.is_set():
                await self._db.checkpoint()
                await runner.breathe(self._config.target_hold_s)

    def _runner(self) -> Runner:
        return Runner(self._db, config=self._config, clock=self._clock, parts=self._parts, stopping=self._stopping)


def _own_works() -> Sequence[Work]:
    return (MovesWork("hide", Tier.DELETED, hide_jobs), MovesWork("gone", None, erase_jobs))
