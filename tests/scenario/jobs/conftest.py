"""A scene: an engine over real SQLite, a worker in the same process, and daemons in memory that can be made to fail."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darner.access import Vault
from darner.client.twins import DaemonTwin
from darner.core.errors import DarnerError
from darner.core.host import Host, HostType
from darner.core.ids import host_id
from darner.core.job import END_STATES
from darner.core.progress import DownloadEvent, DownloadStarted, PieceDone
from darner.core.task import Download, LocalTask
from darner.db import Database, migrate
from darner.jobs.config import JobsConfig, WorkerConfig
from darner.jobs.engine import JobPorts, JobsEngine, limits_of
from darner.jobs.events import Details, Part
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.jobs.state import check_job
from darner.jobs.twins import ClustersTwin, HostsTwin, LocalBoard, ResolverTwin, RetentionTwin
from darner.jobs.worker import Worker


class FaultyDaemon:
    """A daemon whose streams can fail, hang, end early or lie. Closing its client does not end it."""

    def __init__(self, host: Host, origin: Mapping[str, bytes]) -> None:
        self.host = host
        self.twin = DaemonTwin(host, origin=origin)
        self.failures: list[DarnerError] = []
        self.failing_urls: dict[str, DarnerError] = {}
        self.hang = False
        self.ends_early = False
        self.denies_at_the_end = False
        self.streams = 0
        self.cancelled = 0
        self.asked: list[Download] = []

    async def download_task(self, download: Download, timeout_s: float | None = None) -> AsyncGenerator[DownloadEvent, None]:
        self.streams += 1
        self.asked.append(download)
        if self.failures:
            raise self.failures.pop(0)
        if download.url in self.failing_urls:
            raise self.failing_urls[download.url]
        async for event in self.twin.download_task(download, timeout_s):
            yield (
                replace(event, what=replace(event.what, pieces=(), is_finished=False))
                if isinstance(event.what, DownloadStarted)
                else event
            )
            if self.ends_early:
                return
            if self.hang and isinstance(event.what, PieceDone):
                try:
                    await asyncio.sleep(60)
                finally:
                    self.cancelled += 1

    async def stat_local_task(self, task_id: str) -> LocalTask:
        found = await self.twin.stat_local_task(task_id)
        return replace(found, finished_at=None) if self.denies_at_the_end else found

    async def delete_task(self, task_id: str) -> None:
        await self.twin.delete_task(task_id)

    async def close(self) -> None:
        return


class Scene:
    """Everything of one test."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.db = Database.open(f"sqlite:///{directory / 'darner.db'}")
        migrate(self.db)
        self.vault = Vault.at(directory / "key")
        self.resolver = ResolverTwin()
        self.clusters = ClustersTwin()
        self.config = JobsConfig(lease_s=1.0, tick_s=0.05, retry_first_s=0.05, retry_cap_s=0.2, max_attempts=4, patience_s=0.0)
        self.history = SqlHistory(self.db)
        self.engine = self.new_engine()
        self.board = LocalBoard(self.engine, wait_s=0.2)
        self.hosts = HostsTwin()
        self.daemons: dict[str, FaultyDaemon] = {}

    def new_engine(self) -> JobsEngine:
        limits = limits_of(self.config)
        ports = JobPorts(
            book=SqlJobBook(self.db, limits),
            work=SqlWorkBook(self.db, limits),
            history=self.history,
            clusters=self.clusters,
            resolver=self.resolver,
            retention=RetentionTwin(),
            vault=self.vault,
        )
        return JobsEngine(self.config, ports)

    def daemon(self, name: str, origin: Mapping[str, bytes], *, seed: bool = False, build: str = "darner-0.1.0") -> FaultyDaemon:
        """One more host."""
        port = 4001 + len(self.daemons)
        kind = HostType.SUPER_SEED if seed else HostType.NORMAL
        key = host_id("10.0.0.9", name, seed=seed)
        host = Host(id=key, ip="10.0.0.9", hostname=name, port=port, type=kind, build_version=build)
        daemon = self.daemons[host.address] = FaultyDaemon(host, origin)
        self.hosts.hosts.append(host)
        return daemon

    async def start(self) -> None:
        """Run the engine."""
        await self.stack.enter_async_context(self.engine)

    async def work(self, name: str = "w1", *, board: LocalBoard | None = None) -> Worker:
        """Run a worker until the test ends."""
        return await self.stack.enter_async_context(self.worker(name, board=board))

    def worker(self, name: str, *, board: LocalBoard | None = None) -> Worker:
        config = WorkerConfig(
            name=name,
            progress_interval_s=0.05,
            hosts_wait_s=0.4,
            hosts_interval_s=0.1,
            host_retry_s=0.02,
            settle_s=0.0,
            silence_s=5.0,
        )
        return Worker(config, board=board or self.board, hosts=self.hosts, dial=self.daemons.__getitem__)

    async def preheat(self, *urls: str, **args: Any) -> int:
        """Create a file job."""
        body = {"type": "preheat", "args": {"type": "file", "urls": list(urls), **args}}
        return (await self.engine.create(body, owner="tester")).job.id

    async def image(self, url: str, **args: Any) -> int:
        """Create an image job."""
        return (await self.engine.create({"type": "preheat", "args": {"type": "image", "url": url, **args}}, owner="tester")).job.id

    async def end_of(self, job_id: int, *, timeout_s: float = 20) -> Details:
        """The job once it has ended, its parts checked."""
        return await self.until(job_id, lambda details: details.job.state in END_STATES, timeout_s=timeout_s)

    async def until(self, job_id: int, fits: Callable[[Details], bool], *, timeout_s: float = 20) -> Details:
        """The job once it fits."""
        async with asyncio.timeout(timeout_s):
            while not fits(details := await self.history.details(job_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        check_job(details.job, await self.parts(job_id))
        return details

    async def parts(self, job_id: int) -> list[Part]:
        return await self.history.parts(job_id)

    async def kinds(self, job_id: int) -> list[str]:
        return [event.kind for event in await self.history.events(job_id)]

    def everything_stored(self) -> bytes:
        """All bytes of the database and its log."""
        return b"".join(path.read_bytes() for path in self.directory.glob("darner.db*"))


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        made = Scene(tmp_path, stack)
        stack.callback(made.db.close)
        await made.start()
        yield made
        with contextlib.suppress(DarnerError):
            await check_all(made)


async def check_all(scene: Scene) -> None:
    """Every job of the database fits its parts."""
    rows: Iterable[tuple[int]] = await scene.db.read(
        lambda conn: [tuple(row) for row in conn.exec_driver_sql("SELECT id FROM job")]
    )
    for (job_id,) in rows:
        before = None
        # The planner may be at work: what is read in two steps counts once nothing changed in between.
        while before != (details := await scene.history.details(job_id)):
            before, parts = details, await scene.history.parts(job_id, limit=100_000)
        check_job(details.job, parts)
