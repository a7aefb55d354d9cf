"""What a healthy download costs: pieces flow through, the scheduler answers once, nothing stays open afterwards."""

import asyncio
import os
import threading
from typing import Any

from darner.core import ids
from darner.core.announce import Finished, Register, Reschedule
from darner.core.digest import Digest
from darner.core.progress import PieceDone
from darner.core.task import Download
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024 * 1024


async def test_a_child_is_as_fast_as_the_seed_that_still_loads(real_lab: Any) -> None:
    lab, size = real_lab, 32 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=16 * MIB))
        async with (
            lab.daemon("seed", seed=True, concurrent_piece_count=1) as seed,
            lab.daemon("p1") as one,
            lab.daemon("p2") as two,
        ):
            download = Download(url=origin.url("/a.bin"))
            task_id, clock = ids.task_id(download), seed.parts.clock
            behind: list[int] = []
            began = clock.monotonic()

            async def follow(peer: Any) -> float:
                """Note how many pieces the seed has when each of the first ones arrives; returns when the last one did."""
                events = peer.engine.download(download)
                behind.extend(
                    [len(seed.parts.store.pieces(task_id)) async for event in events if isinstance(event.what, PieceDone)]
                )
                return float(clock.monotonic())

            last = max(await asyncio.gather(follow(one), follow(two)))
            record = seed.parts.store.task(task_id)
            seeds_last = max(piece.created_at for piece in seed.parts.store.pieces(task_id).values())
        assert record is not None
        assert sorted(behind)[1] < 4, "the first piece of each child came while the seed had less than half"
        seed_took_s = seeds_last - (seed.parts.clock.now() - (clock.monotonic() - began))
        assert last - began < 1.25 * seed_took_s
        assert origin.body_bytes("/a.bin") <= size + 1


async def test_a_healthy_download_needs_one_answer_of_the_scheduler(lab: Any) -> None:
    sizes = {f"/{number}.bin": 1 + number * 3 * MIB for number in range(12)}
    with CountingOrigin(sizes) as origin:
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as peer:
            for path in sizes:
                await lab.seed(seed, origin.url(path))
            await asyncio.gather(*(lab.collect(peer, Download(url=origin.url(path))) for path in sizes))
            said = [each.message for each in lab.scheduler.heard if each.host_id == peer.parts.host().id]
    assert not [message for message in said if isinstance(message, Reschedule)]
    assert len([message for message in said if isinstance(message, Register)]) == len(sizes)
    assert len([message for message in said if isinstance(message, Finished)]) == len(sizes)


async def test_downloads_leave_nothing_open(real_lab: Any) -> None:
    lab, rounds = real_lab, 30
    sizes = {f"/{number}.bin": 1000 + number for number in range(3 * rounds)}
    with CountingOrigin(sizes) as origin:
        async with lab.daemon("seed", seed=True), lab.daemon("p1") as peer:

            async def load(first: int) -> tuple[int, int]:
                for number in range(first, first + rounds):
                    await lab.collect(peer, Download(url=origin.url(f"/{number}.bin")))
                return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208  (names only)

            await load(0)
            files, threads = await load(rounds)
            files_later, threads_later = await load(2 * rounds)
    assert files_later <= files + 3
    assert threads_later <= threads + 3


async def test_a_child_that_starts_again_fetches_no_piece_twice(lab: Any) -> None:
    size = 40 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        config = lab.config("p1", concurrent_piece_count=1, bandwidth_limit=24 * MIB)
        download = Download(url=origin.url("/a.bin"), digest=Digest("sha256", origin.sha256("/a.bin")))
        task_id = ids.task_id(download)
        async with lab.daemon("seed", seed=True) as seed:
            await lab.seed(seed, origin.url("/a.bin"))
            async with lab.running(config) as peer:
                loading = asyncio.create_task(lab.collect(peer, download))
                async with asyncio.timeout(20):
                    while len(peer.parts.store.pieces(task_id)) < 4:  # noqa: ASYNC110  (the store knows no events)
                        await asyncio.sleep(0.01)
                await peer.engine.close()
                await asyncio.gather(loading, return_exceptions=True)
                held = len(peer.parts.store.pieces(task_id))
            async with lab.running(config) as peer:
                await lab.collect(peer, download)
                fetched = peer.parts.meters.registry.get_sample_value(
                    "dragonfly_client_download_traffic_total", {"type": "REMOTE_PEER"}
                )
        assert origin.body_bytes("/a.bin") <= size + 1
    assert fetched == size - held * 4 * MIB
