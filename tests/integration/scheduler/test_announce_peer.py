import asyncio

import grpc
import pytest
from tests.integration.scheduler.harness import ENDED, TASK, URL, FakeSeeds, host, scheduler

from darner.client.status import error_of
from darner.core.announce import (
    BackToSourceFinished,
    BackToSourcePieceFinished,
    BackToSourceStarted,
    Finished,
    NeedBackToSource,
    NormalTask,
    PieceFinished,
    Started,
)
from darner.core.errors import OriginError
from darner.core.host import Host
from darner.core.piece import Piece
from darner.core.task import Download

SEED = host("s", seed=True, ip="10.9.0.1")


async def test_the_headers_are_out_at_once_while_the_peer_is_still_held() -> None:
    async with scheduler(FakeSeeds(on_load=lambda *_: asyncio.sleep(60))) as place:
        await place.announce(SEED, host("a"))
        async with place.peer("a") as peer:
            await asyncio.wait_for(peer.header(), 5)
            await peer.register()
            await place.until(lambda: place.engine.counts()["held"] == 1)


async def test_a_peer_waits_for_the_seed_and_loads_from_it_while_it_loads() -> None:
    async with scheduler(FakeSeeds()) as place:
        seed_peer = place.peer("s", host_id=SEED.id)
        loaded = asyncio.Event()

        async def load(_: Host, download: Download) -> None:
            assert download.need_back_to_source
            assert download.output_path is None
            assert download.remote_ip == "127.0.0.1"
            async with seed_peer:
                await seed_peer.register(need_back_to_source=True)
                assert isinstance(await seed_peer.hear(), NeedBackToSource)
                await seed_peer.say(BackToSourceStarted())
                await loaded.wait()
                piece = Piece(number=0, offset=0, length=5, digest="blake3:" + "ab" * 32)
                await seed_peer.say(BackToSourcePieceFinished(piece=piece))
                await seed_peer.say(BackToSourceFinished())
                assert await seed_peer.hear() == ENDED

        place.seeds.on_load = load
        await place.announce(SEED, host("a"))
        await place.seed_is_ready()
        async with place.peer("a") as peer:
            await peer.register(output_path="/data/x")
            answer = await peer.hear()
            assert isinstance(answer, NormalTask)
            assert [parent.host.id for parent in answer.candidate_parents] == [SEED.id]
            assert answer.candidate_parents[0].host.port == SEED.port
            await peer.say(Started())
            loaded.set()
            await peer.say(PieceFinished(piece=Piece(number=0, offset=0, length=5, parent_id="peer-s")))
            await peer.say(Finished())
            assert await peer.hear() == ENDED
            assert await peer.code() == grpc.StatusCode.OK
        await place.until(lambda: place.engine.stat_task(TASK).content_length is not None)
        info = await place.client.stat_task(host("a").id, TASK)
        assert (info.content_length, info.piece_count, info.url, info.state) == (5, 1, URL, "Succeeded")
        assert info.pieces[0].digest == "blake3:" + "ab" * 32
        assert info.has_available_peer


async def test_messages_are_taken_while_the_peer_is_held_and_reads_nothing() -> None:
    async with scheduler(FakeSeeds(on_load=lambda *_: asyncio.sleep(60))) as place:
        await place.announce(SEED, host("a"))
        await place.seed_is_ready()
        async with place.peer("a") as peer:
            await peer.register()
            async with asyncio.timeout(20):
                for number in range(3000):
                    await peer.say(PieceFinished(piece=Piece(number=number, offset=number, length=1)))
            await place.until(lambda: place.record("a").finished == (1 << 3000) - 1)
            assert place.engine.counts()["held"] == 1


async def test_a_cancelled_stream_fails_its_peer_at_once() -> None:
    async with scheduler(FakeSeeds()) as place:
        await place.announce(host("a"), host("b"))
        async with place.peer("a") as first, place.peer("b") as second:
            await first.register()
            assert isinstance(await first.hear(), NeedBackToSource)
            await second.register()
            await place.until(lambda: place.engine.counts()["held"] == 1)
            first.cancel()
            assert isinstance(await second.hear(2), NeedBackToSource)
            assert place.record("a").state == "Failed"


async def test_a_stream_that_the_client_closes_without_a_last_word_is_broken_and_ended() -> None:
    async with scheduler(FakeSeeds()) as place:
        async with place.peer("a") as peer:
            await peer.register()
            await peer.hear()
            await peer.half_close()
            assert await peer.hear() == ENDED
        assert place.record("a").state == "Failed"


async def test_a_client_that_vanishes_with_its_connection_is_noticed() -> None:
    async with scheduler(FakeSeeds()) as place:
        async with place.peer("a") as peer:
            await peer.register()
            await peer.hear()
        await place.until(lambda: place.record("a").state == "Failed")


async def test_what_the_origin_said_reaches_those_that_wait_with_its_status() -> None:
    async def load(*_: object) -> None:
        await asyncio.sleep(0.05)
        raise OriginError("GET http://origin.test/file: 404 Not Found", status=404, header={"Server": "x"})

    async with scheduler(FakeSeeds(on_load=load)) as place:
        await place.announce(SEED, host("a"), host("b"))
        await place.seed_is_ready()
        async with place.peer("a") as first, place.peer("b") as second:
            await first.register()
            await second.register()
            for peer in (first, second):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await peer.hear()
                assert caught.value.code() == grpc.StatusCode.NOT_FOUND
                told = error_of(caught.value)
                assert isinstance(told, OriginError)
                assert (told.status, told.message) == (404, "GET http://origin.test/file: 404 Not Found")


async def test_a_second_stream_of_the_same_peer_replaces_the_first() -> None:
    async with scheduler(FakeSeeds()) as place:
        async with place.peer("a") as first, place.peer("a") as second:
            await first.register()
            assert isinstance(await first.hear(), NeedBackToSource)
            await second.register()
            assert isinstance(await second.hear(), NeedBackToSource)
            with pytest.raises(grpc.aio.AioRpcError):
                await first.hear()
            assert place.record("a").state == "Pending"
            await second.say(BackToSourceStarted())
            await second.say(BackToSourceFinished())
            assert await second.hear() == ENDED
        assert place.record("a").state == "Succeeded"


async def test_a_stream_that_begins_with_nonsense_is_refused_and_later_nonsense_is_ignored() -> None:
    async with scheduler(FakeSeeds()) as place:
        async with place.peer("a", task_id="") as nameless:
            await nameless.register()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await nameless.hear()
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        async with place.peer("a") as peer:
            await peer.register()
            await peer.hear()
            peer.task_id, kept = "", peer.task_id
            await peer.say(Started())
            peer.task_id = kept
            await peer.say(BackToSourceFinished())
            assert await peer.hear() == ENDED


async def test_a_thousand_waiting_peers_are_released_in_waves_and_not_all_to_the_seed() -> None:
    count = 1000
    async with scheduler(FakeSeeds(), seed_grace=20.0) as place:
        await place.announce(SEED, *(host(f"h{number}", ip=f"10.2.{number // 250}.{number % 250}") for number in range(count)))
        seed = place.peer("s", host_id=SEED.id)
        go = asyncio.Event()

        async def load(*_: object) -> None:
            await go.wait()
            await seed.register(need_back_to_source=True)
            assert isinstance(await seed.hear(), NeedBackToSource)
            await seed.say(BackToSourceStarted())
            await asyncio.sleep(60)

        place.seeds.on_load = load
        async with seed, place.crowd(count) as crowd:
            await place.until(lambda: place.engine.counts()["held"] == count, timeout_s=60)
            go.set()
            async with asyncio.timeout(60):
                answers = await asyncio.gather(*(peer.hear_and_start() for peer in crowd))
            assert all(isinstance(answer, NormalTask) for answer in answers)
            assert place.engine.counts()["held"] == 0
            assert len(place.record("s").children) < count / 2
