"""Whole downloads: origin, seed and peers in one process."""

import asyncio
import hashlib
import os
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from darner.client.twin_servers import serve
from darner.core import ids
from darner.core.announce import BackToSourcePieceFinished, Finished
from darner.core.digest import Digest
from darner.core.errors import ConflictError, DigestMismatchError, InvalidInputError, OriginError, UnavailableError
from darner.core.progress import DownloadStarted
from darner.core.ranges import ByteRange
from darner.core.task import Download, Headers
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024 * 1024


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (what is waited for knows no events)
            await asyncio.sleep(0.01)


async def test_two_peers_get_a_file_through_one_copy_from_the_origin(lab: Any) -> None:
    size = 21 * MIB + 7
    with CountingOrigin({"/a.bin": size}) as origin:
        digest = Digest("sha256", origin.sha256("/a.bin"))
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as one, lab.daemon("p2") as two:
            await lab.seed(seed, origin.url("/a.bin"))
            for peer in (one, two):
                output = lab.directory / f"{peer.parts.host().hostname}.out"
                client = lab.client(peer)
                download = Download(url=origin.url("/a.bin"), output_path=str(output), digest=digest)
                events = [event async for event in client.download_task(download)]
                await client.close()
                assert len(events) == 7
                assert sha256(output) == digest.value
            assert origin.body_bytes("/a.bin") <= size + 1
    vouched = [said.message.piece for said in lab.scheduler.heard if isinstance(said.message, BackToSourcePieceFinished)]
    assert len(vouched) == 6
    assert all(piece.digest.startswith("blake3:") for piece in vouched)


async def test_with_the_real_scheduler_a_peer_never_asks_the_origin_itself(real_lab: Any) -> None:
    lab, size = real_lab, 25 * MIB + 1
    with CountingOrigin({"/a.bin": size, "/small.bin": 1000}) as origin:
        async with lab.daemon("seed", seed=True), lab.daemon("p1") as one, lab.daemon("p2") as two, lab.daemon("p3") as three:
            for path in ("/a.bin", "/small.bin"):
                outputs = [lab.directory / f"{number}{path[1:]}" for number in range(3)]
                await asyncio.gather(
                    *(
                        lab.collect(peer, Download(url=origin.url(path), output_path=str(output)))
                        for peer, output in zip((one, two, three), outputs, strict=True)
                    )
                )
                assert {sha256(output) for output in outputs} == {origin.sha256(path)}
            assert origin.body_bytes("/a.bin") <= size + 1
            assert origin.body_bytes("/small.bin") <= 1001


async def test_ten_askers_of_one_daemon_share_one_download(lab: Any) -> None:
    size = 9 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        async with lab.daemon("p1") as peer:
            got = await asyncio.gather(*(lab.collect(peer, Download(url=origin.url("/a.bin"))) for _ in range(10)))
            assert [len(events) for events in got] == [4] * 10
            assert origin.body_bytes("/a.bin") <= size + 1


async def test_a_peer_gets_pieces_while_its_parent_still_loads(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 24 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=8 * MIB))
        async with lab.daemon("seed", seed=True, concurrent_piece_count=1) as seed, lab.daemon("p1") as peer:
            download = Download(url=origin.url("/a.bin"))
            task_id = ids.task_id(download)
            loading = asyncio.create_task(lab.seed(seed, origin.url("/a.bin")))
            await until(lambda: seed.parts.store.pieces(task_id))
            async for event in peer.engine.download(download):
                if not isinstance(event.what, DownloadStarted):
                    break
            assert len(seed.parts.store.pieces(task_id)) < 6
            await loading


async def test_a_download_goes_on_after_kill_without_fetching_pieces_again(lab: Any) -> None:
    size = 40 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=20 * MIB))
        config = lab.config("seed", seed=True, concurrent_piece_count=1)
        download = Download(url=origin.url("/a.bin"))
        task_id = ids.task_id(download)
        async with lab.running(config) as seed:
            loading = asyncio.create_task(lab.collect(seed, download))
            await until(lambda: len(seed.parts.store.pieces(task_id)) >= 4)
            await seed.engine.close()
            with pytest.raises(Exception, match="stopped"):
                await loading
            held = len(seed.parts.store.pieces(task_id))
        origin.set_fault("/a.bin", None)
        origin.forget_counts()
        async with lab.running(config) as seed:
            await lab.collect(seed, Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "out")))
        assert sha256(lab.directory / "out") == origin.sha256("/a.bin")
        assert origin.body_bytes("/a.bin") <= size - held * 4 * MIB + 1


async def test_pieces_of_an_older_content_are_not_mixed_with_the_new(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 16 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=20 * MIB))
        download = Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "out"))
        async with lab.daemon("p1", concurrent_piece_count=1) as peer:
            loading = asyncio.create_task(lab.collect(peer, download))
            await until(lambda: peer.parts.store.pieces(ids.task_id(download)))
            await peer.engine.close()
            with pytest.raises(Exception, match="stopped"):
                await loading
            origin.set_fault("/a.bin", None)
            origin.change("/a.bin")
            await lab.collect(peer, download)
        assert sha256(lab.directory / "out") == origin.sha256("/a.bin")


@pytest.mark.parametrize("longer", [0, 1, 5 * MIB], ids=["bytes", "one more", "a piece more"])
async def test_a_lying_parent_is_found_out_and_left(lab: Any, longer: int) -> None:
    size = 20 * MIB + 3
    with CountingOrigin({"/true.bin": size, "/false.bin": size + longer}) as origin:
        same: dict[str, Any] = {"content_for_calculating_task_id": "one and the same"}
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("liar", schedulers=()) as liar, lab.daemon("p1") as peer:
            await lab.seed(seed, origin.url("/true.bin"), **same)
            await lab.collect(liar, Download(url=origin.url("/false.bin"), **same))
            task_id = ids.task_id(Download(url="x", **same))
            lab.scheduler.hosts[liar.parts.host().id] = liar.parts.host()
            lab.scheduler.peers[task_id] = {"liar-peer": liar.parts.host().id, **lab.scheduler.peers[task_id]}
            output = lab.directory / "out"
            await lab.collect(peer, Download(url=origin.url("/true.bin"), output_path=str(output), **same))
            assert sha256(output) == origin.sha256("/true.bin")
            assert origin.body_bytes("/true.bin") <= size + 1
            records = peer.parts.store.pieces(task_id).values()
            assert "liar-peer" not in Counter(record.parent_id for record in records)


async def test_when_a_parent_dies_the_rest_comes_from_another_one(lab: Any) -> None:
    size = 32 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(lab.daemon("s1", seed=True))
            await lab.seed(first, origin.url("/a.bin"))
            dying = AsyncExitStack()
            second = await dying.enter_async_context(lab.daemon("s2"))
            await lab.collect(second, Download(url=origin.url("/a.bin")))
            peer = await stack.enter_async_context(lab.daemon("p1", concurrent_piece_count=1))
            events = peer.engine.download(Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "out")))
            await anext(events)
            await anext(events)
            await dying.aclose()
            rest = [event async for event in events]
            assert rest
        assert sha256(lab.directory / "out") == origin.sha256("/a.bin")
        assert origin.body_bytes("/a.bin") <= size + 1


async def test_when_the_only_parent_dies_the_scheduler_is_asked_again_and_the_origin_gives_the_rest(lab: Any) -> None:
    size = 32 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        async with lab.daemon("p1", concurrent_piece_count=1) as peer:
            dying = AsyncExitStack()
            seed = await dying.enter_async_context(lab.daemon("seed", seed=True))
            await lab.seed(seed, origin.url("/a.bin"))
            origin.forget_counts()
            events = peer.engine.download(Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "out")))
            await anext(events)
            await anext(events)
            await dying.aclose()
            assert [event async for event in events]
        assert sha256(lab.directory / "out") == origin.sha256("/a.bin")
        assert origin.body_bytes("/a.bin") < size


async def test_a_download_survives_the_loss_of_its_scheduler(lab: Any) -> None:
    size = 24 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=16 * MIB))
        async with AsyncExitStack() as stack:
            dying = AsyncExitStack()
            address = await dying.enter_async_context(serve(lab.scheduler))
            seed = await stack.enter_async_context(lab.daemon("seed", seed=True, schedulers=(address,), concurrent_piece_count=1))
            peer = await stack.enter_async_context(lab.daemon("p1", schedulers=(address,)))
            loading = asyncio.create_task(lab.seed(seed, origin.url("/a.bin")))
            await until(lambda: lab.scheduler.peers)
            events = peer.engine.download(Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "out")))
            await anext(events)
            await dying.aclose()
            assert [event async for event in events]
            await loading
        assert sha256(lab.directory / "out") == origin.sha256("/a.bin")
        assert origin.body_bytes("/a.bin") <= size + 1


async def test_without_any_scheduler_the_origin_is_used(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        async with lab.daemon("p1", schedulers=("127.0.0.1:1",)) as peer:
            assert await lab.collect(peer, Download(url=origin.url("/a.bin")))


async def test_the_origin_is_left_alone_when_that_is_wanted(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        async with lab.daemon("p1") as peer:
            with pytest.raises(UnavailableError, match="source is disabled"):
                await lab.collect(peer, Download(url=origin.url("/a.bin"), disable_back_to_source=True))
        assert origin.requests() == 0


async def test_an_error_of_the_origin_reaches_the_asker_with_its_status(lab: Any) -> None:
    with CountingOrigin() as origin:
        async with lab.daemon("p1") as peer:
            client = lab.client(peer)
            with pytest.raises(OriginError) as failure:
                _ = [event async for event in client.download_task(Download(url=origin.url("/none")))]
            await client.close()
        assert failure.value.status == 404


@pytest.mark.parametrize(
    "fault", [Fault(no_ranges=True), Fault(no_length=True, no_ranges=True), Fault(no_length=True)], ids=["n", "nl", "l"]
)
async def test_an_origin_without_ranges_or_length_is_read_once_and_shared(lab: Any, fault: Fault) -> None:
    size = 13 * MIB + 5
    with CountingOrigin({"/a.bin": size}) as origin:
        origin.set_fault("/a.bin", fault)
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as peer:
            await lab.seed(seed, origin.url("/a.bin"))
            await lab.collect(peer, Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "out")))
        assert sha256(lab.directory / "out") == origin.sha256("/a.bin")
        assert sum(access.body_bytes for access in origin.log if access.finished and access.body_bytes == size) <= size


async def test_an_empty_file_is_a_file(lab: Any) -> None:
    with CountingOrigin({"/empty": 0}) as origin:
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as peer:
            await lab.seed(seed, origin.url("/empty"))
            await lab.collect(peer, Download(url=origin.url("/empty"), output_path=str(lab.directory / "out")))
    assert (lab.directory / "out").read_bytes() == b""


async def test_a_range_gives_its_bytes_and_does_not_finish_the_task(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 20 * MIB}) as origin:
        whole = b"".join(origin.content("/a.bin").read(0, 20 * MIB))
        wanted = ByteRange(start=5 * MIB + 3, length=MIB)
        async with lab.daemon("p1") as peer:
            download = Download(url=origin.url("/a.bin"), range=wanted, output_path=str(lab.directory / "part"))
            await lab.collect(peer, download)
            assert (lab.directory / "part").read_bytes() == whole[wanted.start : wanted.end]
            assert (await peer.engine.stat_local_task(ids.task_id(download))).finished_at is None
            assert origin.body_bytes("/a.bin") <= 4 * MIB + 1
            with pytest.raises(InvalidInputError, match="outside"):
                await lab.collect(peer, Download(url=origin.url("/a.bin"), range=ByteRange(start=21 * MIB, length=1)))
            await lab.collect(peer, Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "whole")))
            assert (lab.directory / "whole").read_bytes() == whole
            assert (await peer.engine.stat_local_task(ids.task_id(download))).finished_at is not None


async def test_content_travels_in_the_events_when_asked_for(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 9 * MIB + 1}) as origin:
        whole = b"".join(origin.content("/a.bin").read(0, 9 * MIB + 1))
        async with lab.daemon("p1") as peer:
            client = lab.client(peer)
            pieces = {}
            async for event in client.download_task(Download(url=origin.url("/a.bin"), need_piece_content=True)):
                if not isinstance(event.what, DownloadStarted):
                    pieces[event.what.piece.offset] = event.what.content
            await client.close()
        assert b"".join(pieces[offset] for offset in sorted(pieces)) == whole


WRONG = Digest("sha256", "0" * 64)


async def expect_refusal(lab: Any, peer: Any, url: str, words: str) -> None:
    """A download with the wrong digest fails, before its last piece was told, and makes no output."""
    download = Download(url=url, digest=WRONG, output_path=str(lab.directory / "out"))
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def listen() -> None:
        async for event in peer.engine.download(download):
            told.put_nowait(event)

    with pytest.raises(DigestMismatchError, match=words):
        await listen()
    assert told.qsize() <= 2, "the last piece was told before the digest was checked"
    assert not (lab.directory / "out").exists()


async def test_a_wrong_digest_of_one_asker_refuses_the_output_and_costs_nobody_the_content(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        url = origin.url("/a.bin")
        task_id = ids.task_id(Download(url=url))
        async with lab.daemon("p1") as first, lab.daemon("p2") as second:
            for peer in (first, first, second, second):  # from the origin, from disk, from a parent, from disk
                await expect_refusal(lab, peer, url, "stays")
                assert peer.parts.store.task(task_id).finished_at is not None
            right = Digest("sha256", origin.sha256("/a.bin"))
            for peer in (first, second):
                await lab.collect(peer, Download(url=url, digest=right, output_path=str(lab.directory / "out"), overwrite=True))
        assert sha256(lab.directory / "out") == right.value
        assert origin.body_bytes("/a.bin") <= 5 * MIB + 1


async def test_a_wrong_digest_of_one_asker_does_not_fail_those_who_wait_with_it(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 9 * MIB}) as origin:
        right = Digest("sha256", origin.sha256("/a.bin"))
        async with lab.daemon("p1") as peer:
            asked = [Download(url=origin.url("/a.bin"), digest=digest) for digest in (WRONG, right, None)]
            results = await asyncio.gather(*(lab.collect(peer, download) for download in asked), return_exceptions=True)
        assert isinstance(results[0], DigestMismatchError)
        assert [len(result) for result in results[1:] if isinstance(result, list)] == [4, 4]
        assert origin.body_bytes("/a.bin") <= 9 * MIB + 1


async def test_content_that_nobody_vouches_for_is_dropped_when_its_digest_is_wrong(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB, "/b.bin": 5 * MIB}) as origin:
        origin.set_fault("/b.bin", Fault(header={"ETag": "", "Last-Modified": ""}))
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as peer:
            url = origin.url("/a.bin")
            await lab.seed(seed, url)
            await lab.collect(peer, Download(url=url))
            lab.scheduler.tasks.clear()
            await expect_refusal(lab, peer, url, "dropped")
            assert peer.parts.store.task(ids.task_id(Download(url=url))) is None
            # Without a name of its version, two versions may be mixed in what the origin sent.
            url = origin.url("/b.bin")
            await expect_refusal(lab, seed, url, "dropped")
            assert seed.parts.store.task(ids.task_id(Download(url=url))) is None


async def test_bytes_that_went_bad_on_disk_are_dropped_when_a_digest_tells(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        download = Download(url=origin.url("/a.bin"))
        async with lab.daemon("p1") as peer:
            await lab.collect(peer, download)
            with peer.parts.store.open_file(ids.task_id(download)) as file:
                changed = file.path.stat()
                file.path.write_bytes(b"x" * (5 * MIB))
                os.utime(file.path, ns=(changed.st_atime_ns, changed.st_mtime_ns))  # else the store would notice by itself
            await expect_refusal(lab, peer, download.url, "dropped")
            assert peer.parts.store.task(ids.task_id(download)) is None


async def test_signatures_and_passwords_of_urls_are_neither_told_nor_kept(lab: Any) -> None:
    with CountingOrigin({"/a.bin": MIB}) as origin:
        place = origin.url("/a.bin").removeprefix("http://")
        url = f"http://ann:s3cret@{place}?X-Amz-Signature=s3cret"
        signed: Any = {"filtered_query_params": ("X-Amz-Signature",)}
        async with lab.daemon("p1") as peer:
            await lab.collect(peer, Download(url=url, **signed))
            record = peer.parts.store.task(ids.task_id(Download(url=url, **signed)))
            assert record.url == f"http://{place}?X-Amz-Signature="
            with pytest.raises(DigestMismatchError) as refused:
                await lab.collect(peer, Download(url=url, digest=WRONG, **signed))
            assert "s3cret" not in refused.value.message
        assert not [path for path in (lab.directory / "p1").rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


async def test_an_output_that_exists_is_refused_before_anything_is_loaded(lab: Any) -> None:
    (lab.directory / "out").write_text("mine")
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        async with lab.daemon("p1") as peer:
            with pytest.raises(ConflictError, match="exists"):
                await lab.collect(peer, Download(url=origin.url("/a.bin"), output_path=str(lab.directory / "out")))
        assert origin.requests() == 0
    assert (lab.directory / "out").read_text() == "mine"


async def test_the_last_asker_who_leaves_stops_the_download(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 400 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=20 * MIB))
        async with lab.daemon("p1", last_asker_grace=0.2) as peer:
            one, other = (peer.engine.download(Download(url=origin.url("/a.bin"))) for _ in range(2))
            await anext(one)
            await anext(other)
            await one.aclose()
            await asyncio.sleep(0.4)
            assert peer.engine.running
            await other.aclose()
            await until(lambda: not peer.engine.running)


async def test_a_wrong_password_of_one_asker_does_not_fail_another(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(status=401, times=1))
        async with lab.daemon("p1") as peer:
            bad = lab.collect(peer, Download(url=origin.url("/a.bin"), request_header=Headers({"Authorization": "Basic no"})))
            good = lab.collect(peer, Download(url=origin.url("/a.bin"), request_header=Headers({"Authorization": "Basic yes"})))
            results = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(results[0], OriginError)
        assert isinstance(results[1], list)


async def test_after_a_restart_the_scheduler_hears_what_is_held(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        config = lab.config("p1")
        async with lab.running(config) as peer:
            await lab.collect(peer, Download(url=origin.url("/a.bin")))
        lab.scheduler.heard.clear()
        async with lab.running(config):
            await until(lambda: any(isinstance(said.message, Finished) for said in lab.scheduler.heard))


async def test_after_a_range_the_rest_is_prefetched_when_asked_for(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 12 * MIB}) as origin:
        async with lab.daemon("p1") as peer:
            download = Download(url=origin.url("/a.bin"), range=ByteRange(start=0, length=10), prefetch=True)
            await lab.collect(peer, download)
            store = peer.parts.store
            await until(lambda: store.task(ids.task_id(download)).prefetched_at is not None)
            assert (await peer.engine.stat_local_task(ids.task_id(download))).finished_at is not None


async def test_a_limit_of_bandwidth_is_kept(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 16 * MIB}) as origin:
        loop = asyncio.get_running_loop()
        async with lab.daemon("p1", bandwidth_limit=0) as free, lab.daemon("p2", bandwidth_limit=8 * MIB, schedulers=()) as bound:
            started = loop.time()
            await lab.collect(free, Download(url=origin.url("/a.bin")))
            middle = loop.time()
            await lab.collect(bound, Download(url=origin.url("/a.bin")))
            assert loop.time() - middle > middle - started
            assert loop.time() - middle > 0.9
