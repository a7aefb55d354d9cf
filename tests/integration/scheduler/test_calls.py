import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from dragonfly_api import dfdaemon_pb2, dfdaemon_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.integration.scheduler.harness import TASK, URL, FakeSeeds, host, scheduler

from darner.client.status import abort
from darner.core.announce import MetadataOnly, NeedBackToSource, NormalTask, Started
from darner.core.errors import DarnerError, NotFoundError, OriginError, UnavailableError
from darner.core.fleet import ApplicationInfo, SchedulerInfo
from darner.core.host import Host
from darner.core.task import Download
from darner.scheduler.announcer import ManagerLink
from darner.scheduler.rpc import SchedulerServer
from darner.scheduler.seeds import DaemonSeeds

SEED = host("s", seed=True, ip="10.9.0.1")


async def test_health_is_serving_for_the_empty_service_name() -> None:
    async with scheduler(FakeSeeds()) as place:
        assert await place.client.healthy()


async def test_hosts_are_listed_by_type_as_they_announced_themselves() -> None:
    async with scheduler(FakeSeeds()) as place:
        await place.announce(host("a"), SEED)
        async with place.peer("x", host_id="10.3.3.3-never-announced") as peer:
            await peer.register()
            await peer.hear()
            assert {one.id for one in await place.client.list_hosts()} == {host("a").id, SEED.id}
        assert [one.id for one in await place.client.list_hosts(1)] == [SEED.id]
        assert [(one.id, one.port, one.ip) for one in await place.client.list_hosts(0)] == [(host("a").id, 4000, "10.0.0.1")]


async def test_a_host_that_leaves_is_gone_with_its_peers_and_a_second_goodbye_finds_nothing() -> None:
    async with scheduler(FakeSeeds()) as place:
        await place.announce(host("a"))
        async with place.peer("a") as peer:
            await peer.register(metadata_only=True)
            assert isinstance(await peer.hear(), MetadataOnly)
        await place.client.delete_host(host("a").id)
        assert await place.client.list_hosts() == []
        assert not (await place.client.stat_task(host("a").id, TASK)).has_available_peer
        with pytest.raises(NotFoundError):
            await place.client.delete_host(host("a").id)


async def test_a_task_that_a_host_no_longer_holds_has_no_parent_there() -> None:
    async with scheduler(FakeSeeds()) as place:
        await place.announce(host("a"), host("b"))
        async with place.peer("a") as peer:
            await peer.register(metadata_only=True, actual_content_length=9, actual_piece_length=4194304)
            await peer.hear()
        assert (await place.client.stat_task("any", TASK)).has_available_peer
        await place.client.delete_task(host("a").id, TASK)
        await place.client.delete_task("unknown-host", TASK)
        async with place.peer("b") as peer:
            await peer.register()
            assert isinstance(await peer.hear(), NeedBackToSource)


async def test_what_is_not_known_is_not_found() -> None:
    async with scheduler(FakeSeeds()) as place:
        with pytest.raises(NotFoundError):
            await place.client.stat_task(host("a").id, "ff" * 32)


async def test_a_peer_can_be_looked_at_and_taken_out() -> None:
    async with scheduler(FakeSeeds()) as place, grpc.aio.insecure_channel(place.address) as channel:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)  # type: ignore[no-untyped-call]
        await place.announce(host("a"))
        async with place.peer("a") as peer:
            await peer.register()
            await peer.hear()
            who = {"host_id": host("a").id, "task_id": TASK, "peer_id": "peer-a"}
            told = await stub.StatPeer(scheduler_pb2.StatPeerRequest(**who))
            assert (told.id, told.host.port, told.task.url, told.state) == ("peer-a", 4000, URL, "Pending")
            await stub.DeletePeer(scheduler_pb2.DeletePeerRequest(**who))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.StatPeer(scheduler_pb2.StatPeerRequest(**who))
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_calls_for_other_kinds_of_tasks_are_unimplemented() -> None:
    async with scheduler(FakeSeeds()) as place, grpc.aio.insecure_channel(place.address) as channel:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)  # type: ignore[no-untyped-call]
        for call in (
            stub.StatCacheTask(scheduler_pb2.StatCacheTaskRequest()),
            stub.PreheatFile(scheduler_pb2.PreheatFileRequest()),
            stub.StatPersistentTask(scheduler_pb2.StatPersistentTaskRequest()),
            stub.DeleteCachePeer(scheduler_pb2.DeleteCachePeerRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_an_announcement_without_an_id_is_refused() -> None:
    async with scheduler(FakeSeeds()) as place, grpc.aio.insecure_channel(place.address) as channel:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AnnounceHost(scheduler_pb2.AnnounceHostRequest())
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    async with scheduler(FakeSeeds()) as place:
        port = int(place.address.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            await SchedulerServer(place.engine, ip="127.0.0.1", port=port).__aenter__()


async def test_a_stop_cuts_the_streams_of_waiting_peers_and_asks_nobody_to_load() -> None:
    seeds = FakeSeeds(on_load=lambda *_: asyncio.sleep(60))
    async with scheduler(seeds) as place:
        await place.announce(SEED, host("a"))
        await place.seed_is_ready()
        peer = await place.peer("a").__aenter__()
        await peer.register()
        await place.until(lambda: len(seeds.asked) == 1)
    with pytest.raises(grpc.aio.AioRpcError):
        await peer.hear()
    await peer.__aexit__(None, None, None)
    assert len(seeds.asked) == 1


# --- seeds over gRPC -------------------------------------------------------------------------------------------------


class Daemon(dfdaemon_pb2_grpc.DfdaemonUploadServicer):
    """A seed's upload face, as far as a scheduler speaks to it."""

    def __init__(self) -> None:
        self.error: DarnerError | None = None
        self.asked: list[Any] = []

    async def DownloadTask(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.asked.append(request.download)
        started = dfdaemon_pb2.DownloadTaskStartedResponse(content_length=5)
        yield dfdaemon_pb2.DownloadTaskResponse(host_id="h", task_id=TASK, peer_id="p", download_task_started_response=started)
        if self.error is not None:
            await abort(context, self.error)


@asynccontextmanager
async def daemon() -> AsyncIterator[tuple[Daemon, Host]]:
    server, servicer, well = grpc.aio.server(), Daemon(), health.aio.HealthServicer()
    dfdaemon_pb2_grpc.add_DfdaemonUploadServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(well, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await well.set("", health_pb2.HealthCheckResponse.SERVING)
    try:
        yield servicer, host("seed", seed=True, ip="127.0.0.1", port=port)
    finally:
        await server.stop(0)


async def test_a_real_seed_is_asked_over_grpc_and_its_origins_error_comes_back_whole() -> None:
    seeds = DaemonSeeds(timeout_s=10.0)
    async with daemon() as (servicer, seed):
        assert await seeds.healthy(seed)
        wish = Download(url=URL, need_back_to_source=True, tag="t")
        await seeds.load(seed, wish)
        assert (servicer.asked[0].url, servicer.asked[0].need_back_to_source, servicer.asked[0].tag) == (URL, True, "t")
        servicer.error = OriginError("HEAD: 403 Forbidden", status=403)
        with pytest.raises(OriginError) as caught:
            await seeds.load(seed, wish)
        assert caught.value.status == 403
    assert not await seeds.healthy(seed)
    with pytest.raises(UnavailableError):
        await seeds.load(seed, wish)
    await seeds.close()


async def test_a_seed_that_starts_after_it_has_announced_itself_is_found_soon() -> None:
    seeds = FakeSeeds(good=False)
    async with scheduler(seeds) as place:
        await place.announce(SEED, host("a"))
        async with place.peer("a") as peer:
            await peer.register()
            await asyncio.sleep(0.3)
            seeds.good = True
            await place.until(lambda: len(seeds.asked) == 1, timeout_s=5)


# --- the manager -----------------------------------------------------------------------------------------------------


class FakeManager:
    """Twin of the manager port: it may be away, and says when its stream ends."""

    def __init__(self) -> None:
        self.away = True
        self.updates: list[SchedulerInfo] = []
        self.cut = asyncio.Event()

    async def update_scheduler(self, scheduler: SchedulerInfo, config: bytes) -> SchedulerInfo:
        assert config.startswith(b"{")
        if self.away:
            raise UnavailableError("away")
        self.updates.append(scheduler)
        return scheduler

    async def keep_alive(self, hostname: str, ip: str, cluster_id: int, interval_s: float) -> None:
        assert (hostname, ip, cluster_id, interval_s) == ("sched", "10.0.0.9", 3, 5.0)
        await self.cut.wait()
        self.cut.clear()
        raise UnavailableError("cut")

    async def list_applications(self, hostname: str, ip: str) -> list[ApplicationInfo]:
        if self.away:
            raise NotFoundError
        return [ApplicationInfo(id=1, name=f"shop-{hostname}-{ip}", url="", priority=2)]


async def test_a_scheduler_works_without_its_manager_and_registers_again_whenever_it_comes_back() -> None:
    manager, info = FakeManager(), SchedulerInfo(id=0, hostname="sched", ip="10.0.0.9", port=8002, scheduler_cluster_id=3)
    async with scheduler(FakeSeeds()) as place:
        link = asyncio.create_task(ManagerLink(manager, place.engine, info, refresh_s=0.01).run())
        async with place.peer("a") as peer:
            await peer.register()
            assert isinstance(await peer.hear(), NeedBackToSource)
        manager.away = False
        await place.until(lambda: len(manager.updates) == 1)
        manager.cut.set()
        await place.until(lambda: len(manager.updates) == 2)
        await place.until(lambda: [one.priority for one in place.engine._swarms._world.applications] == [2])
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)


async def test_a_parent_is_told_as_it_announced_itself_last() -> None:
    async with scheduler(FakeSeeds()) as place:
        await place.announce(host("p"), host("a"), host("b"))
        async with place.peer("p") as parent:
            await parent.register(metadata_only=True)
            await parent.hear()
        ports = []
        for name in "ab":
            async with place.peer(name) as peer:
                await peer.register()
                answer = await peer.hear()
                assert isinstance(answer, NormalTask)
                ports.append(answer.candidate_parents[0].host.port)
                await peer.say(Started())
            await place.announce(host("p", port=4999))
        assert ports == [4000, 4999]
