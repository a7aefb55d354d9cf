"""How many AnnouncePeer messages a scheduler takes per second, and what each costs it, against a bare grpc.aio stream handler.

Both servers run in a process of their own and are spoken to by the same client: PEERS peers at once, each registers, starts,
reports PIECES pieces, and finishes. The bare handler parses every message, answers the first with one parent, and ends after the
last. Printed: messages per second, server CPU-µs per message, and the ratio of the two servers' CPU.
Usage: scheduler_rate.py [peers] [pieces]
"""

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import grpc.aio
from dragonfly_api import common_pb2, scheduler_pb2, scheduler_pb2_grpc
from google.protobuf.empty_pb2 import Empty

from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.task import Download
from darner.kit import log
from darner.scheduler.config import SchedulerConfig
from darner.scheduler.engine import SchedulerEngine
from darner.scheduler.rpc import SchedulerServer
from darner.wire.common import host_to_pb, to_duration, to_timestamp

Untyped: TypeAlias = Any  # generated stubs and grpc's contexts
PEERS, PIECES, ROUNDS = 500, 100, 3
TASK = "5a" * 32
LENGTH = 4 * 1024 * 1024


class NoSeeds:
    """There are none."""

    async def load(self, seed: Host, download: Download) -> None:
        """Nothing loads."""

    async def healthy(self, seed: Host) -> bool:
        """Nobody answers."""
        return bool(seed.id) and False

    async def close(self) -> None:
        """Nothing to close."""


class Bare(scheduler_pb2_grpc.SchedulerServicer):
    """Reads, parses, answers once, ends."""

    async def AnnouncePeer(self, _: object, context: Untyped) -> None:  # noqa: N802
        """One dialogue."""
        await context.send_initial_metadata(())
        parent = common_pb2.Peer(id="p", host=host_to_pb(host(0)), state="Succeeded")
        while (request := await context.read()) is not grpc.aio.EOF:
            kind = request.WhichOneof("request")
            if kind == "register_peer_request":
                answer = scheduler_pb2.AnnouncePeerResponse()
                answer.normal_task_response.candidate_parents.append(parent)
                await context.write(answer)
            elif kind == "download_peer_finished_request":
                return

    async def AnnounceHost(self, request: Untyped, _: object) -> Untyped:  # noqa: N802
        """A host is here."""
        assert request.host.id
        return Empty()


def host(number: int) -> Host:
    kind = HostType.SUPER_SEED if number == 0 else HostType.NORMAL
    ip = f"10.1.{number // 200}.{number % 200 + 1}"
    return Host(id=HostId(f"{ip}-h{number}"), ip=ip, hostname=f"h{number}", port=4000, type=kind)


def serve(kind: str, pipe: Connection) -> None:
    log.configure(level="error")
    asyncio.run(_serve(kind, pipe))


async def _serve(kind: str, pipe: Connection) -> None:
    if kind == "scheduler":
        engine = SchedulerEngine(SchedulerConfig(), NoSeeds())
        async with engine, SchedulerServer(engine, ip="127.0.0.1", port=0) as server:
            await _talk(pipe, server.port)
        return
    bare = grpc.aio.server()
    scheduler_pb2_grpc.add_SchedulerServicer_to_server(Bare(), bare)  # type: ignore[no-untyped-call]
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    await _talk(pipe, port)
    await bare.stop(0)


async def _talk(pipe: Connection, port: int) -> None:
    pipe.send(port)
    while await asyncio.to_thread(pipe.recv):
        pipe.send(time.process_time())
    if os.environ.get("PROFILE"):
        print(f"server rss {int(open('/proc/self/statm').read().split()[1]) * 4 // 1024} MiB")  # noqa: SIM115, PTH123, ASYNC230


def messages(peer: int, round_number: int, pieces: int) -> list[Any]:
    """What one peer says, in order."""
    ids: dict[str, Untyped] = {"host_id": host(peer).id, "task_id": TASK, "peer_id": f"peer-{round_number}-{peer}"}
    make = scheduler_pb2.AnnouncePeerRequest
    said = [make(**ids, download_peer_started_request=scheduler_pb2.DownloadPeerStartedRequest())]
    for number in range(pieces):
        piece = common_pb2.Piece(
            number=number, offset=number * LENGTH, length=LENGTH, parent_id="peer-0-0", digest="crc32:3610123456"
        )
        piece.traffic_type = common_pb2.REMOTE_PEER
        piece.cost.CopyFrom(to_duration(0.01))
        piece.created_at.CopyFrom(to_timestamp(1.0))
        said.append(make(**ids, download_piece_finished_request=scheduler_pb2.DownloadPieceFinishedRequest(piece=piece)))
    said.append(make(**ids, download_peer_finished_request=scheduler_pb2.DownloadPeerFinishedRequest()))
    return said


def registration(peer: int, round_number: int) -> Untyped:
    download = common_pb2.Download(url="http://o.test/x", actual_content_length=LENGTH * 100, actual_piece_length=LENGTH)
    download.metadata_only = peer == 0
    register = scheduler_pb2.RegisterPeerRequest(download=download)
    ids: dict[str, Untyped] = {"host_id": host(peer).id, "task_id": TASK, "peer_id": f"peer-{round_number}-{peer}"}
    return scheduler_pb2.AnnouncePeerRequest(**ids, register_peer_request=register)


async def speak(stub: Untyped, register: Untyped, said: list[Any]) -> None:
    call = stub.AnnouncePeer()
    await call.write(register)
    assert await call.read() is not grpc.aio.EOF
    for message in said:
        await call.write(message)
    assert await call.read() is grpc.aio.EOF


async def load(port: int, pipe: Connection, peers: int, pieces: int) -> AsyncIterator[tuple[float, float]]:
    """(messages per second, server CPU-µs per message) of each round."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Untyped = scheduler_pb2_grpc.SchedulerStub(channel)  # type: ignore[no-untyped-call]
        for number in range(peers + 1):
            await stub.AnnounceHost(scheduler_pb2.AnnounceHostRequest(host=host_to_pb(host(number))))
        await speak(stub, registration(0, 0), messages(0, 0, 0))
        for round_number in range(1, ROUNDS + 1):
            scripts = [(registration(n, round_number), messages(n, round_number, pieces)) for n in range(1, peers + 1)]
            pipe.send(True)
            cpu, started = pipe.recv(), time.perf_counter()
            await asyncio.gather(*(speak(stub, register, said) for register, said in scripts))
            elapsed = time.perf_counter() - started
            pipe.send(True)
            count = peers * (pieces + 3)
            yield count / elapsed, (pipe.recv() - cpu) / count * 1e6


async def measure(kind: str, peers: int, pieces: int) -> tuple[float, float]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(kind, theirs))
    process.start()
    port = await asyncio.to_thread(ours.recv)
    results = [result async for result in load(port, ours, peers, pieces)]
    ours.send(False)
    await asyncio.to_thread(process.join)
    best = min(results, key=lambda result: result[1])
    print(f"{kind:>10}: {best[0]:8.0f} messages/s  {best[1]:6.1f} server CPU-µs per message  ({peers} peers, {pieces} pieces each)")
    return best


async def main() -> None:
    peers, pieces = (int(value) for value in (*sys.argv[1:], *map(str, (PEERS, PIECES)[len(sys.argv) - 1 :])))
    bare = await measure("bare", peers, pieces)
    scheduler = await measure("scheduler", peers, pieces)
    print(f"ratio of server CPU: {scheduler[1] / bare[1]:.2f} (target: at most 2)")


if __name__ == "__main__":
    asyncio.run(main())
