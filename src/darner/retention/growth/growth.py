"""The watch over room: looks every minute, samples every hour, climbs the ladder, keeps and gives up the reserve.

In: budgets from people, reports of a full disk from the database. Out: the pressure that the sweeper adjusts the policy by, a
refusal for new jobs of low importance, figures. One manager at a time does it, by lease; the others read what it wrote.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from darner.core.errors import DarnerError, InvalidInputError, StorageFullError
from darner.db import Database, Lease, check_lease, db_now_ms, failures, new_holder
from darner.kit.clock import Clock, SystemClock, sleep_unless
from darner.kit.log import get_logger
from darner.retention.growth import store
from darner.retention.growth.adjust import NO_PRESSURE, Pressure, adjusted
from darner.retention.growth.budget import Budget, Kind, parse_budget
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.facts import Facts, facts_of
from darner.retention.growth.ladder import Ladder, Stage, step
from darner.retention.growth.meters import GrowthMeters
from darner.retention.growth.outlook import SPAN_MS, Outlook, outlook, reading
from darner.retention.growth.report import report_of
from darner.retention.growth.reserve import Reserve
from darner.retention.growth.space import Returned, give_back
from darner.retention.growth.values import Disk, Sample, slot_of
from darner.retention.growth.watch import ArchiveFigures, Look, Watcher
from darner.retention.policy import Policy

_log = get_logger("retention")
_SEEN_EVERY_MS = 10 * 60_000
_REASON_LIMIT = 1024
_LEAST_PAGES = 64
_BREATH_S = 1.0


class Growth:
    """`async with` begins to watch. `on_full` is called when a write found the disk full: a sweep should follow."""

    def __init__(
        self,
        db: Database,
        *,
        data_dir: Path | None = None,
        archive_dir: Path | None = None,
        archive_figures: ArchiveFigures | None = None,
        holder: str = "",
        config: GrowthConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`db` must have been migrated. `data_dir`: whose disk is watched; on SQLite by default the one that the database is in.

        `archive_dir`: of an archive in a directory, whose disk is watched too if it is another.
        """
        self._db = db
        self._config = config or GrowthConfig()
        self._clock = clock or SystemClock()
        self._holder = holder or new_holder()
        self.directory = data_dir or _beside(db)
        self.reserve = Reserve(self.directory, self._config.reserve_bytes) if self.directory is not None else None
        self._watcher = Watcher(
            db,
            directory=self.directory,
            archive_directory=archive_dir,
            archive=archive_figures,
            archive_local=self._config.archive_local,
        )
        self.on_full: Callable[[], Awaitable[object]] | None = None
        self.meters = GrowthMeters()
        self._pressure = NO_PRESSURE
        self._outlook: tuple[object, Outlook] | None = None
        self._full_at: float | None = None
        self._vacuumed_at: float | None = None
        self._facts_at: float | None = None
        self._hurry = asyncio.Event()
        self._turn = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        event.listen(self._db.engine, "handle_error", self._on_error)
        with contextlib.suppress(DarnerError):
            await self._read_pressure()
        self._tasks = [asyncio.create_task(self._watch(), name="retention-growth")]
        return self

    async def __aexit__(self, *_: object) -> None:
        event.remove(self._db.engine, "handle_error", self._on_error)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What others ask.

    @property
    def pressure(self) -> Pressure:
        """How scarce room was at the last look."""
        return self._pressure

    def adjusted(self, policy: Policy) -> Policy:
        """The policy as it is to be carried out now."""
        return adjusted(policy, self._pressure)

    def refuses_low_priority(self) -> str | None:
        """Why new jobs of low importance are not taken now; None: they are."""
        if self.pressure.stage != Stage.REFUSE:
            return None
        return "There is hardly any room left for the history, so jobs of low importance are not taken now; try again later."

    async def budget(self) -> dict[str, Any]:
        """The budget with who set it, when, and those before. Times in unix ms."""

        def read(conn: Connection) -> dict[str, Any]:
            found, history = store.budget(conn), store.budget_mark(conn).get("history", [])
            shorten = found.shorten.text if found and found.shorten else None
            return {"budget": found.text if found else "none", "shorten": shorten, "history": history}

        return await self._db.read(read)

    async def set_budget(self, text: str, *, by: str, reason: str = "", shorten: Any = None) -> dict[str, Any]:  # noqa: ANN401  (JSON)
        """A budget in words (`none`: no budget). InvalidInputError names the field; nothing changes then."""
        wanted = parse_budget(text, shorten=shorten)
        self._check(wanted)
        cut = reason[:_REASON_LIMIT]
        await self._db.write(lambda conn: store.set_budget(conn, wanted, by=by, reason=cut, now_ms=db_now_ms(conn)))
        _log.info("budget of the history changed", budget=wanted.text if wanted else "none", by=by, reason=cut)
        self._hurry.set()
        return await self.budget()

    def _check(self, wanted: Budget | None) -> None:
        if wanted is not None and wanted.kind == Kind.KEEP_FREE and self.directory is None:
            said = "The disk of the database server cannot be seen from here; give a size, like `keep at most 20 GiB`."
            raise InvalidInputError(said, field="budget")

    async def report(self, *, since_ms: int | None = None) -> dict[str, Any]:
        """Figures, series, forecast, ladder, advice. Times in unix ms, sizes in bytes; JSON but for that."""
        look = await self._watcher.look()
        seen = await self._see(look)
        held = self.reserve.held if self.reserve is not None else None
        return await self._db.read(lambda conn: report_of(conn, look, seen, since_ms=since_ms, reserve=held))

    # What it does by itself.

    async def tick(self) -> bool:
        """One look, with what follows from it; whether this manager is the one that watches. Raises DarnerError."""
        async with self._turn:
            held = await self._watcher.lease(self._holder, self._config.lease_ttl_s)
            if held is None:
                await self._read_pressure()
            else:
                await self._lead(held)
            self.meters.stage.set(self._pressure.stage)
            await self._refresh_facts()
            return held is not None

    async def sample(self) -> Sample | None:
        """The sample of this hour; None if there is one, or another manager watches."""
        async with self._turn:
            held = await self._watcher.lease(self._holder, self._config.lease_ttl_s)
            return None if held is None else await self._watcher.sample(await self._watcher.look(), held)

    async def give_back(self, *, least: int = _LEAST_PAGES) -> Returned:
        """Give room of deleted rows back to the file system now."""
        found = await give_back(self._db, self._clock, least=least, seconds=self._config.vacuum_s)
        self.meters.returned(found)
        return found

    async def _lead(self, held: Lease) -> None:
        look = await self._watcher.look()
        if look.last is None or look.last.slot != slot_of(look.now_ms):
            await self._watcher.sample(look, held)
        await self._climb(held, look, await self._see(look))
        await self._vacuum(look)
        if self.reserve is not None and look.disk is not None and not self._is_full(look.disk):
            await asyncio.to_thread(self.reserve.keep, look.disk.free)

    async def _climb(self, held: Lease, look: Look, seen: Outlook | None) -> None:
        """One step of the ladder, if it is time for one."""
        now = reading(
            used=look.used, disk=look.disk, budget=look.budget, policy=look.policy, seen=seen, full=self._is_full(look.disk)
        )

        def climb(conn: Connection) -> Ladder:
            check_lease(conn, held)
            standing, _ = store.ladder(conn)
            after, steps = step(standing, now, look.now_ms)
            seen_at = int(store.ladder_mark(conn).get("seen_at", 0))
            if after != standing or look.now_ms - seen_at > _SEEN_EVERY_MS:
                store.set_ladder(conn, after, steps, by=self._holder, now_ms=look.now_ms)
            for one in steps:
                _log.warning("room for the history", before=one.before.word, stage=one.after.word, cut=one.cut, why=one.why)
            return after

        after = await self._db.write(climb, durable=False)
        self._pressure = Pressure(stage=after.stage, cut=after.cut, floor=look.budget.shorten if look.budget else None)

    async def _vacuum(self, look: Look) -> None:
        """After each hour, or at each look while room is scarce."""
        hourly = self._vacuumed_at is None or self._clock.monotonic() - self._vacuumed_at >= 3600.0  # noqa: PLR2004
        if look.sizes.reclaimable and (hourly or self._pressure.stage >= Stage.VACUUM):
            self._vacuumed_at = self._clock.monotonic()
            await self.give_back()

    async def _see(self, look: Look) -> Outlook | None:
        """The forecast; drawn anew only when there is a new sample or another budget."""
        last = await self._db.read(store.last_sample)
        if last is None:
            return None
        key = (last.at, look.budget)
        if self._outlook is None or self._outlook[0] != key:
            samples = await self._db.read(lambda conn: store.samples_since(conn, look.now_ms - SPAN_MS))
            drawn = await asyncio.to_thread(outlook, samples or [last], look.budget, now_ms=last.at)
            self._outlook = (key, drawn)
            self.meters.drawn(last, drawn)
        return self._outlook[1]

    async def _read_pressure(self) -> None:
        self._pressure = await self._db.read(lambda conn: store.pressure(conn, db_now_ms(conn)))

    async def _refresh_facts(self) -> None:
        now = self._clock.monotonic()
        if self._facts_at is not None and now - self._facts_at < self._config.facts_s:
            return
        self._facts_at = now
        wall = self._clock.now
        found: Facts = await self._db.read(lambda conn: facts_of(conn, wall_ms=lambda: int(wall() * 1000)))
        self.meters.told(found)
        await self._see(await self._watcher.look())  # a manager that does not watch shows figures too

    async def _watch(self) -> None:
        """Look again and again; whatever goes wrong, the next look must come."""
        wait_s = self._config.first_s
        while True:
            await self._wait(wait_s)
            wait_s = self._config.look_s
            try:
                if self._is_full():
                    await self._make_room()
                await self.tick()
            except StorageFullError as error:
                self._pressure = Pressure(stage=Stage.REFUSE, floor=None)
                self.meters.stage.set(Stage.REFUSE)
                _log.warning("the disk is full", reason=error.message)
            except DarnerError as error:
                _log.warning("room for the history could not be looked after", reason=error.message)
            except Exception:  # noqa: BLE001  (see above)
                _log.exception("the watch over room broke")

    async def _wait(self, seconds: float) -> None:
        """That long, or until somebody is in a hurry."""
        await sleep_unless(self._clock, seconds, self._hurry)
        if self._hurry.is_set():
            await self._clock.sleep(min(_BREATH_S, seconds))  # a disk that stays full reports that often
        self._hurry.clear()

    async def _make_room(self) -> None:
        """After a write found the disk full: sweep what is due, and give its room back.

        The log comes first: it holds pages for which the file has to grow, and only when they are written it can be used anew.
        """
        with contextlib.suppress(DarnerError):
            await self._db.checkpoint()
        with contextlib.suppress(DarnerError):
            if self.on_full is not None:
                await self.on_full()
        with contextlib.suppress(DarnerError):
            await self.give_back()
        with contextlib.suppress(DarnerError):
            await self._db.checkpoint()

    def _is_full(self, disk: Disk | None = None) -> bool:
        """Whether a write found the disk full lately, and nobody has made much room since."""
        if disk is not None and disk.free > max(4 * self._config.reserve_bytes, disk.bytes // 4):
            return False
        return self._full_at is not None and self._clock.monotonic() - self._full_at < self._config.full_s

    def _on_error(self, context: ExceptionContext) -> None:
        """In a thread of the database: a statement failed."""
        error = context.sqlalchemy_exception
        if not isinstance(error, DBAPIError) or not isinstance(failures.translate(error, ""), StorageFullError):
            return
        self._full_at = self._clock.monotonic()
        if self.reserve is not None:
            self.reserve.release()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._hurry.set)


def _beside(db: Database) -> Path | None:
    """The directory of an SQLite database."""
    return Path(str(db.engine.url.database)).absolute().parent if db.dialect == "sqlite" else None
