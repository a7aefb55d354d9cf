"""Who owns what while a download is stopped, and who waits for whom."""

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from darner.app.daemon import SCAN_THREADS
from darner.core import ids
from darner.core.errors import OriginError
from darner.core.task import Download
from darner.daemon.config import GcConfig, GcPolicyConfig
from darner.daemon.session import Ids
from darner.daemon.work import Work
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024 * 1024


class SlowStore:
    """A store that takes its time to open files."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open_file(self, *args: Any, **how: Any) -> Any:
        time.sleep(0.2)
        return self._store.open_file(*args, **how)


async def test_a_download_that_is_stopped_while_its_file_is_opened_does_not_keep_it(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        async with lab.daemon("p1") as peer:
            download = Download(url=origin.url("/a.bin"))
            await lab.collect(peer, download)
            host, task_id = peer.parts.host(), ids.task_id(download)
            parts = replace(peer.parts, store=SlowStore(peer.parts.store))
            named = Ids(host_id=host.id, task_id=task_id, peer_id="peer")
            work = Work(parts, named, download, ordered=False)
            resuming = asyncio.create_task(work.resume())
            await asyncio.sleep(0.1)
            resuming.cancel()
            await asyncio.gather(resuming, return_exceptions=True)
            work.close()
            assert peer.parts.store.delete(task_id), "a file that is still open for writing cannot be deleted"


async def test_what_is_evicted_to_make_room_is_told_to_the_scheduler(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB, "/b.bin": 5 * MIB}) as origin:
        config = replace(lab.config("p1"), gc=GcConfig(policy=GcPolicyConfig(disk_threshold=8 * MIB)))
        first, second = (Download(url=origin.url(path)) for path in ("/a.bin", "/b.bin"))
        async with lab.running(config) as peer:
            await lab.collect(peer, first)
            assert lab.scheduler.holders[ids.task_id(first)]
            await lab.collect(peer, second)
            async with asyncio.timeout(20):
                while lab.scheduler.holders[ids.task_id(first)]:  # noqa: ASYNC110  (the twin knows no events)
                    await asyncio.sleep(0.01)
            assert lab.scheduler.holders[ids.task_id(second)]


async def test_a_download_that_failed_is_listed_as_failed_until_it_is_taken_up_again(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 16 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=16 * MIB))
        async with lab.daemon("p1", concurrent_piece_count=1) as peer:
            download = Download(url=origin.url("/a.bin"))
            loading = asyncio.create_task(lab.collect(peer, download))
            async with asyncio.timeout(20):
                while not peer.parts.store.pieces(ids.task_id(download)):  # noqa: ASYNC110  (the store knows no events)
                    await asyncio.sleep(0.01)
            origin.set_fault("/a.bin", Fault(status=404))
            with pytest.raises(OriginError):
                await loading
            assert (await peer.engine.stat_local_task(ids.task_id(download))).failed_at is not None
            origin.set_fault("/a.bin", None)
            await lab.collect(peer, download)
            assert (await peer.engine.stat_local_task(ids.task_id(download))).failed_at is None


async def test_no_download_waits_behind_digests_and_copies_of_others(lab: Any) -> None:
    done = threading.Event()
    with CountingOrigin({"/a.bin": 9 * MIB}) as origin:
        async with lab.daemon("p1") as peer:
            scans = [asyncio.create_task(peer.parts.on_whole_file(done.wait)) for _ in range(2 * SCAN_THREADS)]
            try:
                async with asyncio.timeout(20):
                    download = Download(url=origin.url("/a.bin"))
                    assert len(await lab.collect(peer, download)) == 4
                    assert (await peer.engine.stat_local_task(ids.task_id(download))).finished_at, "children ask for it, too"
            finally:
                done.set()
                await asyncio.gather(*scans)
