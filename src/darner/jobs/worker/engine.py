"""The worker's loops: ask for parts, run them, tell the manager which hosts there are."""

import asyncio
import os
import socket
import weakref
from types import TracebackType
from typing import Self

from darner.core.errors import DarnerError
from darner.core.host import Host
from darner.core.work import PartOrder, SeenHost
from darner.jobs.config import WorkerConfig
from darner.jobs.ports import DaemonDialer, HostSource, WorkBoard
from darner.jobs.worker.part import PartRun, Tools
from darner.kit.clock import Clock, SystemClock
from darner.kit.log import get_logger
from darner.kit.retry import backoff

MAX_ASKED = 64
HOSTS_FRESH_S = 0.4
_log = get_logger("worker")


class Worker:
    """`async with Worker(…)`: works inside, and on leaving gives back what it has not finished.

    `board` is the manager, `hosts` the cluster's scheduler, `dial` opens a host's daemon by `ip:port`.
    """

    def __init__(
        self, config: WorkerConfig, *, board: WorkBoard, hosts: HostSource, dial: DaemonDialer, clock: Clock | None = None
    ) -> None:
        """Nothing runs yet."""
        self.name = config.name or f"{socket.gethostname()}-{os.getpid()}"
        self._config = config
        self._board = board
        self._hosts = _FreshHosts(hosts, clock or SystemClock())
        self._clock = clock or SystemClock()
        started_at = self._clock.monotonic()
        self._tools = Tools(config=config, board=board, hosts=self._hosts, dial=dial, clock=self._clock, started_at=started_at)
        self._parts: set[asyncio.Task[None]] = set()
        self._turns: weakref.WeakValueDictionary[int, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._free = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start asking."""
        self._loops = [asyncio.create_task(self._ask()), asyncio.create_task(self._tell_hosts())]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """First nothing new is taken, then what runs is stopped and given back."""
        await _end(self._loops)
        await _end(list(self._parts))

    async def _ask(self) -> None:
        waits = backoff(first_s=0.2, cap_s=5.0)
        while True:
            free = self._config.max_parts - len(self._parts)
            if free <= 0:
                self._free.clear()
                await self._free.wait()
                continue
            try:
                orders = await self._board.lease(worker=self.name, cluster_id=self._config.cluster_id, limit=min(free, MAX_ASKED))
            except DarnerError as error:
                _log.info("no work can be had", reason=error.message)
                await self._clock.sleep(next(waits))
                continue
            waits = backoff(first_s=0.2, cap_s=5.0)
            for order in orders:
                self._start(order)

    def _start(self, order: PartOrder) -> None:
        turn = self._turns.get(order.job_id)
        if turn is None:
            turn = self._turns[order.job_id] = asyncio.Semaphore(order.concurrent_task_count)
        task = asyncio.create_task(PartRun(order, self._tools, turn).run())
        self._parts.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._parts.discard(task)
        self._free.set()
        if not task.cancelled() and task.exception() is not None:
            _log.error("a part ended with a defect; its lease runs out", exc_info=task.exception())

    async def _tell_hosts(self) -> None:
        told = True
        while True:
            try:
                hosts = await self._hosts.list_hosts()
                await self._board.put_hosts(self._config.cluster_id, [seen(host) for host in hosts])
                told = True
            except DarnerError as error:
                if told:
                    _log.info("the hosts cannot be told to the manager", reason=error.message)
                told = False
            await self._clock.sleep(self._config.hosts_interval_s if told else min(1.0, self._config.hosts_interval_s))


class _FreshHosts:
    """Asks the scheduler at most every HOSTS_FRESH_S, however many parts want to know."""

    def __init__(self, source: HostSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._kept: list[Host] | None = None
        self._at = 0.0
        self._lock = asyncio.Lock()

    async def list_hosts(self) -> list[Host]:
        async with self._lock:
            if self._kept is None or self._clock.monotonic() - self._at > HOSTS_FRESH_S:
                self._kept = None
                self._kept = await self._source.list_hosts()
                self._at = self._clock.monotonic()
            return self._kept


def seen(host: Host) -> SeenHost:
    """What of a host the fleet's list shows."""
    return SeenHost(
        id=host.id,
        hostname=host.hostname,
        ip=host.ip,
        port=host.port,
        seed=host.is_seed,
        os=host.os,
        platform=host.platform,
        idc=host.idc,
        location=host.location,
        download_port=host.download_port,
        proxy_port=host.proxy_port,
        disk_total=host.disk_total,
        disk_free=host.disk_free,
        build_version=host.build_version,
    )


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
