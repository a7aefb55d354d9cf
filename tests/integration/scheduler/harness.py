"""A scheduler on a real port, and peers and seeds that speak to it over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc.aio
from dragonfly_api import scheduler_pb2_grpc

from darner.client.scheduler import SchedulerClient
from darner.core.announce import Announced, PeerMessage, Register, SchedulerAnswer, Started
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.task import Download
from darner.scheduler.config import SchedulerConfig, SchedulingConfig
from darner.scheduler.engine import SchedulerEngine
from darner.scheduler.records import PeerRecord
from darner.scheduler.rpc import SchedulerServer
from darner.wire.scheduler import announced_to_pb, answer_from_pb

TASK = "7" * 64
URL = "http://origin.test/file"
ENDED = "ended"


def host(name: str, *, seed: bool = False, ip: str = "10.0.0.1", port: int = 4000) -> Host:
    suffix = "-seed" if seed else ""
    kind = HostType.SUPER_SEED if seed else HostType.NORMAL
    return Host(id=HostId(f"{ip}-{name}{suffix}"), ip=ip, hostname=name, port=port, download_port=port, type=kind)


@dataclass
class Peer:
    """A peer's stream, spoken by hand: one message at a time."""

    address: str
    host_id: str
    peer_id: str
    task_id: str = TASK
    _channel: Any = None
    _call: Any = None

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._call = scheduler_pb2_grpc.SchedulerStub(self._channel).AnnouncePeer()  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._channel.close()

    async def header(self) -> None:
        await self._call.initial_metadata()

    async def say(self, message: PeerMessage) -> None:
        announced = Announced(host_id=self.host_id, task_id=self.task_id, peer_id=self.peer_id, message=message)
        await self._call.write(announced_to_pb(announced))

    async def register(self, **facts: Any) -> None:
        facts.setdefault("url", URL)
        await self.say(Register(download=Download(**facts)))

    async def hear(self, timeout_s: float = 10.0) -> SchedulerAnswer | str:
        async with asyncio.timeout(timeout_s):
            response = await self._call.read()
        return ENDED if response is grpc.aio.EOF else answer_from_pb(response)

    async def hear_and_start(self) -> SchedulerAnswer | str:
        answer = await self.hear(60)
        await self.say(Started())
        return answer

    async def half_close(self) -> None:
        await self._call.done_writing()

    async def code(self) -> grpc.StatusCode:
        return await self._call.code()

    def cancel(self) -> None:
        self._call.cancel()


@dataclass
class FakeSeeds:
    """Twin of the seed port: `on_load` plays the seed."""

    on_load: Callable[[Host, Download], Any] | None = None
    good: bool = True
    asked: list[Download] = field(default_factory=list)

    async def load(self, seed: Host, download: Download) -> None:
        self.asked.append(download)
        if self.on_load is not None:
            await self.on_load(seed, download)

    async def healthy(self, seed: Host) -> bool:
        return self.good and bool(seed.port)

    async def close(self) -> None:
        self.good = False


@dataclass
class Place:
    address: str
    engine: SchedulerEngine
    client: SchedulerClient

    @property
    def seeds(self) -> FakeSeeds:
        """The twin behind the engine."""
        seeds = self.engine._seeds
        assert isinstance(seeds, FakeSeeds)
        return seeds

    def record(self, name: str, task_id: str = TASK) -> PeerRecord:
        """What the scheduler has on `peer-<name>`."""
        return self.engine._swarms._world.tasks[task_id].peers[f"peer-{name}"]

    async def seed_is_ready(self) -> None:
        await self.until(lambda: self.engine._swarms._world.seeds.pick(TASK) is not None)

    @asynccontextmanager
    async def crowd(self, count: int) -> AsyncIterator[list[Peer]]:
        """Many peers on few connections, all registered."""
        channels = [grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
        peers = []
        for number in range(count):
            one = self.peer(f"h{number}", host_id=host(f"h{number}", ip=f"10.2.{number // 250}.{number % 250}").id)
            one._call = scheduler_pb2_grpc.SchedulerStub(channels[number % 10]).AnnouncePeer()  # type: ignore[no-untyped-call]
            await one.register()
            peers.append(one)
        try:
            yield peers
        finally:
            for channel in channels:
                await channel.close()

    def peer(self, name: str, *, host_id: str | None = None, task_id: str = TASK) -> Peer:
        return Peer(self.address, host_id or host(name).id, f"peer-{name}", task_id)

    async def announce(self, *hosts: Host) -> None:
        for one in hosts:
            await self.client.announce_host(one, 300.0)

    async def until(self, what: Callable[[], bool], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not what():  # noqa: ASYNC110  (what is waited for happens on the other side of a socket)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scheduler(seeds: Any, **settings: Any) -> AsyncIterator[Place]:
    engine = SchedulerEngine(SchedulerConfig(scheduler=SchedulingConfig(**settings)), seeds, remote_ip="127.0.0.1")
    async with engine, SchedulerServer(engine, ip="127.0.0.1", port=0, grace_s=0.1) as server:
        address = f"127.0.0.1:{server.port}"
        client = SchedulerClient(address)
        try:
            yield Place(address, engine, client)
        finally:
            await client.close()
