"""Which schedulers there are, which of them answer, and telling them that this host is here.

The list comes from the manager (every refresh interval) or is fixed. Every scheduler is asked for its health every few seconds: one
that begins to answer, again or for the first time, hears of this host at once, and `on_new` lets the daemon tell it what it holds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from darner.core.errors import DarnerError
from darner.core.fleet import SchedulerInfo, SchedulerQuery
from darner.core.hashring import schedulers_in_order
from darner.core.host import Host, join_address
from darner.daemon.ports import SchedulerHostPort
from darner.kit.clock import Clock
from darner.kit.log import get_logger

HEALTH_EVERY_S = 3.0
LEAVE_TIMEOUT_S = 3.0
_log = get_logger("daemon")


class ManagerPort(Protocol):
    """The manager, as far as daemons need it."""

    async def list_schedulers(self, query: SchedulerQuery) -> list[SchedulerInfo]:
        """The schedulers a host should use."""


class Directory:
    """The schedulers of this daemon."""

    def __init__(
        self,
        *,
        host: Callable[[], Host],
        connect: Callable[[str], SchedulerHostPort],
        clock: Clock,
        manager: ManagerPort | None = None,
        fixed: tuple[str, ...] = (),
        refresh_s: float = 60.0,
        announce_s: float = 300.0,
        watch: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`connect` opens a client without blocking; `fixed` is used when there is no manager.

        `watch` returns when the connection to a scheduler breaks: one that restarts between two health checks has forgotten us.
        """
        self._watch = watch
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._host = host
        self._connect = connect
        self._clock = clock
        self._manager = manager
        self._fixed = fixed
        self._refresh_s = refresh_s
        self._announce_s = announce_s
        self._clients: dict[str, SchedulerHostPort] = {}
        self._known: list[SchedulerInfo] = []
        self._healthy: dict[str, bool] = {}
        self._announced_at: dict[str, float] = {}
        self.on_new: Callable[[str], Awaitable[None]] | None = None
        self.wanting_lengths: set[str] = set()
        """Schedulers (upstream's) that take a content of a length not told for empty (scheduler.md, section 10.5)."""

    def in_order(self, task_id: str) -> list[str]:
        """The schedulers of a task: its own one first, then around the ring; only those that answer and share a cluster."""
        return schedulers_in_order(task_id, self._usable())

    def answers(self, address: str) -> bool:
        """Whether a scheduler passed its last health check."""
        return self._healthy.get(address, False)

    def client(self, address: str) -> SchedulerHostPort:
        """The client of a scheduler."""
        found = self._clients.get(address)
        if found is None:
            found = self._clients[address] = self._connect(address)
        return found

    async def start(self) -> None:
        """Learn the schedulers and announce this host once. Failures are logged: a daemon works without a scheduler, too."""
        await self.refresh()
        await self.check_health()

    async def run(self) -> None:
        """Keep list, health and announcements fresh until cancelled."""
        refreshed = self._clock.monotonic()
        try:
            await self._keep_fresh(refreshed)
        finally:
            for watcher in self._watchers.values():
                watcher.cancel()
            await asyncio.gather(*self._watchers.values(), return_exceptions=True)
            self._watchers.clear()

    async def _keep_fresh(self, refreshed: float) -> None:
        while True:
            self._watch_new()
            await self._clock.sleep(HEALTH_EVERY_S)
            due = self._refresh_s if self._known else min(self._refresh_s, HEALTH_EVERY_S)
            if self._clock.monotonic() - refreshed >= due:
                refreshed = self._clock.monotonic()
                await self.refresh()
            await self.check_health()

    def _watch_new(self) -> None:
        for info in self._known:
            address = _address(info)
            if self._watch is not None and self._healthy.get(address) and address not in self._watchers:
                self._watchers[address] = asyncio.create_task(self._until_lost(address, self._watch))

    async def _until_lost(self, address: str, watch: Callable[[str], Awaitable[None]]) -> None:
        await watch(address)
        _log.info("the connection to a scheduler broke; it is told again who is here", scheduler=address)
        self._announced_at.pop(address, None)
        self._watchers.pop(address, None)

    async def refresh(self) -> None:
        """Ask the manager for the list; without an answer the old one stays."""
        if self._manager is None:
            self._known = [_fixed_info(address) for address in self._fixed]
            return
        host = self._host()
        query = SchedulerQuery(
            hostname=host.hostname,
            ip=host.ip,
            seed=host.is_seed,
            idc=host.idc,
            location=host.location,
            version=host.build_version,
            scheduler_cluster_id=host.scheduler_cluster_id,
        )
        try:
            self._known = await self._manager.list_schedulers(query)
        except DarnerError as error:
            _log.warning("the manager does not tell the schedulers; those known stay in use", reason=error.message)

    async def check_health(self) -> None:
        """Ask every scheduler; announce this host where it is new or due again."""
        await asyncio.gather(*(self._check(_address(info)) for info in self._known))

    async def announce(self, address: str) -> bool:
        """Tell one scheduler that this host is here; False if that failed."""
        try:
            await self.client(address).announce_host(self._host(), self._announce_s)
        except DarnerError as error:
            self._announced_at.pop(address, None)
            _log.warning("a scheduler did not take the announcement", scheduler=address, reason=error.message)
            return False
        self._announced_at[address] = self._clock.monotonic()
        return True

    async def leave(self) -> None:
        """Tell every scheduler that this host goes."""
        host = self._host()

        async def leave_one(address: str) -> None:
            try:
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await self.client(address).delete_host(host.id)
            except (DarnerError, TimeoutError) as error:
                _log.info("a scheduler did not hear the goodbye", scheduler=address, reason=str(error))

        await asyncio.gather(*(leave_one(address) for address, healthy in self._healthy.items() if healthy))

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    def _usable(self) -> list[str]:
        """The healthy schedulers of the first healthy one's cluster (daemon.md, section 8.2)."""
        healthy = [info for info in self._known if self._healthy.get(_address(info))]
        return [_address(info) for info in healthy if info.scheduler_cluster_id == healthy[0].scheduler_cluster_id]

    async def _check(self, address: str) -> None:
        was = self._healthy.get(address, False)
        now = self._healthy[address] = await self.client(address).healthy()
        if was and not now:
            _log.warning("a scheduler does not answer", scheduler=address)
            self._announced_at.pop(address, None)
        announced = self._announced_at.get(address)
        if not now or (announced is not None and self._clock.monotonic() - announced < self._announce_s):
            return
        if await self.announce(address) and announced is None and self.on_new is not None:
            await self.on_new(address)


def _address(info: SchedulerInfo) -> str:
    return join_address(info.ip, info.port)


def _fixed_info(address: str) -> SchedulerInfo:
    name, _, port = address.rpartition(":")
    return SchedulerInfo(id=0, hostname=name, ip=name.strip("[]"), port=int(port), scheduler_cluster_id=0)
