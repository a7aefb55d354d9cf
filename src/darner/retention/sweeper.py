"""One sweep: sort what ended, move what loses nothing, then remove what is due, in small transactions with pauses.

Only the holder of the lease sweeps, and every transaction checks it first: a sweeper that was paused, or whose clock jumped, loses
it and changes nothing more. Works are done in turn, a batch each; one that fails does not stop the others, but the run is told to
have failed then. What ends while a sweep is at work is sorted in between.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from darner.core.errors import DarnerError
from darner.core.job import Tier
from darner.db import Database, batch_cap, release_lease
from darner.kit.clock import Clock
from darner.kit.log import get_logger
from darner.retention.clock import BootReading
from darner.retention.config import SweepConfig
from darner.retention.growth.space import give_back
from darner.retention.meters import SweepMeters
from darner.retention.ports import RetentionParts
from darner.retention.rules import Order
from darner.retention.sql import runs
from darner.retention.sql.classes import make_classes
from darner.retention.sql.fence import LEASE
from darner.retention.sql.probe import Place
from darner.retention.sql.remove import erase_jobs, hide_jobs
from darner.retention.sweep.begin import Ask, Beginner
from darner.retention.sweep.books import BooksWork
from darner.retention.sweep.classing import Loose, classify_works, look, new_jobs_work
from darner.retention.sweep.context import Sweep
from darner.retention.sweep.errors import CLOCK, REFUSED, ClockJumpedError, SweepEndedError, SweepRefusedError
from darner.retention.sweep.guarding import held_back
from darner.retention.sweep.moving import MovesWork
from darner.retention.sweep.runner import Runner
from darner.retention.sweep.warm import WarmArgs
from darner.retention.sweep.work import Work
from darner.retention.values import RunState
from darner.retention.witness import Witness, beside

__all__ = ["LEASE", "Ask", "Sweep", "SweepRefusedError", "Sweeper"]
_log = get_logger("retention")
_NEW_AT_ONCE = 50
_BOOKS_EVERY_S = 3600.0


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
        plugged = parts or RetentionParts()
        self._parts = replace(plugged, read_args=plugged.read_args or WarmArgs(), batch_cap=plugged.batch_cap or batch_cap)
        self._stopping = asyncio.Event()
        self._books_due = 0.0
        self.meters = SweepMeters()
        file = beside(db.engine.url.database) if db.dialect == "sqlite" else None
        witness = Witness(file)
        self._beginner = Beginner(
            db=db, config=config, holder=holder, boot_clock=boot_clock, witness=witness, adjust=self._parts.adjust
        )

    def stop(self) -> None:
        """End the running sweep after its batch."""
        self._stopping.set()

    async def begin(self, ask: Ask) -> Sweep | None:
        """Take the lease and write the run's row; None when another manager sweeps. SweepRefusedError when there is no policy."""
        self._stopping.clear()
        return await self._beginner.begin(ask)

    async def carry_out(self, sweep: Sweep) -> RunState:
        """Do it, and write how it ended. Never raises a DarnerError: a failed run is history too."""
        if sweep.refused:
            _log.warning("sweep held back", run=sweep.run_id, reason=sweep.refused)
            self.meters.ended(RunState.HELD, 0.0)
            return RunState.HELD
        began = self._clock.monotonic()
        end = _End()
        renewing = asyncio.create_task(self._renew(sweep), name=f"retention-lease-{sweep.run_id}")
        try:
            await self._sweep(sweep, end)
        except ClockJumpedError as jump:
            end.state, end.error, end.report = RunState.HELD, jump.message, {REFUSED: CLOCK}
        except SweepEndedError as change:
            end.state, end.error = RunState.STOPPED, change.message
        except DarnerError as failure:
            end.state, end.error = RunState.FAILED, failure.message
        except asyncio.CancelledError:
            end.state, end.error = RunState.STOPPED, "The manager stopped."
            await self._finish(sweep, end)
            raise
        except Exception as failure:
            end.state, end.error = RunState.FAILED, f"Unexpected: {type(failure).__name__}."
            await self._finish(sweep, end)
            raise
        finally:
            renewing.cancel()
        if end.state in {RunState.FAILED, RunState.HELD}:
            _log.warning(
                "sweep failed" if end.state == RunState.FAILED else "removal held back", run=sweep.run_id, reason=end.error
            )
        await self._finish(sweep, end)
        self.meters.ended(end.state, self._clock.monotonic() - began)
        return end.state

    async def _renew(self, sweep: Sweep) -> None:
        """Keep the lease while a batch is long. That it is lost is told by the next fence."""
        while True:
            await self._clock.sleep(self._config.lease_ttl_s / 3)
            with contextlib.suppress(DarnerError):
                await self._db.write(sweep.fence, durable=False)

    async def _finish(self, sweep: Sweep, end: "_End") -> None:
        def finish(conn: Connection) -> None:
            if sweep.run_id:
                report = end.report or None
                runs.end_run(conn, sweep.run_id, end.state, error=end.error, report=report)
                if sweep.by_clock and end.state == RunState.DONE and not report:
                    runs.drop_empty_before(conn, sweep.run_id)
            release_lease(conn, sweep.lease)

        durable = not sweep.by_clock or bool(end.classified or end.moved or end.removed)
        try:
            await self._db.write(finish, durable=durable)
            if durable:
                self._beginner.witnessed()
        except DarnerError as failure:
            _log.warning("the end of a sweep could not be written", run=sweep.run_id, reason=failure.message)

    async def classify(self, order: Order) -> None:
        """Sort ended jobs into the classes of an order, for a dry run."""
        classes = await self._db.write(lambda conn: make_classes(conn, order), durable=False)
        self._stopping.clear()
        works = classify_works(*await look(self._db, classes), self._parts)
        await self._runner().all(works, Loose(self._db, order, classes))

    async def sort_new(self) -> None:
        """Sort what has just ended, if anything has and no other manager sweeps."""
        if not await self._beginner.look():
            return
        sweep = await self._beginner.begin_sorting()
        if sweep is None:
            return
        try:
            runner, work = self._runner(), new_jobs_work(self._parts)
            await runner.all([work], sweep, at_most=_NEW_AT_ONCE)
        finally:
            await self._finish(sweep, _End())

    async def _sweep(self, sweep: Sweep, end: "_End") -> None:
        """All phases."""
        runner = self._runner()
        runner.cap = await self._cap()
        stale, there = await look(self._db, sweep.classes)
        end.classified = await runner.all(classify_works(stale, there, self._parts), sweep)
        if end.classified:
            _, there = await look(self._db, sweep.classes)
        runner.between = lambda: new_jobs_work(self._parts)
        made = [work for work in (*(make() for make in self._parts.works), *_own_works()) if _may_have_some(work, sweep, there)]
        end.moved = await runner.all([work for work in made if not work.removes], sweep)
        end.removed = await self._remove(runner, sweep, [work for work in made if work.removes], end)
        runner.between = None
        await self._keep_books(runner, sweep)
        if end.removed or end.moved or end.classified:
            _log.info("sweep done", run=sweep.run_id, classified=end.classified, moved=end.moved, removed=end.removed)
        if end.removed or end.moved:
            with contextlib.suppress(DarnerError):  # it can wait for the next sweep
                await give_back(self._db, self._clock, stopping=self._stopping.is_set)
        if runner.failures:
            end.state = RunState.FAILED
            end.error = "; ".join(f"{name}: {reason}" for name, reason in runner.failures.items())
        elif self._stopping.is_set() and end.state == RunState.DONE:
            end.state = RunState.STOPPED

    async def _remove(self, runner: Runner, sweep: Sweep, works: Sequence[Work], end: "_End") -> int:
        """Only in the maintenance window, and only if the guard lets it."""
        if self._stopping.is_set():
            return 0
        if not sweep.may_remove():
            end.waits(sweep)
            return 0
        finding = await held_back(sweep, works, sorted_all=not runner.failed("classify"))
        self.meters.held.set(0 if finding is None else finding.rows)
        if finding is None:
            removed = await runner.all(works, sweep, while_=sweep.may_remove)
            if not sweep.may_remove():
                end.waits(sweep)
            return removed
        since = await self._db.read(runs.held_since)
        if since == sweep.run_id or not sweep.by_clock:
            end.state = RunState.HELD
            until = "then, or until" if finding.passes else "until"
            end.error = f"{finding.reason} Nothing is removed {until} a person confirms it (run {sweep.run_id}); the rest was done."
            end.report["held"] = {"rows": finding.rows, "share": round(finding.share, 4)}
        return 0

    async def _keep_books(self, runner: Runner, sweep: Sweep) -> None:
        """By the clock not every time: nothing of it is urgent."""
        if sweep.by_clock and self._clock.monotonic() < self._books_due:
            return
        self._books_due = self._clock.monotonic() + _BOOKS_EVERY_S
        await runner.all([BooksWork()], sweep)

    async def _cap(self) -> int | None:
        cap = self._parts.batch_cap
        return None if cap is None or self._db.dialect == "sqlite" else await self._db.read(cap)

    def _runner(self) -> Runner:
        return Runner(
            self._db, config=self._config, clock=self._clock, parts=self._parts, stopping=self._stopping, meters=self.meters
        )


class _End:
    """How a sweep ended, gathered on the way."""

    def __init__(self) -> None:
        self.state = RunState.DONE
        self.error = ""
        self.report: dict[str, Any] = {}
        self.classified = self.moved = self.removed = 0

    def waits(self, sweep: Sweep) -> None:
        """Removal waits for the window. A sweep by the clock says so in the status only, or there would be a row each time."""
        if sweep.window is not None and not sweep.by_clock:
            self.report["waits_until_at"] = sweep.window.opens_at(sweep.now_ms())


def _may_have_some(work: Work, sweep: Sweep, there: Mapping[Place, int]) -> bool:
    return not isinstance(work, MovesWork) or work.prime(sweep, there, sweep.now_ms())


def _own_works() -> Sequence[MovesWork]:
    return (MovesWork("hide", Tier.DELETED, hide_jobs), MovesWork("gone", None, erase_jobs))
