"""The scheduler: composition root.

Start: engine, gRPC, then the link to the manager and, if configured, a worker beside it. Stop, in reverse: the worker gives its
parts back, the manager hears that this scheduler is gone, gRPC ends its streams, the engine ends its triggers.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from darner import __version__
from darner.app.tokens import read_token
from darner.app.worker import WorkerProcessConfig, open_worker
from darner.client.manager import ManagerGrpcClient
from darner.core.fleet import SchedulerInfo
from darner.jobs.config import WorkerConfig
from darner.kit.log import get_logger
from darner.scheduler.announcer import ManagerLink
from darner.scheduler.config import SchedulerConfig
from darner.scheduler.engine import SchedulerEngine
from darner.scheduler.rpc import build_server
from darner.scheduler.seeds import DaemonSeeds

SchedulerProcessConfig = SchedulerConfig
_log = get_logger("scheduler")


async def run_scheduler(config: SchedulerConfig, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Run a scheduler until `stop`."""
    server = config.server
    info = await _info(config)
    seeds = DaemonSeeds(timeout_s=config.seed_peer.task_download_timeout)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(SchedulerEngine(config, seeds, remote_ip=info.ip))
        await stack.enter_async_context(build_server(engine, ip=server.listenIP, port=server.port))
        if config.manager.addr:
            await stack.enter_async_context(_linked(config, engine, info))
        if config.worker.enable:
            await stack.enter_async_context(open_worker(_worker_config(config)))
        _log.info("scheduler is ready", address=f"{server.listenIP}:{server.port}", version=__version__)
        ready()
        await stop.wait()
        _log.info("scheduler stops")


async def _info(config: SchedulerConfig) -> SchedulerInfo:
    server = config.server
    return SchedulerInfo(
        id=0,
        hostname=server.host or socket.gethostname(),
        ip=server.advertiseIP or await asyncio.to_thread(_own_address),
        port=server.advertisePort or server.port,
        scheduler_cluster_id=config.manager.schedulerClusterID,
        idc=config.host.idc,
        location=config.host.location,
    )


@asynccontextmanager
async def _linked(config: SchedulerConfig, engine: SchedulerEngine, info: SchedulerInfo) -> AsyncIterator[None]:
    """Registered with the manager inside the block; a manager that is away is tried again and again."""
    manager = ManagerGrpcClient(config.manager.addr, token=await read_token(config.manager.token_file))
    link = ManagerLink(
        manager,
        engine,
        info,
        keep_alive_s=config.manager.keep_alive.interval,
        refresh_s=config.dyn_config.refresh_interval,
    )
    running = asyncio.create_task(link.run(), name="manager-link")
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(link.registered.wait(), timeout=5)
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await manager.close()


def _worker_config(config: SchedulerConfig) -> WorkerProcessConfig:
    worker, server = config.worker, config.server
    return WorkerProcessConfig(
        manager=worker.manager,
        token_file=worker.token_file,
        scheduler=worker.scheduler or f"127.0.0.1:{server.port}",
        worker=WorkerConfig(cluster_id=config.manager.schedulerClusterID),
    )


def _own_address() -> str:
    """The address of the default route (no packet is sent), else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
