"""The exporter: one manager at a time delivers what waits in the outbox to the configured sinks.

In: rows that sorting put into the outbox, by whichever manager. Out: acknowledged rows, and how things stand. One lease names the
manager that delivers; its epoch is checked in every transaction that changes a row, so one that was asleep changes nothing. Each
sink has a runner of its own: one that is away for hours holds up nobody but the jobs that wait for it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from sqlalchemy import Connection

from darner.core.errors import ConflictError, DarnerError, NotFoundError
from darner.db import Database, Lease, LeaseLostError, acquire_lease, check_lease, db_now_ms, new_holder, release_lease, renew_lease
from darner.history.codec import Codec
from darner.kit.clock import Clock, SystemClock
from darner.kit.log import get_logger
from darner.retention.export import outbox
from darner.retention.export.config import SinkConfig, check_sinks
from darner.retention.export.loader import Loader
from darner.retention.export.ports import Sink
from darner.retention.export.runner import Courier, ExportPace, SinkRunner
from darner.retention.export.sinks import make_sink
from darner.retention.export.values import SinkBacklog
from darner.retention.records import policy_in_force

_log = get_logger("retention")
LEASE = "retention-export"
_ROWS_AT_ONCE = 2_000
_WAKE_AFTER_S = 0.05


class Exporter:
    """Delivers while it is entered (`async with`)."""

    def __init__(
        self,
        db: Database,
        codec: Codec,
        sinks: Sequence[SinkConfig],
        *,
        holder: str = "",
        clock: Clock | None = None,
        pace: ExportPace | None = None,
        make: Callable[[SinkConfig], Sink] = make_sink,
        now: Callable[[Connection], int] = db_now_ms,
    ) -> None:
        """`db` must have been migrated; `holder` names this process. Raises InvalidInputError that names a wrong key."""
        check_sinks(sinks)
        self._db = db
        self._sinks = tuple(sinks)
        self._holder = holder or new_holder()
        self._make = make
        self._courier = Courier(db=db, loader=Loader(codec), clock=clock or SystemClock(), pace=pace or ExportPace(), now=now)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._runners: list[SinkRunner] = []
        self._stopping = False
        self._orphans_after = 0

    @property
    def known_sinks(self) -> frozenset[str]:
        """The names that a policy may use (`rules.*.export`)."""
        return frozenset(sink.name for sink in self._sinks)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if self._sinks:
            self._main = asyncio.create_task(self._run(), name="retention-export")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        for runner in self._runners:
            runner.stop()
        if self._main is not None:
            if self._runners:
                await asyncio.wait({self._main}, timeout=self._courier.pace.grace_s)
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
        self._main, self._loop = None, None

    def enqueue(self, conn: Connection, job_ids: Sequence[int], sink: str, now_ms: int) -> int:
        """`outbox.enqueue`, from any thread; deliveries begin soon after the commit."""
        count = outbox.enqueue(conn, job_ids, sink, now_ms)
        loop = self._loop
        if count and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(self._wake_soon, sink)
        return count

    async def backlog(self) -> list[SinkBacklog]:
        """How things stand with every sink, whichever manager delivers."""
        kinds = {sink.name: sink.kind for sink in self._sinks}
        return await self._db.read(lambda conn: outbox.backlog(conn, kinds, self._courier.now(conn)))

    async def retry(self, sink: str, *, by: str) -> int:
        """Try what a sink refuses, and a sink that is away, at once; how many refused jobs. NotFoundError."""
        await self._known(sink)
        count = 0
        while more := await self._db.write(lambda conn: outbox.retry(conn, sink, _ROWS_AT_ONCE)):
            count += more
        for runner in self._runners:
            if runner.name == sink:
                runner.hurry()
        _log.info("export is tried again", sink=sink, by=by, refused=count)
        return count

    async def send_again(self, sink: str, *, since_ms: int, until_ms: int, by: str) -> int:
        """The sink has lost what it acknowledged between these moments: send it again, with the same keys. NotFoundError.

        As far as the jobs are still in the database, which they do not leave before it is acknowledged anew; how many.
        """
        await self._known(sink)
        count, after = 0, 0
        while True:
            step = partial(outbox.send_again, sink=sink, between=(since_ms, until_ms), after=after, limit=_ROWS_AT_ONCE)
            more, after = await self._db.write(step)
            count += more
            if not after:
                break
        _log.warning("jobs are exported again", sink=sink, by=by, jobs=count)
        return count

    async def drop(self, sink: str, *, by: str) -> int:
        """Forget a sink that is not configured and that no rule names: jobs wait for it no more; how many did."""
        await self._known(sink)
        if sink in self.known_sinks:
            raise ConflictError(f"The sink {sink} is configured; remove it from the configuration first.")

        def drop(conn: Connection) -> tuple[int, bool]:
            found = policy_in_force(conn)
            if found is not None and any(rule.export == sink for rule in found.policy.rules):
                raise ConflictError(f"Rules of the policy in force name the sink {sink}; change the policy first.")
            return outbox.drop_sink(conn, sink, _ROWS_AT_ONCE)

        count, done = 0, False
        while not done:
            more, done = await self._db.write(drop)
            count += more
        _log.warning("sink is forgotten", sink=sink, by=by, jobs_that_waited=count)
        return count

    async def _known(self, sink: str) -> None:
        if sink not in self.known_sinks and sink not in await self._db.read(outbox.known_names):
            raise NotFoundError(f"There is no sink {sink}.")

    def _wake_soon(self, sink: str) -> None:
        for runner in self._runners:
            if runner.name == sink and self._loop is not None:
                self._loop.call_later(_WAKE_AFTER_S, runner.wake)

    async def _run(self) -> None:
        """Wait for the lease, deliver while it is ours, again."""
        pace = self._courier.pace
        while not self._stopping:
            try:
                held = await self._db.write(self._acquire, durable=False)
                if held is not None:
                    await self._hold(held)
            except LeaseLostError:
                _log.warning("another manager exports now", holder=self._holder)
            except DarnerError as error:
                _log.warning("no export at present", reason=error.message)
            except Exception:  # noqa: BLE001  (an exporter that nobody runs is the commonest failure)
                _log.exception("the export broke")
            if not self._stopping:
                await self._courier.clock.sleep(pace.lease_ttl_s / 3)

    def _acquire(self, conn: Connection) -> Lease | None:
        """The lease, if it is free."""
        return acquire_lease(conn, LEASE, self._holder, ttl_s=self._courier.pace.lease_ttl_s)

    async def _hold(self, held: Lease) -> None:
        """Deliver with this lease until it is lost or the end."""
        self._runners = [SinkRunner(sink.name, partial(self._make, sink), self._courier) for sink in self._sinks]
        if self._stopping:
            return
        runs = [asyncio.create_task(one.run(held), name=f"export-{one.name}") for one in self._runners]
        beside = [asyncio.create_task(self._renew(held)), asyncio.create_task(self._mend(held))]
        try:
            await self._watch(runs, beside)
        finally:
            for task in (*runs, *beside):
                task.cancel()
            await asyncio.gather(*runs, *beside, return_exceptions=True)
            self._runners = []
            with contextlib.suppress(DarnerError):
                await self._db.write(lambda conn: release_lease(conn, held), durable=False)

    async def _watch(self, runs: list[asyncio.Task[None]], beside: list[asyncio.Task[None]]) -> None:
        """Until all runners have ended as they were told, or one thing broke: then what it was is raised."""
        waiting = set(runs)
        while waiting:
            done, _ = await asyncio.wait({*waiting, *beside}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            waiting -= done

    async def _renew(self, held: Lease) -> None:
        ttl_s = self._courier.pace.lease_ttl_s
        while True:
            await self._courier.clock.sleep(ttl_s / 3)
            try:
                await self._db.write(lambda conn: renew_lease(conn, held, ttl_s=ttl_s), durable=False)
            except LeaseLostError:
                raise
            except DarnerError as error:
                _log.warning("the lease of the export could not be renewed", reason=error.message)

    async def _mend(self, held: Lease) -> None:
        """What wrong clocks and removed jobs left behind."""
        while True:
            await self._courier.clock.sleep(self._courier.pace.mend_s)
            try:
                await self._db.write(partial(self._mend_once, held), durable=False)
            except LeaseLostError:
                raise
            except DarnerError as error:
                _log.warning("the outbox could not be looked over", reason=error.message)

    def _mend_once(self, held: Lease, conn: Connection) -> None:
        check_lease(conn, held)
        now_ms = self._courier.now(conn)
        for sink in self._sinks:
            if healed := outbox.heal_times(conn, sink.name, now_ms, _ROWS_AT_ONCE):
                _log.warning("jobs were to be exported far in the future; now they are due", sink=sink.name, jobs=healed)
        self._orphans_after = outbox.sweep_orphans(conn, self._orphans_after, _ROWS_AT_ONCE)
