"""Daemons and the real scheduler: what both promise together."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from darner.client.dfdaemon import DaemonClient
from darner.core import ids
from darner.core.task import Download
from darner.scheduler.config import SchedulerConfig
from darner.scheduler.engine import SchedulerEngine
from darner.scheduler.rpc import SchedulerServer
from darner.scheduler.seeds import DaemonSeeds
from darner.testing.origin import CountingOrigin, Fault
from darner.testing.ports import free_port_base

MIB = 1024 * 1024


@asynccontextmanager
async def real_scheduler(port: int) -> AsyncIterator[SchedulerEngine]:
    async with (
        SchedulerEngine(SchedulerConfig(), DaemonSeeds(timeout_s=60.0), remote_ip="127.0.0.1") as engine,
        SchedulerServer(engine, ip="127.0.0.1", port=port, grace_s=0.0),
    ):
        yield engine


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_six_peers_at_once_cost_the_origin_one_copy(real_lab: Any) -> None:
    lab, size = real_lab, 48 * MIB + 11
    with CountingOrigin({"/a.bin": size}) as origin:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(lab.daemon("seed", seed=True))
            peers = [await stack.enter_async_context(lab.daemon(f"p{number}")) for number in range(6)]
            outputs = [lab.directory / f"out{number}" for number in range(6)]
            downloads = [Download(url=origin.url("/a.bin"), output_path=str(output)) for output in outputs]
            await asyncio.gather(*(lab.collect(peer, each) for peer, each in zip(peers, downloads, strict=True)))
            sources = {record.parent_id for peer in peers for record in peer.parts.store.pieces(ids.task_id(downloads[0])).values()}
        assert {sha256(output) for output in outputs} == {origin.sha256("/a.bin")}
        assert origin.body_bytes("/a.bin") <= size + 1
    assert "" not in sources


async def test_without_a_seed_one_peer_goes_to_the_origin_and_the_others_load_from_it(real_lab: Any) -> None:
    lab, size = real_lab, 24 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(lab.daemon(f"p{number}")) for number in range(4)]
            await asyncio.gather(*(lab.collect(peer, Download(url=origin.url("/a.bin"))) for peer in peers))
        assert origin.body_bytes("/a.bin") <= size + 1


async def test_when_the_seed_dies_in_the_middle_every_peer_still_gets_the_file(real_lab: Any) -> None:
    lab, size = real_lab, 32 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=8 * MIB))
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(lab.daemon(f"p{number}")) for number in range(3)]
            dying = AsyncExitStack()
            seed = await dying.enter_async_context(lab.daemon("seed", seed=True, concurrent_piece_count=1))
            outputs = [lab.directory / f"out{number}" for number in range(3)]
            loading = [
                asyncio.create_task(lab.collect(peer, Download(url=origin.url("/a.bin"), output_path=str(output))))
                for peer, output in zip(peers, outputs, strict=True)
            ]
            task_id = ids.task_id(Download(url=origin.url("/a.bin")))
            while len(seed.parts.store.pieces(task_id)) < 2:  # noqa: ASYNC110  (the store knows no events)
                await asyncio.sleep(0.01)
            await dying.aclose()
            origin.set_fault("/a.bin", None)
            await asyncio.gather(*loading)
        assert {sha256(output) for output in outputs} == {origin.sha256("/a.bin")}
        assert origin.body_bytes("/a.bin") <= 2 * size


async def test_a_scheduler_can_have_a_host_hold_a_file(real_lab: Any) -> None:
    lab, size = real_lab, 9 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as peer:
            download = Download(url=origin.url("/a.bin"))
            for daemon in (seed, peer, peer):
                client = DaemonClient(f"127.0.0.1:{daemon.parts.config.upload.server.port}")
                events = [event async for event in client.download_task(download)]
                await client.close()
                assert len(events) == 4
            assert (await peer.engine.stat_local_task(ids.task_id(download))).finished_at is not None
            info = await peer.engine.stat_task(ids.task_id(download))
            assert info.content_length == size
            assert len(info.pieces) == 3
        assert origin.body_bytes("/a.bin") <= size + 1


async def test_an_error_of_the_origin_reaches_every_peer_that_waits(real_lab: Any) -> None:
    lab = real_lab
    with CountingOrigin({"/a.bin": 9 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(status=403))
        async with lab.daemon("seed", seed=True), lab.daemon("p1") as one, lab.daemon("p2") as two:
            async with asyncio.timeout(30):
                results = await asyncio.gather(
                    *(lab.collect(peer, Download(url=origin.url("/a.bin"))) for peer in (one, two)), return_exceptions=True
                )
        assert all("403" in str(result) for result in results), results


async def test_a_scheduler_that_restarts_at_once_soon_knows_again_who_holds_what(lab: Any) -> None:
    size = 9 * MIB
    port = free_port_base(1)
    with CountingOrigin({"/a.bin": size}) as origin:
        where: dict[str, Any] = {"schedulers": (f"127.0.0.1:{port}",)}
        first = AsyncExitStack()
        await first.enter_async_context(real_scheduler(port))
        async with (
            lab.daemon("seed", seed=True, **where) as seed,
            lab.daemon("p1", **where) as one,
            lab.daemon("p2", **where) as two,
        ):
            await lab.collect(one, Download(url=origin.url("/a.bin")))
            await first.aclose()
            async with real_scheduler(port) as engine:
                async with asyncio.timeout(20):
                    while engine.counts().get("peers", 0) < 2:  # noqa: ASYNC110  (the engine knows no events)
                        await asyncio.sleep(0.05)
                await lab.collect(two, Download(url=origin.url("/a.bin")))
                assert {host.id for host in engine.hosts()} == {daemon.parts.host().id for daemon in (seed, one, two)}
        assert origin.body_bytes("/a.bin") <= size + 1
