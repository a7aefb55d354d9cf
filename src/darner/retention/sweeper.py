"""One sweep: classify what ended, then remove what is due, in small transactions with pauses.

Only the holder of the lease sweeps, and every transaction renews it first: a sweeper that was paused, or whose clock jumped,
loses it and changes nothing more. The size of a batch follows the time it holds the write lock; at most half of the time is spent
working.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from darner.core.errors import ConflictError, DarnerError
from darner.core.job import Tier
from darner.db import Database, Lease, acquire_lease, db_now_ms, release_lease
from darner.kit.clock import Clock
from darner.kit.log import get_logger
from darner.retention import records
from darner.retention.clock import BootReading, distrust, marked
from darner.retention.config import SweepConfig
from darner.retention.rules import Move, Order, moves
from darner.retention.sql.classes import class_ids, classes_to_sort, make_classes
from darner.retention.sql.classify import classify_batch
from darner.retention.sql.remove import erase_jobs, hide_jobs
from darner.retention.sql.step import move_batch
from darner.retention.values import Batch, Cursor, PolicyVersion, RunState

LEASE = "retention-sweep"
_log = get_logger("retention")
Step = Callable[[Connection, Cursor, int], Batch]


class SweepRefusedError(ConflictError):
    """A sweep cannot begin now."""


class PolicyChangedError(ConflictError):
    """The policy was changed during the sweep; the next one follows the new policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep that has begun: its fence, its row, and the policy it will carry out."""

    lease: Lease
    run_id: int
    policy: PolicyVersion
    refused: str = ""

    @property
    def order(self) -> Order:
        """What is in force for it."""
        return Order(policy=self.policy.policy)


class Sweeper:
    """Carries sweeps out. `stop()` ends one after its batch."""

    def __init__(
        self, db: Database, *, config: SweepConfig, clock: Clock, holder: str, boot_clock: Callable[[], BootReading]
    ) -> None:
        """`holder` names this process among the managers; `boot_clock` is a clock that does not jump."""
        self._db = db
        self._config = config
        self._clock = clock
        self._holder = holder
        self._boot_clock = boot_clock
        self._stopping = asyncio.Event()
        self._limit = config.first_batch

    def stop(self) -> None:
        """End the running sweep after its batch."""
        self._stopping.set()

    async def begin(self, trigger: str, *, accept_clock: bool = False) -> Sweep | None:
        """Take the lease and write the run's row; None when another manager sweeps.

        `accept_clock`: a person has looked at the clock, and it is right now. SweepRefusedError when there is no policy.
        """
        self._stopping.clear()
        boot = self._boot_clock()
        return await self._db.write(lambda conn: self._begin(conn, trigger, boot, accept_clock=accept_clock))

    def _begin(self, conn: Connection, trigger: str, boot: BootReading, *, accept_clock: bool) -> Sweep | None:
        policy = records.policy_in_force(conn)
        if policy is None:
            raise SweepRefusedError(
                "There is no retention policy, so nothing is removed; set one with `darner retention policy set`."
            )
        held = acquire_lease(conn, LEASE, self._holder, ttl_s=self._config.lease_ttl_s)
        if held is None:
            return None
        mark, now_ms = records.mark(conn, "clock"), db_now_ms(conn)
        reason = distrust(mark, boot, now_ms, tolerance_ms=int(self._config.clock_tolerance_s * 1000))
        run_id = records.begin_run(conn, policy_version=policy.version, trigger=trigger, holder=self._holder, epoch=held.epoch)
        if reason and not accept_clock:
            said = f"{reason} Nothing is removed until a person says that it is right (a run with accept_clock)."
            records.end_run(conn, run_id, RunState.HELD, error=said)
            release_lease(conn, held)
            return Sweep(lease=held, run_id=run_id, policy=policy, refused=said)
        records.set_mark(conn, "clock", marked({} if accept_clock else mark, boot, now_ms), by=self._holder)
        return Sweep(lease=held, run_id=run_id, policy=policy)

    async def carry_out(self, sweep: Sweep) -> RunState:
        """Do it, and write how it ended. Never raises a DarnerError: a failed run is history too."""
        if sweep.refused:
            _log.warning("sweep held back", run=sweep.run_id, reason=sweep.refused)
            return RunState.HELD
        state, error = RunState.DONE, ""
        try:
            await self._sweep(sweep)
            state = RunState.STOPPED if self._stopping.is_set() else RunState.DONE
        except PolicyChangedError as change:
            state, error = RunState.STOPPED, change.message
        except DarnerError as failure:
            state, error = RunState.FAILED, failure.message
            _log.warning("sweep failed", run=sweep.run_id, reason=error)
        except asyncio.CancelledError:
            await self._finish(sweep, RunState.STOPPED, "The manager stopped.")
            raise
        except Exception as failure:
            await self._finish(sweep, RunState.FAILED, f"Unexpected: {type(failure).__name__}.")
            raise
        await self._finish(sweep, state, error)
        return state

    async def _finish(self, sweep: Sweep, state: RunState, error: str) -> None:
        def finish(conn: Connection) -> None:
            records.end_run(conn, sweep.run_id, state, error=error)
            release_lease(conn, sweep.lease)

        try:
            await self._db.write(finish)
        except DarnerError as failure:
            _log.warning("the end of a sweep could not be written", run=sweep.run_id, reason=failure.message)

    async def classify(self, order: Order, sweep: Sweep | None = None) -> int:
        """Sort ended jobs into the classes of an order; how many moved. Without a sweep (for a dry run) no counter is kept."""
        changed = 0
        ids = await self._db.write(lambda conn: make_classes(conn, order), durable=False)
        for stale in await self._db.read(lambda conn: classes_to_sort(conn, ids)):
            for tier in (Tier.HOT, Tier.WARM, Tier.DELETED):

                def step(conn: Connection, after: Cursor, limit: int, stale: int = stale, tier: Tier = tier) -> Batch:
                    held = None
                    if sweep is not None:
                        _check_wanted(conn, sweep)
                        held = sweep.lease
                    ttl_s = self._config.lease_ttl_s
                    done = classify_batch(
                        conn, held, order=order, ids=ids, stale=stale, tier=tier, after=after, limit=limit, ttl_s=ttl_s
                    )
                    if sweep is not None:
                        records.count_run(conn, sweep.run_id, classified=done.changed, examined=done.examined)
                    return done

                changed += await self._in_batches(step)
        return changed

    async def _move(self, sweep: Sweep, move: Move, class_id: int) -> int:
        act = erase_jobs if move.to is None else hide_jobs

        def step(conn: Connection, after: Cursor, limit: int) -> Batch:
            _check_wanted(conn, sweep)
            done = move_batch(
                conn,
                sweep.lease,
                move=move,
                order=sweep.order,
                class_id=class_id,
                act=act,
                run_id=sweep.run_id,
                policy_version=sweep.policy.version,
                after=after,
                limit=limit,
                ttl_s=self._config.lease_ttl_s,
            )
            records.count_run(conn, sweep.run_id, removed=done.changed, examined=done.examined)
            return done

        return await self._in_batches(step)

    async def _sweep(self, sweep: Sweep) -> None:
        classified = await self.classify(sweep.order, sweep)
        ids = await self._db.read(lambda conn: class_ids(conn, sweep.order))
        removed = 0
        for rule in sweep.policy.policy.rules:
            for move in moves(rule):
                if move.removes:
                    removed += await self._move(sweep, move, ids[rule.name])
        if removed or classified:
            _log.info("sweep done", run=sweep.run_id, classified=classified, removed=removed, policy=sweep.policy.version)
        keep_ms = int(self._config.history_days * 86_400_000)
        await self._db.write(lambda conn: records.forget_runs(conn, keep_ms=keep_ms), durable=False)
        if removed:
            await self._give_space_back()

    async def _give_space_back(self) -> None:
        """SQLite keeps the room of deleted rows; return it in steps, so that nobody waits long (spec/retention.md, 4.3)."""
        with contextlib.suppress(DarnerError):  # it can wait for the next sweep
            while await self._db.return_space() and not self._stopping.is_set():
                await self._db.checkpoint()
                await self._breathe(self._config.target_hold_s)

    async def _in_batches(self, step: Step) -> int:
        """Repeat a step until nothing is left, or `stop`; how many rows it changed."""
        cursor, changed, batches = Cursor(), 0, 0
        while not self._stopping.is_set():
            done, held_s = await self._timed(step, cursor)
            if done.cursor is None:
                break
            cursor, changed, batches = done.cursor, changed + done.changed, batches + 1
            self._adapt(held_s)
            if batches % self._config.checkpoint_every == 0:
                await self._db.checkpoint()
            await self._breathe(max(held_s, self._config.min_pause_s))
        return changed

    async def _breathe(self, seconds: float) -> None:
        """Let others work for so long; `stop` ends it at once."""
        waiting = {asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._stopping.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _timed(self, step: Step, cursor: Cursor) -> tuple[Batch, float]:
        """Run a step in a transaction; with the seconds from its first statement, so without waiting for the lock, to its end."""
        started = time.monotonic()

        def timed(conn: Connection) -> Batch:
            nonlocal started
            started = time.monotonic()
            return step(conn, cursor, self._limit)

        done = await self._db.write(timed, durable=False)
        return done, time.monotonic() - started

    def _adapt(self, held_s: float) -> None:
        """Slowly up, quickly down (spec/retention.md, 5.4)."""
        target = self._config.target_hold_s
        more = self._config.min_batch if held_s > target / 2 else self._limit // 4
        wanted = self._limit // 2 if held_s > target else self._limit + more
        self._limit = min(max(wanted, self._config.min_batch), self._config.max_batch)


def _check_wanted(conn: Connection, sweep: Sweep) -> None:
    """A sweep follows the policy it began with only as long as that is in force: a person who loosens it must not be too late."""
    if records.version_in_force(conn) != sweep.policy.version:
        raise PolicyChangedError
