"""A job from POST to SUCCESS over real HTTP, a real SQLite file, a real vault and tokens, with daemons in memory."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from darner.access import TokenService, Vault
from darner.app import problems
from darner.client.rest import ManagerRest
from darner.client.twins import DaemonTwin
from darner.core.errors import DeniedError, InvalidInputError, UnavailableError
from darner.core.host import Host, HostType
from darner.core.ids import host_id
from darner.core.progress import DownloadEvent
from darner.core.secret import Secret
from darner.core.task import Download, LocalTask
from darner.core.work import WorkReport
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


async def test_harbor_creates_and_polls_as_it_does(manager: Manager, rest: ManagerRest) -> None:
    """The fields and types Harbor's driver decodes (harbor.md, section 5)."""
    manifest = "https://harbor.example/v2/library/nginx/manifests/1.27"
    body = {
        "type": "preheat",
        "args": {"type": "image", "url": manifest, "tag": "", "filtered_query_params": "", "scope": "", "concurrent_count": 0,
                 "timeout": 0, "headers": {"Authorization": "Bearer jwt-of-harbor"}},
        "scheduler_cluster_ids": None,
    }  # fmt: skip
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {manager.token.reveal()}"}, base_url=manager.url) as harbor:
        created = await harbor.post("/oapi/v1/jobs", json=body)
        assert created.status_code == 200
        job = created.json()
        assert isinstance(job["id"], int)
        assert job["created_at"].endswith("Z")
        assert "jwt-of-harbor" not in created.text
        while (polled := (await harbor.get(f"/oapi/v1/jobs/{job['id']}")).json())["state"] == "PENDING":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert polled["state"] == "FAILURE"
    assert "no such image" in polled["result"]["job_states"][0]["error"]
    assert polled["updated_at"] == (await rest.job(job["id"]))["updated_at"], "frozen at the end"


async def test_a_stream_is_resumed_where_it_broke_off(manager: Manager, rest: ManagerRest) -> None:
    seed = DaemonTwin(a_host("seed", 4001, seed=True), origin={URL: CONTENT})
    job_id = (await rest.create_job({"type": "preheat", "args": {"type": "file", "url": URL}}))["id"]
    async with a_worker(manager, seed):
        await ended(rest, job_id)
    events = await rest.job_events(job_id)
    headers = {
        "Authorization": f"Bearer {manager.token.reveal()}",
        "Accept": "text/event-stream",
        "Last-Event-ID": str(events[2]["id"]),
    }
    async with httpx.AsyncClient(base_url=manager.url) as client:
        answer = await client.get(f"/api/v1/jobs/{job_id}/events", headers=headers)
    told = [line.removeprefix("id: ") for line in answer.text.splitlines() if line.startswith("id: ")]
    assert told == [str(event["id"]) for event in events[3:]]
    assert answer.text.rstrip().splitlines()[-2] == "event: end"


@pytest.mark.parametrize(
    "path", [f"{prefix}/v1/jobs{rest}" for prefix in ("/api", "/oapi") for rest in ("", "/1", "/1/events", "/1/parts")]
)
async def test_nothing_is_told_without_a_token(manager: Manager, path: str) -> None:
    async with httpx.AsyncClient(base_url=manager.url) as client:
        assert (await client.get(path)).status_code == 401


async def test_a_job_token_cannot_take_work_and_a_workers_token_cannot_read_jobs(manager: Manager) -> None:
    tokens = TokenService(manager.db)
    for scope in ("job", "worker"):
        _, secret = await tokens.create(scope, [scope])
        client = ManagerRest(manager.url, secret)
        try:
            if scope == "job":
                await client.list_jobs()
                with pytest.raises(DeniedError):
                    await client.lease(worker="w", cluster_id=1, limit=1)
            else:
                with pytest.raises(DeniedError):
                    await client.list_jobs()
        finally:
            await client.close()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "preheat", "args": {"type": "file", "urls": ["http://o/a", "nonsense"]}}, "args.urls.1"),
        ({"type": "preheat", "args": {"type": "file", "url": "http://o/a", "timeout": "soon"}}, "args.timeout"),
        (
            {"type": "preheat", "args": {"type": "file", "url": URL}, "scheduler_cluster_ids": [77]},
            "scheduler_cluster_ids",
        ),
        ({"args": {}}, "type"),
    ],
)
async def test_a_wrong_request_is_answered_422_with_the_field_and_nothing_is_stored(
    manager: Manager, rest: ManagerRest, body: dict[str, Any], field: str
) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {manager.token.reveal()}"}, base_url=manager.url) as client:
        answer = await client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    with pytest.raises(InvalidInputError) as caught:
        await rest.create_job(body)
    assert caught.value.field == field
    assert await rest.list_jobs() == []


async def test_an_asker_that_hung_up_is_not_handed_a_part(manager: Manager, rest: ManagerRest) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {manager.token.reveal()}"}, base_url=manager.url) as client:
        question = {"worker": "gone", "cluster_id": 1, "max": 4, "wait_s": 20}
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/api/v1/worker/leases", json=question, timeout=0.3)
    await asyncio.sleep(0.2)
    job_id = (await rest.create_job({"type": "preheat", "args": {"type": "file", "url": URL}}))["id"]
    (order,) = await rest.lease(worker="here", cluster_id=1, limit=4)
    (part,) = await rest.job_parts(job_id)
    assert (order.job_id, part["attempts"], part["worker"]) == (job_id, 1, "here")


async def test_a_manager_that_is_not_there_is_named(tmp_path: Path) -> None:
    del tmp_path
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = ManagerRest(f"http://127.0.0.1:{port}")
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}"):
        await client.list_jobs()
    assert not await client.healthy()
    await client.close()
    with pytest.raises(InvalidInputError):
        ManagerRest("ftp://host")


async def test_reports_that_are_malformed_or_of_nobody_change_nothing(manager: Manager, rest: ManagerRest) -> None:
    await rest.create_job({"type": "preheat", "args": {"type": "file", "url": URL}})
    (order,) = await rest.lease(worker="w", cluster_id=1, limit=1)
    nobody = await rest.progress("no-such-lease", WorkReport())
    assert (nobody.accepted, nobody.cancel) == (False, True)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {manager.token.reveal()}"}, base_url=manager.url) as client:
        for wrong in ({"bytes_done": -1}, {"hosts": [{"state": "??"}]}, {"hosts": ["x"]}, {"outcome": "won"}, {"bytes_done": "9"}):
            for how in ("progress", "finish"):
                answer = await client.post(f"/api/v1/worker/leases/{order.lease_id}/{how}", json=wrong)
                assert answer.status_code == 422, wrong
    assert (await rest.progress(order.lease_id, WorkReport(size_bytes=5, target_count=1))).accepted
