"""One sink's deliveries: read what is due, hand it over, acknowledge it, again. What a sink refuses is found and set aside."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from darner.core.errors import DarnerError
from darner.db import Database, Lease, LeaseLostError, check_lease
from darner.kit.clock import Clock, sleep_unless
from darner.kit.log import get_logger
from darner.kit.retry import backoff
from darner.retention.export import outbox
from darner.retention.export.loader import Load, Loader
from darner.retention.export.ports import RefusedError, Sink, SinkAwayError
from darner.retention.export.values import Document, Waiting

_log = get_logger("retention")
Ready = tuple[Waiting, Document]
# That many new jobs in a row, each refused by itself and none accepted, are not bad jobs but a sink that refuses everything.
# The next time twice as many are tried, because there may be that many bad ones before the first good one.
_PROBES, _MOST_PROBES = 3, 100


class RefusesAllError(SinkAwayError):
    """The sink refuses whatever it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPace:
    """How often the outbox is looked at and a sink that is away is asked again; seconds.

    `refused_cap_s`: the longest wait for a sink that refuses all that it is sent; good jobs may be behind the bad ones.
    `again_s`: how often refused jobs are looked for while very many others wait.
    `deliver_s`: the longest one delivery may take, beyond the sink's own limits. `grace_s`: how long one may still take at the end.
    """

    poll_s: float = 1.0
    retry_first_s: float = 1.0
    retry_cap_s: float = 300.0
    refused_cap_s: float = 30.0
    again_s: float = 30.0
    retry_after_cap_s: float = 3_600.0
    deliver_s: float = 660.0
    grace_s: float = 5.0
    lease_ttl_s: float = 30.0
    mend_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """What all runners of a manager share. `now`: the database's time, in unix ms."""

    db: Database
    loader: Loader
    clock: Clock
    pace: ExportPace
    now: Callable[[Connection], int]


class SinkRunner:
    """Delivers to one sink while its manager holds the lease."""

    def __init__(self, name: str, make: Callable[[], Sink], courier: Courier) -> None:
        """`make` may raise DarnerError, for instance for a certificate that cannot be read; it is called again later then."""
        self.name = name
        self._make = make
        self._sink: Sink | None = None
        self._courier = courier
        self._woken = asyncio.Event()
        self._stopping = False
        self._failures = 0
        self._refusals = 0
        self._again_at = 0.0

    def wake(self) -> None:
        """There may be something new: do not wait for the next look."""
        if not self._failures:
            self._woken.set()

    def hurry(self) -> None:
        """A person wants it tried now, however long it has been failing."""
        self._woken.set()

    def stop(self) -> None:
        """End after the delivery that is under way."""
        self._stopping = True
        self._woken.set()

    async def run(self, lease: Lease) -> None:
        """Until `stop`. Raises LeaseLostError when another manager does it now."""
        waits = self._waits()
        try:
            while not self._stopping:
                try:
                    busy = await self._once(lease)
                except LeaseLostError:
                    raise
                except Exception as error:  # noqa: BLE001  (whatever it is, it must not end the export)
                    await self._failed(error, next(waits), lease)
                    continue
                if busy:
                    waits = self._waits()
                else:
                    await self._nap(self._courier.pace.poll_s)
        finally:
            await self._close()

    async def _once(self, lease: Lease) -> bool:
        """One batch; whether there was one."""
        sink = self._opened()
        now_s = self._courier.clock.monotonic()
        again = now_s >= self._again_at
        load = await self._courier.db.read(partial(self._load, again=again))
        if again:
            self._again_at = now_s + self._courier.pace.again_s
        if load.is_empty:
            return False
        await self._settle(load, lease)
        if load.ready:
            await self._hand_over(sink, load.ready, lease)
        for one in load.again:
            await self._hand_over(sink, [one], lease)
        return True

    def _load(self, conn: Connection, *, again: bool) -> Load:
        limits = self._opened().limits
        return self._courier.loader.load(conn, self.name, limits, self._courier.now(conn), again=again)

    def _opened(self) -> Sink:
        if self._sink is None:
            self._sink = self._make()
        return self._sink

    async def _settle(self, load: Load, lease: Lease) -> None:
        """What cannot be delivered at all."""
        if not (load.unreadable or load.lost):
            return

        def settle(conn: Connection) -> int:
            now_ms = self._fence(conn, lease)
            for row, reason in load.unreadable:
                outbox.set_aside(conn, row, reason, now_ms)
            return outbox.drop_lost(conn, self.name, load.lost) if load.lost else 0

        if lost := await self._courier.db.write(settle, durable=False):
            _log.warning("jobs were gone before they were exported", sink=self.name, jobs=lost)

    async def _hand_over(self, sink: Sink, ready: Sequence[Ready], lease: Lease) -> None:
        """Deliver; halve what is refused until the refused ones stand alone."""
        todo, alone, accepted = [ready], 0, False
        while todo and not self._stopping:
            part = todo.pop()
            try:
                await self._deliver(sink, [document for _, document in part])
            except RefusedError as error:
                if error.refused is not None:
                    accepted |= await self._sort_out(part, error, lease)
                elif len(part) == 1:
                    await self._set_aside(part[0], error.message, lease)
                    alone += not part[0][0].attempts
                    if alone >= min(_PROBES << self._refusals, _MOST_PROBES) and not accepted:
                        self._refusals = min(self._refusals + 1, _MOST_PROBES)
                        raise RefusesAllError(f"It refuses whatever is sent: {error.message}") from error
                else:
                    todo += [part[len(part) // 2 :], part[: len(part) // 2]]
            else:
                await self._acknowledge(part, lease)
                accepted = True

    async def _deliver(self, sink: Sink, documents: Sequence[Document]) -> None:
        try:
            async with asyncio.timeout(self._courier.pace.deliver_s):
                await sink.deliver(documents)
        except TimeoutError as error:
            raise SinkAwayError("It did not take a delivery in time.") from error

    async def _sort_out(self, part: Sequence[Ready], error: RefusedError, lease: Lease) -> bool:
        """The sink says which it refuses; whether it took any."""
        reasons = error.refused or {}
        good = [one for one in part if one[1].key not in reasons]
        for one in part:
            if one[1].key in reasons:
                await self._set_aside(one, reasons[one[1].key], lease)
        if good:
            await self._acknowledge(good, lease)
        return bool(good)

    async def _acknowledge(self, part: Sequence[Ready], lease: Lease) -> None:
        rows = [row.id for row, _ in part]

        def acknowledge(conn: Connection) -> int:
            return outbox.acknowledge(conn, self.name, rows, self._fence(conn, lease))

        await self._courier.db.write(acknowledge, durable=False)
        if self._failures:
            _log.info("sink takes jobs again", sink=self.name, after_failures=self._failures)
        self._failures = self._refusals = 0

    async def _set_aside(self, one: Ready, reason: str, lease: Lease) -> None:
        tell = _log.debug if one[0].attempts else _log.warning
        tell("sink refuses a job", sink=self.name, job=one[0].job_id, refusals=one[0].attempts + 1, reason=reason)

        def aside(conn: Connection) -> None:
            outbox.set_aside(conn, one[0], reason, self._fence(conn, lease))

        await self._courier.db.write(aside, durable=False)

    def _fence(self, conn: Connection, lease: Lease) -> int:
        """Only the holder of the lease changes the outbox; the time."""
        check_lease(conn, lease)
        return self._courier.now(conn)

    async def _failed(self, error: Exception, wait_s: float, lease: Lease) -> None:
        """Tell the log and, if the database can be reached, everybody who asks; then wait."""
        reason = error.message if isinstance(error, DarnerError) else f"It failed unexpectedly ({type(error).__name__})."
        wait_s = min(wait_s, self._courier.pace.refused_cap_s) if isinstance(error, RefusesAllError) else wait_s
        wished_s = error.retry_after_s if isinstance(error, SinkAwayError) else None
        wait_s = max(wait_s, min(wished_s or 0.0, self._courier.pace.retry_after_cap_s))
        self._failures += 1
        if self._failures == 1 or self._failures % 10 == 0:
            trace = None if isinstance(error, DarnerError) else error
            known = {"sink": self.name, "failures": self._failures, "again_in_s": round(wait_s)}
            _log.warning("sink takes nothing", reason=reason, exc_info=trace, **known)

        def note(conn: Connection) -> None:
            outbox.note_failure(conn, self.name, reason, self._fence(conn, lease))

        try:
            await self._courier.db.write(note, durable=False)
        except LeaseLostError:
            raise
        except DarnerError as away:
            _log.warning("a failed export cannot be noted", sink=self.name, reason=away.message)
        await self._nap(wait_s)

    async def _nap(self, seconds: float) -> None:
        """Wait that long, or until woken."""
        try:
            await sleep_unless(self._courier.clock, seconds, self._woken)
        finally:
            self._woken.clear()

    async def _close(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            try:
                await sink.close()
            except Exception as error:  # noqa: BLE001  (it is given up anyhow)
                _log.warning("a sink did not close", sink=self.name, reason=type(error).__name__)

    def _waits(self) -> Iterator[float]:
        return backoff(first_s=self._courier.pace.retry_first_s, cap_s=self._courier.pace.retry_cap_s)
