"""What people ask of the sweeper: runs by hand and their history, confirmations, pause, window, holds, and jobs brought back."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError
from darner.db import db_now_ms
from darner.kit.clock import Clock
from darner.kit.log import get_logger
from darner.retention import records
from darner.retention.parse import match_from_json
from darner.retention.policy import check_match
from darner.retention.rules import Order
from darner.retention.sql import holds, marks, runs
from darner.retention.sql.classes import class_ids
from darner.retention.sql.report import due_count, due_report
from darner.retention.sql.restore import bring_back
from darner.retention.sweep.errors import CLOCK, REFUSED, RESTORED
from darner.retention.sweep.guarding import confirm, held_since
from darner.retention.sweeper import LEASE, Ask, Sweep, Sweeper, SweepRefusedError
from darner.retention.values import Audit, HoldRow, Run, RunState
from darner.retention.versions import PolicyDesk
from darner.retention.window import parse_window, stored_window

_log = get_logger("retention")
_SHOWN_AFTER_S = 5.0
_NAME_LIMIT = 24
_REASON_LIMIT = 512
_TRIES = 10
# The status counts no more jobs that are due than that.
MOST_COUNTED = 250_000
_TRY_AGAIN_S = 0.3


class SweepDesk(PolicyDesk):
    """The part of the engine that sweeps when a person wants it, and tells how things stand."""

    _sweeper: Sweeper
    _clock: Clock
    _holder: str
    sweeping: asyncio.Task[RunState] | None
    _next_at: float | None
    _turn: asyncio.Lock

    async def run(
        self, *, dry_run: bool, by: str, accept_clock: bool = False, preview_token: str | None = None, yes: bool = False
    ) -> Run:
        """Sweep now. A dry run answers with its report; a real one is answered when it is done, or running after some seconds.

        `preview_token`: what it removes was looked at, so the guard does not hold it back; `yes`: neither guard nor window do.
        ConflictError when one is running here or in another manager, or the token is for something else.
        """
        if dry_run:
            return await self._dry_run(by)
        version = await self.bound_to(preview_token) if preview_token else None
        trigger = f"manual: {by[:_NAME_LIMIT]}"
        ask = Ask(trigger=trigger, by=by, accept_clock=accept_clock, confirmed=version is not None, yes=yes, version=version)
        return await self._run(ask)

    async def confirm_run(self, run_id: int, *, by: str) -> Run:
        """Do what a held run would have removed; of one that was held for the clock: sweep, by the clock as it is now.

        ConflictError when it is not held, the policy has changed since, or the database was brought back from a backup.
        """

        def look(conn: Connection) -> tuple[int, bool]:
            found = runs.run(conn, run_id)
            if found is None:
                raise NotFoundError(f"There is no run {run_id}.")
            if found.state != RunState.HELD:
                raise ConflictError(f"Run {run_id} is not held back, it is {found.state}.")
            if found.policy_version != records.version_in_force(conn):
                raise ConflictError(f"The policy has changed since run {run_id}; look at it again.")
            refused = (found.report or {}).get(REFUSED)
            if refused == RESTORED:
                raise ConflictError(f"{found.error} There is nothing to confirm in run {run_id}.")
            return found.policy_version or 0, refused == CLOCK

        version, by_clock = await self._db.read(look)
        _log.info("held run confirmed", run=run_id, by=by, version=version)
        trigger = f"confirm {run_id}: {by}"[:32]
        return await self._run(Ask(trigger=trigger, by=by, yes=not by_clock, accept_clock=by_clock, version=version))

    async def _run(self, ask: Ask) -> Run:
        started = await self._start(ask)
        if started is None:
            raise ConflictError("Another manager is sweeping now; try again when it is done.")
        sweep, task = started
        if (ask.yes or ask.confirmed) and not sweep.refused:
            await self._db.write(lambda conn: confirm(conn, sweep.policy_version, by=ask.by, now_ms=db_now_ms(conn)))
        await asyncio.wait({task}, timeout=_SHOWN_AFTER_S)
        return await self.find_run(sweep.run_id)

    async def cancel_run(self, run_id: int, *, by: str) -> Run:
        """Let a running sweep end after its batch, in whichever manager. ConflictError when it has ended."""
        asked = await self._db.write(lambda conn: runs.ask_to_cancel(conn, run_id))
        found = await self.find_run(run_id)
        if not asked:
            raise ConflictError(f"Run {run_id} has ended already ({found.state}).")
        _log.info("run is cancelled", run=run_id, by=by)
        return found

    async def find_run(self, run_id: int) -> Run:
        """One run; NotFoundError."""
        found = await self._db.read(lambda conn: runs.run(conn, run_id))
        if found is None:
            raise NotFoundError(f"There is no run {run_id}.")
        return found

    async def runs(self, *, before: int | None = None, limit: int = 20) -> list[Run]:
        """Runs, newest first, those before an id."""
        return await self._db.read(lambda conn: runs.runs(conn, before=before, limit=limit))

    async def batches(self, run_id: int, *, after: int = 0, limit: int = 100) -> list[Audit]:
        """The batches of a run after an id, in their order; NotFoundError if there is no such run."""
        await self.find_run(run_id)
        return await self._db.read(lambda conn: runs.batches(conn, run_id, after=after, limit=limit))

    async def moved_by_rule(self, run_id: int) -> list[dict[str, Any]]:
        """Rows and bytes of a run by rule and action."""
        return await self._db.read(lambda conn: runs.moved_by_rule(conn, run_id))

    async def pause(self, *, paused: bool, by: str, reason: str = "") -> None:
        """No sweep by the clock until resumed; by hand they are still possible. A running one ends after its batch.

        `reason` is shown with the status: after a backup was restored, say so here before managers are started again.
        """
        body = {"paused": paused, "reason": reason[:_REASON_LIMIT] if paused else ""}
        await self._db.write(lambda conn: marks.set_mark(conn, "paused", body, by=by))
        if paused:
            self._sweeper.stop()
        _log.info("retention paused" if paused else "retention resumed", by=by)

    async def window(self) -> dict[str, Any]:
        """The maintenance window `{window, zone}`; both None: there is none."""
        found = await self._db.read(lambda conn: marks.mark(conn, "window"))
        return {"window": found.get("window"), "zone": found.get("zone")}

    async def set_window(self, span: str | None, *, zone: str = "UTC", by: str) -> dict[str, Any]:
        """Remove only in that span of the day, like `22:00-06:00`; None: at any time. InvalidInputError names the field."""
        body = {"window": parse_window(span, zone).text, "zone": zone} if span else {}
        await self._db.write(lambda conn: marks.set_mark(conn, "window", body, by=by))
        _log.info("maintenance window set", by=by, **body)
        return await self.window()

    async def holds(self, *, after: int = 0, limit: int = 100) -> list[HoldRow]:
        """Holds after an id, oldest first."""
        return await self._db.read(lambda conn: holds.holds(conn, after=after, limit=limit))

    async def add_hold(
        self,
        *,
        reason: str,
        by: str,
        job_id: int | None = None,
        match: Mapping[str, Any] | None = None,
        until: int | None = None,
    ) -> HoldRow:
        """Keep one job, or all that match now and later; `until` in unix ms. InvalidInputError, NotFoundError for a job.

        An archived job is brought back into the database.
        """
        if (job_id is None) == (not match):
            raise InvalidInputError("Hold one job (job_id) or all that match (match).", field="match")
        if not reason.strip():
            raise InvalidInputError("Say why: others will wonder later.", field="reason")
        wanted = match_from_json(match or {}, "match")
        check_match(wanted, "match")

        def add(conn: Connection) -> HoldRow:
            now_ms = db_now_ms(conn)
            if until is not None and until <= now_ms:
                raise InvalidInputError("The end of the hold is in the past.", field="until")
            if job_id is None:
                return holds.hold_matching(conn, wanted, reason=reason, by=by, until=until, now_ms=now_ms)
            return holds.hold_one(conn, job_id, reason=reason, by=by, until=until, now_ms=now_ms)

        try:
            made = await self._db.write(add)
        except NotFoundError:
            if job_id is None or not await self._brought_back(job_id):
                raise
            made = await self._db.write(add)
        _log.info("hold added", hold=made.id, by=by, job=job_id)
        return made

    async def remove_hold(self, hold_id: int, *, by: str) -> HoldRow:
        """Let the policy decide again; NotFoundError."""
        ended = await self._db.write(lambda conn: holds.remove_hold(conn, hold_id, by=by))
        _log.info("hold removed", hold=hold_id, by=by)
        return ended

    async def restore(self, job_id: int, *, by: str) -> HoldRow:
        """Bring a deleted or archived job back; it is held from then on. NotFoundError when it is nowhere."""
        made = await self._db.write(lambda conn: bring_back(conn, job_id, by=by))
        if made is None:
            if not await self._brought_back(job_id):
                raise NotFoundError(f"Job {job_id} is neither in the database nor in the archive.")
            made = await self._db.write(lambda conn: bring_back(conn, job_id, by=by))
        if made is None:
            raise NotFoundError(f"Job {job_id} was taken out of the archive, but is gone from the database again.")
        _log.info("job restored", job=job_id, by=by)
        return made

    async def _brought_back(self, job_id: int) -> bool:
        """Whether the archive has a job, which is in the database then."""
        archive = self._parts.restore_archived
        return archive is not None and await archive(job_id)

    async def status(self) -> dict[str, Any]:
        """How things stand. Times in unix milliseconds."""
        found = await self._db.read(_status)
        running = self.sweeping is not None and not self.sweeping.done()
        next_ms = None if self._next_at is None else found["now"] + int(max(0.0, self._next_at - self._clock.monotonic()) * 1000)
        return {**found, "running": running or found["running"], "next_run_at": None if found["paused"] else next_ms}

    async def _start(self, ask: Ask) -> tuple[Sweep, asyncio.Task[RunState]] | None:
        """Begin a sweep and let it run; None when another manager sweeps. One that only sorts is waited for."""
        async with self._turn:
            if self.sweeping is not None and not self.sweeping.done():
                raise SweepRefusedError("A sweep is running already.")
            sweep = None
            for _ in range(_TRIES):
                sweep = await self._sweeper.begin(ask)
                if sweep is not None or await self._db.read(runs.is_running):
                    break
                await self._clock.sleep(_TRY_AGAIN_S)
            if sweep is None:
                return None
            self.sweeping = asyncio.create_task(self._sweeper.carry_out(sweep), name=f"retention-run-{sweep.run_id}")
            return sweep, self.sweeping

    async def _dry_run(self, by: str) -> Run:
        """The report of the same predicate that removes; jobs that no sweep has classified yet are classified for it."""

        def order_of(conn: Connection) -> tuple[int, Order]:
            found = records.policy_in_force(conn)
            if found is None:
                raise NotFoundError("There is no retention policy, so nothing is removed.")
            return found.version, Order(policy=found.policy, selectors=holds.selectors(conn))

        version, order = await self._db.read(order_of)
        await self._sweeper.classify(order)

        def tell(conn: Connection) -> int:
            report = due_report(conn, order, class_ids(conn, order), db_now_ms(conn))
            trigger = f"manual: {by[:_NAME_LIMIT]}"
            run_id = runs.begin_run(conn, policy_version=version, trigger=trigger, holder=self._holder, epoch=0, dry_run=True)
            runs.end_run(conn, run_id, RunState.DONE, report=report)
            return run_id

        return await self.find_run(await self._db.write(tell))


def _status(conn: Connection) -> dict[str, Any]:
    found, now_ms = records.policy_in_force(conn), db_now_ms(conn)
    latest, holder = runs.runs(conn, before=None, limit=1), runs.lease_holder(conn, LEASE)
    paused, window, held = marks.mark(conn, "paused"), marks.mark(conn, "window"), held_since(conn)
    if held and (found is None or held["version"] != found.version):
        held = {}  # the policy has changed since: the next sweep judges anew, and that run cannot be confirmed any more
    opened = stored_window(window)
    order = Order(policy=found.policy, selectors=holds.selectors(conn)) if found else None
    due = due_count(conn, order, class_ids(conn, order), now_ms, at_most=MOST_COUNTED) if order else 0
    return {
        "now": now_ms,
        "paused": bool(paused.get("paused")),
        "paused_reason": paused.get("reason", ""),
        "policy_version": found.version if found else None,
        "due": due,
        "due_or_more": due >= MOST_COUNTED,
        "lease": holder,
        "running": holder is not None and runs.is_running(conn),
        "last_run": latest[0] if latest else None,
        "swept_at": marks.mark(conn, "clock").get("database_ms"),
        "removal_held": {"since_run": held["since_run"], "reason": held["reason"], "rows": held["rows"]} if held else None,
        "window": None if opened is None else {"window": opened.text, "zone": opened.zone, "opens_at": opened.opens_at(now_ms)},
        "holds": holds.hold_count(conn),
    }
