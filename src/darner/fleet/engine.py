"""The fleet: who registered, who lives, and which schedulers a daemon should use.

In: registrations, heartbeats, reports of hosts. Out: lists. Heartbeats are kept in memory and written together, because a row write
per beat and scheduler is most of what upstream's manager does at rest (spec/manager.md, 17, no. 50).
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Self

from darner.core.errors import ConflictError, DarnerError
from darner.core.fleet import ApplicationInfo, SchedulerInfo, SchedulerQuery
from darner.core.work import SeenHost
from darner.db import Database
from darner.fleet import sql
from darner.fleet.config import FleetConfig
from darner.fleet.rules import ACTIVE, Candidate, check_scheduler, ranked, scopes_of
from darner.fleet.values import ClusterRow, HostFilter, HostRow, SchedulerRow
from darner.kit.clock import Clock, SystemClock
from darner.kit.log import get_logger

_log = get_logger("fleet")


class FleetEngine:
    """Owns the heartbeats. `async with` makes the default cluster of a fresh installation and starts writing."""

    def __init__(self, db: Database, *, config: FleetConfig | None = None, clock: Clock | None = None) -> None:
        """`db` must have been migrated."""
        self._db = db
        self._config = config or FleetConfig()
        self._clock = clock or SystemClock()
        self._beats: set[int] = set()
        self._streams: dict[int, object] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Make the default cluster if there is none, and begin to write heartbeats."""
        with contextlib.suppress(ConflictError):  # another manager made it at the same time
            if await self._db.write(sql.seed_cluster):
                _log.info("made the default cluster of a fresh installation")
        self._task = asyncio.create_task(self._keep_writing(), name="fleet-heartbeats")

    async def stop(self) -> None:
        """Write what is known and end. Streams must have ended before; their schedulers are inactive then."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        with contextlib.suppress(DarnerError):
            await self.flush()

    async def list_schedulers(self, query: SchedulerQuery) -> list[SchedulerInfo]:
        """The schedulers a daemon should use, best cluster first.

        A named cluster: all of its schedulers, in any state, as upstream; the daemon tries them. Else the active ones that can
        schedule, and if there are none, all active ones.
        """
        rows, clusters = await self._db.read(lambda conn: (sql.schedulers(conn), sql.clusters(conn)))
        found = [row.info for row in rows]
        if query.scheduler_cluster_id:
            return [one for one in found if one.scheduler_cluster_id == query.scheduler_cluster_id and one.cluster is not None]
        active = [one for one in found if one.state == ACTIVE and one.cluster is not None]
        able = [one for one in active if "schedule" in one.features] or active
        candidates = [Candidate(id=row.info.id, is_default=row.is_default, scopes=scopes_of(row.info.scopes)) for row in clusters]
        order = {cluster_id: place for place, cluster_id in enumerate(ranked(candidates, query))}
        return sorted(able, key=lambda one: (order[one.scheduler_cluster_id], one.id))

    async def update_scheduler(self, scheduler: SchedulerInfo, config: bytes) -> SchedulerInfo:
        """Register a scheduler, or tell its new facts. InvalidInputError; NotFoundError for an unknown cluster."""
        check_scheduler(scheduler, config)
        text = (config or b"{}").decode()
        key = await self._db.write(lambda conn: sql.put_scheduler(conn, scheduler, text))
        _log.info("scheduler registered", id=key, hostname=scheduler.hostname, ip=scheduler.ip, port=scheduler.port)
        return await self.get_scheduler(scheduler.hostname, scheduler.ip, scheduler.scheduler_cluster_id)

    async def get_scheduler(self, hostname: str, ip: str, cluster_id: int) -> SchedulerInfo:
        """A scheduler with its cluster's configs; NotFoundError."""
        return await self._db.read(lambda conn: sql.find_scheduler(conn, hostname, ip, cluster_id))

    @asynccontextmanager
    async def presence(self, hostname: str, ip: str, cluster_id: int) -> AsyncIterator[Callable[[], None]]:
        """While this lasts the scheduler is active; call what it gives at each beat. NotFoundError if it never registered.

        A scheduler that comes back before its broken stream is noticed has two; only the end of the newer one counts.
        """
        scheduler = await self.get_scheduler(hostname, ip, cluster_id)
        stream = object()
        self._streams[scheduler.id] = stream
        await self._db.write(lambda conn: sql.mark_beats(conn, [scheduler.id]), durable=False)
        _log.info("scheduler is active", id=scheduler.id, hostname=hostname)
        try:
            yield lambda: self._beats.add(scheduler.id)
        finally:
            if self._streams.get(scheduler.id) is stream:
                del self._streams[scheduler.id]
                self._beats.discard(scheduler.id)
                _log.info("scheduler is inactive", id=scheduler.id, hostname=hostname)
                ending = self._db.write(lambda conn: sql.mark_inactive(conn, scheduler.id), durable=False)
                await asyncio.shield(asyncio.ensure_future(ending))

    async def applications(self) -> list[ApplicationInfo]:
        """All applications and their priorities."""
        return await self._db.read(sql.applications)

    async def clusters(self) -> list[ClusterRow]:
        """All clusters, by id."""
        return await self._db.read(sql.clusters)

    async def schedulers(self) -> list[SchedulerRow]:
        """All schedulers, by id."""
        return await self._db.read(sql.schedulers)

    async def report_hosts(self, cluster_id: int, hosts: Sequence[SeenHost]) -> None:
        """A worker saw these hosts at its scheduler. NotFoundError for an unknown cluster."""
        await self._db.write(lambda conn: sql.put_hosts(conn, cluster_id, hosts), durable=False)

    async def hosts(self, wanted: HostFilter, *, page: int = 1, per_page: int = 1000) -> tuple[list[HostRow], int]:
        """One page of hosts, and how many there are in all."""
        silent_s = self._config.host_silent_s
        return await self._db.read(lambda conn: sql.hosts(conn, wanted, silent_s=silent_s, page=page, per_page=per_page))

    async def host(self, key: int) -> HostRow:
        """One host by its row's id; NotFoundError."""
        return await self._db.read(lambda conn: sql.find_host(conn, key, silent_s=self._config.host_silent_s))

    async def flush(self) -> None:
        """Write the heartbeats of the last seconds, and notice who fell silent."""
        beats, self._beats = self._beats, set()
        try:
            if beats:
                await self._db.write(lambda conn: sql.mark_beats(conn, sorted(beats)), durable=False)
            await self._db.write(lambda conn: sql.mark_silent(conn, silent_s=self._config.scheduler_silent_s), durable=False)
            await self._db.write(lambda conn: sql.forget_hosts(conn, forget_s=self._config.host_forget_s), durable=False)
        except DarnerError:
            self._beats |= beats & self._streams.keys()
            raise

    async def _keep_writing(self) -> None:
        while True:
            await self._clock.sleep(self._config.flush_every_s)
            try:
                await self.flush()
            except DarnerError as error:
                _log.warning("heartbeats could not be written; trying again", reason=error.message)


def config_of(text: str | bytes) -> dict[str, object]:
    """A JSON config as an object; an unreadable one is empty, so that one bad row does not spoil a list."""
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
