"""What the ports do with right, wrong and rude callers."""

import asyncio
import socket
import stat
import struct
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from dragonfly_api import dfdaemon_pb2, dfdaemon_pb2_grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from darner.client.dfdaemon import DaemonClient
from darner.core import ids
from darner.core.errors import ConflictError, InvalidInputError, NotFoundError, OriginError
from darner.core.task import Download
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024 * 1024
SYNC_PIECES = "/dfdaemon.v2.DfdaemonUpload/SyncPieces"


def upload_of(daemon: Any) -> str:
    return f"127.0.0.1:{daemon.parts.config.upload.server.port}"


class RawCaller:
    """Speaks HTTP/2 as upstream's client does, deadline header included, and notes when what arrives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = H2Connection(config=H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()

    async def call(self, path: str, message: bytes, *, deadline: str, claimed: int | None = None) -> None:
        header = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers"),
            ("content-type", "application/grpc"), ("grpc-timeout", deadline),
        ]  # fmt: skip
        self._h2.send_headers(1, header)
        framed = struct.pack(">BI", 0, len(message) if claimed is None else claimed) + message
        self._h2.send_data(1, framed, end_stream=claimed is None)
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()

    async def read(self, seconds: float) -> list[Any]:
        events: list[Any] = []
        try:
            async with asyncio.timeout(seconds):
                while not any(isinstance(event, StreamEnded | StreamReset) for event in events):
                    data = await self._reader.read(65536)
                    if not data:
                        break
                    events += self._h2.receive_data(data)
                    self._writer.write(self._h2.data_to_send())
        except TimeoutError:
            pass
        return events


async def raw(daemon: Any) -> RawCaller:
    return RawCaller(*await asyncio.open_connection("127.0.0.1", daemon.parts.config.upload.server.port))


async def test_a_childs_deadline_does_not_cut_its_stream_and_headers_come_at_once(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 12 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=4 * MIB))
        async with lab.daemon("seed", seed=True, concurrent_piece_count=1) as seed:
            loading = asyncio.create_task(lab.seed(seed, origin.url("/a.bin")))
            task_id = ids.task_id(Download(url=origin.url("/a.bin")))
            while seed.parts.store.task(task_id) is None:  # noqa: ASYNC110  (the store knows no events)
                await asyncio.sleep(0.01)
            caller = await raw(seed)
            request = dfdaemon_pb2.SyncPiecesRequest(host_id="h", task_id=task_id, interested_piece_numbers=[0, 1, 2])
            await caller.call(SYNC_PIECES, request.SerializeToString(), deadline="500m")
            early = await caller.read(0.3)
            assert any(isinstance(event, ResponseReceived) for event in early)
            late = await caller.read(20)
            assert not any(isinstance(event, StreamReset) for event in late)
            offers = b"".join(event.data for event in (*early, *late) if isinstance(event, DataReceived))
            assert offers.count(b"127.0.0.1") == 3
            caller._writer.close()
            await loading


async def test_the_upload_face_outlives_garbage_and_says_unimplemented(lab: Any) -> None:
    async with lab.daemon("p1") as daemon:
        for message, claimed in ((b"\xff\xff\xff", None), (b"x", 0xFFFFFFF0)):
            caller = await raw(daemon)
            await caller.call(SYNC_PIECES, message, deadline="1S", claimed=claimed)
            assert any(isinstance(event, StreamEnded | StreamReset) for event in await caller.read(5))
            caller._writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.parts.config.upload.server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        assert await reader.read()
        writer.close()
        async with grpc.aio.insecure_channel(upload_of(daemon)) as channel:
            stub = dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)  # type: ignore[no-untyped-call]
            for method in (stub.DownloadCachePiece, stub.StatCacheTask, stub.ListTaskEntries, stub.DeletePersistentTask):
                with pytest.raises(grpc.aio.AioRpcError) as failure:
                    await method(dfdaemon_pb2.StatTaskRequest(task_id="x"))
                assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED
        client = DaemonClient(upload_of(daemon))
        for task_id in ("", "x", "../../etc/passwd", "0" * 64):
            with pytest.raises(NotFoundError):
                await client.stat_local_task(task_id)
        assert await client.healthy()
        await client.close()


async def test_a_caller_from_the_network_cannot_name_an_output(lab: Any) -> None:
    target = lab.directory / "victim"
    target.write_text("mine")
    with CountingOrigin({"/a.bin": MIB}) as origin:
        async with lab.daemon("p1") as daemon:
            client = DaemonClient(upload_of(daemon))
            download = Download(url=origin.url("/a.bin"), output_path=str(target), overwrite=True, force_hard_link=True)
            assert [event async for event in client.download_task(download)]
            await client.close()
    assert target.read_text() == "mine"


async def test_the_socket_belongs_to_its_owner_and_a_stale_one_is_replaced(lab: Any) -> None:
    config = lab.config("p1")
    path = config.download.server.socket_path
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with lab.running(config):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(ConflictError):
            async with lab.running(config):
                pass
        assert path.exists()
    assert not path.exists()


async def test_tasks_are_listed_told_and_deleted_and_the_scheduler_hears_of_it(lab: Any) -> None:
    with CountingOrigin({"/a.bin": 5 * MIB}) as origin:
        async with lab.daemon("p1") as daemon:
            await lab.collect(daemon, Download(url=origin.url("/a.bin")))
            client = lab.client(daemon)
            (task,) = await client.list_local_tasks()
            assert task.finished_at is not None
            assert (await client.stat_local_task(task.id)).content_length == 5 * MIB
            assert (await client.stat_task(task.id)).content_length in {None, 5 * MIB}
            assert lab.scheduler.holders[task.id]
            await client.delete_task(task.id)
            assert not lab.scheduler.holders[task.id]
            assert await client.list_local_tasks() == []
            with pytest.raises(NotFoundError):
                await client.delete_local_task(task.id)
            await client.close()


async def test_this_host_is_known_to_the_scheduler_while_it_runs(lab: Any) -> None:
    async with lab.daemon("p1") as daemon:
        host = lab.scheduler.hosts[daemon.parts.host().id]
        assert host.build_version.startswith("darner ")
        assert host.id == "127.0.0.1-p1"
        assert host.max_tx_bandwidth > 0
        client = DaemonClient(upload_of(daemon))
        async for told in client.sync_host("h", "p"):
            assert told.max_tx_bandwidth > 0
            break
        await client.close()
    assert host.id not in lab.scheduler.hosts


async def test_metrics_and_health_are_served(lab: Any) -> None:
    async with lab.daemon("p1") as daemon, aiohttp.ClientSession() as http:
        config = daemon.parts.config
        async with http.get(f"http://127.0.0.1:{config.metrics.server.port}/metrics") as reply:
            assert "dragonfly_client_download_task_total" in await reply.text()
        async with http.get(f"http://127.0.0.1:{config.health.server.port}/healthy") as reply:
            assert reply.status == 200


async def test_a_taken_port_is_said_in_one_sentence(lab: Any, tmp_path: Path) -> None:
    config = lab.config("p1")
    with socket.socket() as other:
        other.bind(("127.0.0.1", config.metrics.server.port))
        other.listen()
        with pytest.raises(ConflictError, match="metrics"):
            async with lab.running(config):
                pass
    assert not list(tmp_path.glob("*.sock"))  # noqa: ASYNC240  (a test may block)


async def test_what_the_origin_said_reaches_a_caller_of_the_upload_face(lab: Any) -> None:
    with CountingOrigin() as origin:
        origin.set_fault("/a", Fault(status=403))
        async with lab.daemon("p1") as daemon:
            client = DaemonClient(upload_of(daemon))
            with pytest.raises(OriginError, match="403") as failure:
                _ = [event async for event in client.download_task(Download(url=origin.url("/a")))]
            with pytest.raises(InvalidInputError, match="piece length"):
                _ = [event async for event in client.download_task(Download(url=origin.url("/a"), piece_length=1))]
            await client.close()
    assert failure.value.status == 403
