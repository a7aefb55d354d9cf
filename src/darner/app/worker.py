"""The worker: composition root. It runs as a process of its own, or beside a scheduler in that one's process.

Stop: no new parts are taken, running ones are given back, then the connections are closed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from darner.app.tokens import read_token
from darner.client.dfdaemon import DaemonClient
from darner.client.rest import ManagerRest
from darner.client.scheduler import SchedulerClient
from darner.core.errors import InvalidInputError
from darner.jobs.config import WorkerConfig
from darner.jobs.worker import Worker
from darner.kit.config import setting
from darner.kit.log import get_logger

_log = get_logger("worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcessConfig:
    """The worker's configuration."""

    manager: str = setting("", "The manager's URL, like http://manager:8080.")
    token_file: Path | None = setting(None, "File with a token of scope worker.")
    scheduler: str = setting("127.0.0.1:8002", "gRPC address of the cluster's scheduler.")
    worker: WorkerConfig = setting(WorkerConfig(), "How parts are carried out.")


async def run_worker(config: WorkerProcessConfig, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Run a worker until `stop`."""
    async with open_worker(config):
        ready()
        await stop.wait()
        _log.info("worker stops; unfinished parts are given back")


@asynccontextmanager
async def open_worker(config: WorkerProcessConfig) -> AsyncIterator[None]:
    """A worker that works inside the block. Raises InvalidInputError for a configuration that lacks the manager."""
    if not config.manager:
        raise InvalidInputError("manager: the manager's URL is missing", field="manager")
    manager = ManagerRest(config.manager, await read_token(config.token_file))
    scheduler = SchedulerClient(config.scheduler)
    try:
        async with Worker(config.worker, board=manager, hosts=scheduler, dial=DaemonClient) as worker:
            _log.info("worker is ready", worker=worker.name, manager=config.manager, scheduler=config.scheduler)
            yield
    finally:
        await scheduler.close()
        await manager.close()
