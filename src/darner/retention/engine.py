"""The room's engine: the policy in force, sweeps by the clock and by hand, and what a person asks about them.

In: policies and orders from faces. Out: versions, runs, verdicts. It never sweeps at the start: a process that is restarted often,
or started with a wrong clock, must not be one that deletes.
"""

import asyncio
import contextlib
import os
import random
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Connection

from darner.core.errors import ConflictError, DarnerError, NotFoundError
from darner.core.job import Tier
from darner.db import Database, db_now_ms
from darner.kit.clock import Clock, SystemClock
from darner.kit.log import get_logger
from darner.retention import records, rules
from darner.retention.clock import BootReading, read_boot_clock
from darner.retention.config import SweepConfig
from darner.retention.parse import policy_from_json
from darner.retention.ports import RetentionParts
from darner.retention.presets import default_policy
from darner.retention.rules import JobFacts, Order
from darner.retention.sql import marks, runs
from darner.retention.sql.classes import class_ids
from darner.retention.sql.report import due_count, due_report
from darner.retention.sweeper import LEASE, Ask, Sweep, Sweeper, SweepRefusedError
from darner.retention.values import PolicyVersion, Run, RunState

_log = get_logger("retention")
_HISTORY = 100
_REASON_LIMIT = 1024
_SHOWN_AFTER_S = 5.0


class RetentionEngine:
    """Owns the sweeper. `async with` seeds the policy of a fresh installation and starts the clock."""

    def __init__(
        self,
        db: Database,
        *,
        holder: str = "",
        origin: str = "seed",
        config: SweepConfig | None = None,
        clock: Clock | None = None,
        boot_clock: Callable[[], BootReading] = read_boot_clock,
        parts: RetentionParts | None = None,
    ) -> None:
        """`db` must have been migrated. `holder` names this process, unique among managers (default: host, pid, chance)."""
        holder = holder or f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._db = db
        self._origin = origin
        self._config = config or SweepConfig()
        self._clock = clock or SystemClock()
        self._sweeper = Sweeper(db, config=self._config, clock=self._clock, holder=holder, boot_clock=boot_clock, parts=parts)
        self._holder = holder
        self._ticking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[RunState] | None = None
        self._next_at: float | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Seed the policy of a fresh installation; sweep by the clock from some minutes after now."""
        if await self._db.write(lambda conn: records.seed_policy(conn, default_policy(), self._origin)):
            _log.info("made the retention policy of a fresh installation: ended jobs are hot for 6h, then warm")
        self._ticking = asyncio.create_task(self._tick(), name="retention-clock")

    async def stop(self) -> None:
        """End a running sweep after its batch, then the clock."""
        self._sweeper.stop()
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
        if self._sweeping is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping

    async def policy(self) -> PolicyVersion:
        """The policy in force; NotFoundError if there is none."""
        found = await self._db.read(records.policy_in_force)
        if found is None:
            raise NotFoundError("There is no retention policy, so nothing is removed; set one with `darner retention policy set`.")
        return found

    async def history(self) -> list[PolicyVersion]:
        """All versions of the policy, newest first."""
        return await self._db.read(lambda conn: records.policy_history(conn, _HISTORY))

    async def set_policy(self, data: Mapping[str, Any], *, by: str, reason: str = "") -> PolicyVersion:
        """A new version, in force at the next sweep. InvalidInputError names the field that is wrong; nothing is stored then."""
        policy = policy_from_json(data)
        cut = reason[:_REASON_LIMIT]
        made = await self._db.write(lambda conn: records.add_policy(conn, policy, origin="user", by=by, reason=cut))
        _log.info("retention policy changed", version=made.version, by=by, reason=cut)
        return made

    async def run(self, *, dry_run: bool, by: str, accept_clock: bool = False) -> Run:
        """Sweep now. A dry run answers with its report; a real one is answered when it is done, or running after some seconds.

        ConflictError when one is running here or in another manager.
        """
        if dry_run:
            return await self._dry_run(by)
        sweep = await self._begin(Ask(trigger=f"manual: {by}", by=by, accept_clock=accept_clock))
        if sweep is None:
            raise ConflictError("Another manager is sweeping now; try again when it is done.")
        task = self._launch(sweep)
        await asyncio.wait({task}, timeout=_SHOWN_AFTER_S)
        return await self.find_run(sweep.run_id)

    async def find_run(self, run_id: int) -> Run:
        """One run; NotFoundError."""
        found = await self._db.read(lambda conn: runs.run(conn, run_id))
        if found is None:
            raise NotFoundError(f"There is no run {run_id}.")
        return found

    async def runs(self, *, before: int | None = None, limit: int = 20) -> list[Run]:
        """Runs, newest first, those before an id."""
        return await self._db.read(lambda conn: runs.runs(conn, before=before, limit=limit))

    async def pause(self, *, paused: bool, by: str) -> None:
        """No sweep by the clock until resumed; by hand they are still possible. A running one ends after its batch."""
        await self._db.write(lambda conn: marks.set_mark(conn, "paused", {"paused": paused}, by=by))
        if paused:
            self._sweeper.stop()
        _log.info("retention paused" if paused else "retention resumed", by=by)

    async def status(self) -> dict[str, Any]:
        """How things stand. Times in unix milliseconds."""
        found = await self._db.read(_status)
        running = self._sweeping is not None and not self._sweeping.done()
        next_ms = None if self._next_at is None else found["now"] + int(max(0.0, self._next_at - self._clock.monotonic()) * 1000)
        return {**found, "running": running or found["lease"] is not None, "next_run_at": None if found["paused"] else next_ms}

    async def explain(self, jobs: Sequence[JobFacts]) -> list[dict[str, Any]]:
        """For each job `{rule, tier, forgotten_at, reason}` for people: `forgotten_at` in RFC 3339, or None and why not."""
        found = await self._db.read(records.policy_in_force)
        return [_explained(job, Order(policy=found.policy) if found else None) for job in jobs]

    async def _begin(self, ask: Ask) -> Sweep | None:
        if self._sweeping is not None and not self._sweeping.done():
            raise SweepRefusedError("A sweep is running already.")
        return await self._sweeper.begin(ask)

    def _launch(self, sweep: Sweep) -> asyncio.Task[RunState]:
        self._sweeping = asyncio.create_task(self._sweeper.carry_out(sweep), name=f"retention-run-{sweep.run_id}")
        return self._sweeping

    async def _dry_run(self, by: str) -> Run:
        """The report of the same predicate that removes; jobs that no sweep has classified yet are classified for it."""
        found = await self.policy()
        order = Order(policy=found.policy)
        await self._sweeper.classify(order)

        def tell(conn: Connection) -> int:
            report = due_report(conn, order, class_ids(conn, order), db_now_ms(conn))
            trigger, version = f"manual: {by}"[:32], found.version
            run_id = runs.begin_run(conn, policy_version=version, trigger=trigger, holder=self._holder, epoch=0, dry_run=True)
            runs.end_run(conn, run_id, RunState.DONE, report=report)
            return run_id

        return await self.find_run(await self._db.write(tell))

    async def _tick(self) -> None:
        wait_s = random.uniform(*self._config.first_after_s)  # noqa: S311  (jitter)
        while True:
            self._next_at = self._clock.monotonic() + wait_s
            await self._clock.sleep(wait_s)
            wait_s = self._config.interval_s
            try:
                await self._sweep_by_clock()
            except DarnerError as error:
                _log.warning("no sweep this time", reason=error.message)
            except Exception:  # noqa: BLE001  (a cleaner that nobody runs is the commonest failure: the next sweep must come)
                _log.exception("a sweep broke")

    async def _sweep_by_clock(self) -> None:
        if (await self._db.read(lambda conn: marks.mark(conn, "paused"))).get("paused"):
            return
        sweep = await self._begin(Ask(trigger="schedule", by_clock=True))
        if sweep is not None:
            await asyncio.shield(self._launch(sweep))


def _explained(job: JobFacts, order: Order | None) -> dict[str, Any]:
    if order is None:
        reason = "There is no retention policy, so it is kept."
        return {
            "rule": "",
            "tier": Tier(job.tier).word,
            "moves_at": None,
            "next_tier": None,
            "forgotten_at": None,
            "reason": reason,
        }
    found = rules.verdict(job, order)
    return {
        "rule": found.rule,
        "tier": found.tier.word,
        "moves_at": moment(found.moves_at),
        "next_tier": found.next_tier.word if found.next_tier is not None else None,
        "forgotten_at": moment(found.forgotten_at),
        "reason": found.reason,
    }


def _status(conn: Connection) -> dict[str, Any]:
    found, now_ms = records.policy_in_force(conn), db_now_ms(conn)
    latest = runs.runs(conn, before=None, limit=1)
    return {
        "now": now_ms,
        "paused": bool(marks.mark(conn, "paused").get("paused")),
        "policy_version": found.version if found else None,
        "due": _due(conn, Order(policy=found.policy), now_ms) if found else 0,
        "lease": runs.lease_holder(conn, LEASE),
        "last_run": latest[0] if latest else None,
    }


def _due(conn: Connection, order: Order, now_ms: int) -> int:
    return due_count(conn, order, class_ids(conn, order), now_ms)


def moment(unix_ms: int | None) -> str | None:
    """RFC 3339 with Z."""
    if unix_ms is None:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
