import asyncio

import grpc
from tests.integration.scheduler.harness import ENDED, TASK, URL, FakeSeeds, host, scheduler

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

        place.engine._seeds.on_load = load  # type: ignore[attr-defined]
        await place.announce(SEED, host("a"))
        await place.until(lambda: place.engine._swarms._world.seeds.pick(TASK) is not None)
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
