"""A job from POST to SUCCESS over real HTTP, a real SQLite file, a real vault and tokens, with daemons in memory."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from darner.access import TokenService, Vault
from darner.app import problems
from darner.client.rest import ManagerRest
from darner.client.twins import DaemonTwin
from darner.core.host import Host, HostType
from darner.core.ids import host_id
from darner.core.progress import DownloadEvent
from darner.core.secret import Secret
from darner.core.task import Download, LocalTask
from darner.db import Database, migrate
from darner.jobs.config import JobsConfig, WorkerConfig
from darner.jobs.engine import JobPorts, JobsEngine, limits_of
from darner.jobs.rest import router
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.jobs.twins import ClustersTwin, HostsTwin, ResolverTwin, RetentionTwin
from darner.jobs.worker import Worker

URL = "http://origin.example/data.bin"
CONTENT = bytes(range(256)) * 40_000


def a_host(name: str, port: int, *, seed: bool) -> Host:
    kind = HostType.SUPER_SEED if seed else HostType.NORMAL
    return Host(
        id=host_id("127.0.0.1", name, seed=seed), ip="127.0.0.1", hostname=name, port=port, type=kind, build_version="darner-0.1.0"
    )


class KeptOpen:
    """A daemon whose client may be closed and opened again."""

    def __init__(self, twin: DaemonTwin) -> None:
        self.twin = twin

    def download_task(self, download: Download, timeout_s: float | None = None) -> AsyncGenerator[DownloadEvent, None]:
        return self.twin.download_task(download, timeout_s)

    async def stat_local_task(self, task_id: str) -> LocalTask:
        return await self.twin.stat_local_task(task_id)

    async def delete_task(self, task_id: str) -> None:
        await self.twin.delete_task(task_id)

    async def close(self) -> None:
        return


@dataclass(frozen=True, kw_only=True)
class Manager:
    url: str
    engine: JobsEngine
    token: Secret
    db: Database
    resolver: ResolverTwin


@contextlib.asynccontextmanager
async def a_manager(directory: Path) -> AsyncIterator[Manager]:
    db = Database.open(f"sqlite:///{directory / 'darner.db'}")
    migrate(db)
    config = JobsConfig(lease_s=2.0, tick_s=0.1)
    limits = limits_of(config)
    resolver = ResolverTwin()
    ports = JobPorts(
        book=SqlJobBook(db, limits),
        work=SqlWorkBook(db, limits),
        history=SqlHistory(db),
        clusters=ClustersTwin(),
        resolver=resolver,
        retention=RetentionTwin(),
        vault=Vault.at(directory / "key"),
    )
    app = FastAPI()
    problems.install(app)
    app.state.tokens = TokenService(db)
    _, token = await app.state.tokens.create("tester", ["admin"])
    engine = JobsEngine(config, ports)
    app.include_router(router(engine))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    async with engine:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield Manager(url=url, engine=engine, token=token, db=db, resolver=resolver)
        finally:
            engine.stop_waiting()
            server.should_exit = True
            await serving
    db.close()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    async with a_manager(tmp_path) as running:
        yield running


@pytest.fixture
async def rest(manager: Manager) -> AsyncIterator[ManagerRest]:
    client = ManagerRest(manager.url, manager.token)
    yield client
    await client.close()


async def ended(rest: ManagerRest, job_id: int) -> dict[str, Any]:
    async with asyncio.timeout(30):
        last: dict[str, Any] = {}
        async for job in rest.watch_job(job_id):
            last = job
    assert last["state"] != "PENDING"
    return await rest.job(job_id)


@contextlib.asynccontextmanager
async def a_worker(manager: Manager, *twins: DaemonTwin) -> AsyncIterator[Worker]:
    board = ManagerRest(manager.url, manager.token)
    by_address = {twin.host.address: KeptOpen(twin) for twin in twins}
    config = WorkerConfig(name="w1", progress_interval_s=0.1, hosts_wait_s=0.5, hosts_interval_s=60, host_retry_s=0.05)
    worker = Worker(config, board=board, hosts=HostsTwin(*(twin.host for twin in twins)), dial=by_address.__getitem__)
    async with worker:
        yield worker
    await board.close()


async def test_a_file_is_preheated_on_the_seed_and_the_job_says_so(manager: Manager, rest: ManagerRest) -> None:
    seed = DaemonTwin(a_host("seed", 4001, seed=True), origin={URL: CONTENT})
    peer = DaemonTwin(a_host("peer", 4002, seed=False), origin={URL: CONTENT})
    created = await rest.create_job({"type": "preheat", "args": {"type": "file", "urls": [URL]}, "scheduler_cluster_ids": None})
    assert (created["state"], created["detail_state"]) == ("PENDING", "QUEUED")
    async with a_worker(manager, seed, peer):
        job = await ended(rest, created["id"])
    assert (job["state"], job["detail_state"], job["error"]) == ("SUCCESS", "SUCCEEDED", "")
    assert job["bytes_done"] == job["bytes_total"] == len(CONTENT)
    assert [len(twin.local) for twin in (seed, peer)] == [1, 0]
    tasks = job["result"]["job_states"][0]["results"][0]["success_tasks"]
    assert tasks == [{"url": URL, "hostname": "seed", "ip": "127.0.0.1", "verified": True}]
    kinds = [event["kind"] for event in await rest.job_events(job["id"])]
    assert kinds == ["created", "planned", "part_started", "state", "part_finished", "state"]
