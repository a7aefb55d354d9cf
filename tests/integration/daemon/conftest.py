"""Daemons in one process on loopback: real store, swarm, client and origin; the scheduler is a twin behind a real wire."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from darner.app.daemon import build
from darner.client.dfdaemon import DaemonClient
from darner.client.twin_servers import serve
from darner.client.twins import SchedulerTwin
from darner.core.announce import Announced, CandidateParent, NeedBackToSource, NormalTask, Register, Reschedule, SchedulerAnswer
from darner.core.task import Download
from darner.daemon import config as c
from darner.daemon.daemon import Daemon
from darner.testing.ports import free_port_base

LOOPBACK = "127.0.0.1"


def config_of(
    directory: Path,
    name: str,
    *,
    schedulers: tuple[str, ...] = (),
    seed: bool = False,
    registry: str = "https://registry.invalid",
    **download: Any,
) -> c.DaemonConfig:
    upload, vortex, mirror, health, metrics = range(first := free_port_base(5), first + 5)
    return c.DaemonConfig(
        host=c.HostConfig(hostname=name, ip=LOOPBACK),
        download=c.DownloadConfig(server=c.SocketConfig(socket_path=directory / f"{name}.sock"), **download),
        upload=c.UploadConfig(server=c.UploadServerConfig(ip=LOOPBACK, port=upload)),
        scheduler=c.SchedulerConfig(addrs=schedulers),
        seed_peer=c.SeedPeerConfig(enable=seed),
        storage=c.StorageConfig(dir=directory / name, server=c.StorageServerConfig(ip=LOOPBACK, tcp_port=vortex)),
        backend=c.BackendConfig(allow_loopback=True, max_retries=1),
        proxy=c.ProxyConfig(
            server=c.ProxyServerConfig(ip=LOOPBACK, port=mirror), registry_mirror=c.RegistryMirrorConfig(addr=registry)
        ),
        health=c.HealthConfig(server=c.PortConfig(ip=LOOPBACK, port=health)),
        metrics=c.MetricsConfig(server=c.PortConfig(ip=LOOPBACK, port=metrics)),
        gc=c.GcConfig(policy=c.GcPolicyConfig(disk_high_threshold_percent=0.0)),
    )


@asynccontextmanager
async def running(config: c.DaemonConfig) -> AsyncIterator[Daemon]:
    async with AsyncExitStack() as stack:
        daemon = await build(config, stack)
        async with daemon:
            yield daemon


class Matchmaker(SchedulerTwin):
    """A scheduler twin that offers peers while they still load, as real ones do: the first one goes to the source."""

    def __init__(self) -> None:
        super().__init__(answering=self.match)
        self.peers: dict[str, dict[str, str]] = {}
        self.failed: set[str] = set()

    def match(self, announced: Announced) -> list[SchedulerAnswer]:
        known = self.peers.setdefault(announced.task_id, {})
        before = [
            peer for peer, host in known.items() if host != announced.host_id and host in self.hosts and peer not in self.failed
        ]
        list(self._answers(announced))
        message = announced.message
        if isinstance(message, Register) and message.download.metadata_only:
            known[announced.peer_id] = announced.host_id
            return list(self._answers(announced))
        if not isinstance(message, Register | Reschedule):
            return []
        if isinstance(message, Reschedule):
            self.failed |= {parent.id for parent in message.candidate_parents if not self.hosts.get(known.get(parent.id, ""))}
        known[announced.peer_id] = announced.host_id
        parents = tuple(CandidateParent(id=peer, host=self.hosts[known[peer]], state="Running") for peer in before)
        need = isinstance(message, Register) and message.download.need_back_to_source
        return [NeedBackToSource(description="first") if need or not parents else NormalTask(candidate_parents=parents)]


class Lab:
    """Makes daemons below one directory, all with one scheduler."""

    def __init__(self, directory: Path, twin: Matchmaker, address: str) -> None:
        self.directory = directory
        self.scheduler = twin
        self.address = address

    def config(self, name: str, **how: Any) -> c.DaemonConfig:
        how.setdefault("schedulers", (self.address,))
        return config_of(self.directory, name, **how)

    def daemon(self, name: str, **how: Any) -> AbstractAsyncContextManager[Daemon]:
        return running(self.config(name, **how))

    def running(self, config: c.DaemonConfig) -> AbstractAsyncContextManager[Daemon]:
        return running(config)

    def client(self, daemon: Daemon) -> DaemonClient:
        return DaemonClient(f"unix:{daemon.parts.config.download.server.socket_path}")

    async def collect(self, daemon: Daemon, download: Download, **how: Any) -> list[Any]:
        return [event async for event in daemon.engine.download(download, **how)]

    async def seed(self, daemon: Daemon, url: str, **fields: Any) -> list[Any]:
        """Have the seed load from the origin, as a scheduler would."""
        return await self.collect(daemon, Download(url=url, need_back_to_source=True, **fields), triggered=True)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    twin = Matchmaker()
    async with serve(twin) as address:
        yield Lab(tmp_path, twin, address)


@pytest.fixture
async def real_lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The same with the real scheduler, which triggers seeds itself."""
    from darner.scheduler.config import SchedulerConfig
    from darner.scheduler.engine import SchedulerEngine
    from darner.scheduler.rpc import SchedulerServer
    from darner.scheduler.seeds import DaemonSeeds

    async with (
        SchedulerEngine(SchedulerConfig(), DaemonSeeds(timeout_s=60.0), remote_ip=LOOPBACK) as engine,
        SchedulerServer(engine, ip=LOOPBACK, port=0) as server,
    ):
        yield Lab(tmp_path, Matchmaker(), f"{LOOPBACK}:{server.port}")
