"""The gRPC clients against servers that are absent, silent, slow, rude, or go away."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from dragonfly_api import dfdaemon_pb2, dfdaemon_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc
from google.protobuf.empty_pb2 import Empty

from darner.client.channel import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S
from darner.client.dfdaemon import DaemonClient
from darner.client.manager import ManagerGrpcClient
from darner.client.scheduler import SchedulerClient
from darner.client.twin_servers import serve
from darner.client.twins import DaemonTwin, SchedulerTwin
from darner.core.announce import Announced, Register, Started
from darner.core.errors import DarnerError, InvalidInputError, OriginError, PeerError, TimedOutError, UnavailableError
from darner.core.host import Host
from darner.core.ids import HostId
from darner.core.secret import Secret
from darner.core.task import Download

HOST = Host(id=HostId("10.0.0.1-a"), ip="10.0.0.1", hostname="a", port=4000)


class RudeScheduler(scheduler_pb2_grpc.SchedulerServicer):
    """Does with each dialogue what the test says."""

    def __init__(self, dialogue: Callable[[Any, Any], AsyncIterator[Any]] | None = None) -> None:
        self.dialogue = dialogue
        self.seen: list[dict[str, str | bytes]] = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.asked = asyncio.Event()

    async def AnnouncePeer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        assert self.dialogue is not None
        self.entered.set()
        try:
            async for response in self.dialogue(requests, context):
                yield response
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def StatTask(self, _request: Any, context: Any) -> Any:  # noqa: N802
        self.seen.append(dict(context.invocation_metadata()))
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def AnnounceHost(self, _request: Any, context: Any) -> Any:  # noqa: N802
        self.seen.append(dict(context.invocation_metadata()))
        return Empty()


@asynccontextmanager
async def scheduler_of(face: RudeScheduler) -> AsyncIterator[SchedulerClient]:
    server = grpc.aio.server()
    scheduler_pb2_grpc.add_SchedulerServicer_to_server(face, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = SchedulerClient(f"127.0.0.1:{port}", token=Secret("dat_x"))
    try:
        yield client
    finally:
        await client.close()
        await server.stop(None)


async def one_message_then_silence(closed: asyncio.Event | None = None) -> AsyncIterator[Announced]:
    try:
        yield Announced(host_id="h", task_id="t", peer_id="p", message=Register(download=Download(url="http://o/f")))
        await asyncio.Event().wait()
    finally:
        if closed is not None:
            closed.set()


async def take_all(answers: AsyncIterator[Any], into: list[Any] | None = None) -> list[Any]:
    taken = [] if into is None else into
    async for answer in answers:
        taken.append(answer)
    return taken


@pytest.mark.parametrize("address", ["127.0.0.1", "", ":8002", "h:0", "h:65536", "h:x", "http://h:80", "h:80/x"])
async def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match="HOST:PORT or unix:PATH"):
        SchedulerClient(address)


async def test_an_absent_service_is_named_at_once_by_every_kind_of_call(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken but not listening
        address = f"127.0.0.1:{free.getsockname()[1]}"
        scheduler, manager, daemon = (
            SchedulerClient(address),
            ManagerGrpcClient(address),
            DaemonClient(f"unix:{tmp_path}/none.sock"),
        )
        closed = asyncio.Event()
        for call in (
            scheduler.list_hosts(),
            manager.list_applications("a", "10.0.0.1"),
            manager.keep_alive("a", "10.0.0.1", 1, 5),
            daemon.list_local_tasks(),
            take_all(daemon.download_task(Download(url="http://o/f"))),
            take_all(scheduler.announce_peer(one_message_then_silence(closed))),
        ):
            # each at once, not after the time limit of a call
            async with asyncio.timeout(CALL_TIMEOUT_S):
                with pytest.raises(UnavailableError, match="does not answer; is it running"):
                    await call
        assert closed.is_set()
        assert not await daemon.healthy()
        for client in (scheduler, manager, daemon):
            await client.close()


async def test_a_server_that_accepts_and_stays_silent_is_given_up_after_the_connect_time() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    client = SchedulerClient(f"127.0.0.1:{listener.getsockname()[1]}")
    async with asyncio.timeout(CONNECT_TIMEOUT_S * 3):
        with pytest.raises(UnavailableError):
            await take_all(client.announce_peer(one_message_then_silence()))
    await client.close()
    listener.close()


async def test_a_client_finds_a_service_that_starts_later() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    client = SchedulerClient(address)
    assert not await client.healthy()
    async with serve(SchedulerTwin(), address), asyncio.timeout(20):
        while not await client.healthy():  # noqa: ASYNC110  (what a daemon does)
            await asyncio.sleep(0.05)
        assert await client.list_hosts() == []
    await client.close()


async def test_the_token_travels_and_the_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    face = RudeScheduler()
    async with scheduler_of(face) as client:
        await client.announce_host(HOST, 300)
    assert face.seen[0]["authorization"] == "Bearer dat_x"


async def test_cancelling_the_caller_cancels_a_unary_call_at_the_server() -> None:
    face = RudeScheduler()
    async with scheduler_of(face) as client, asyncio.timeout(10):
        asking = asyncio.ensure_future(client.stat_task("h", "t"))
        await face.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await face.cancelled.wait()


async def test_cancelling_the_caller_cancels_a_dialogue_at_the_server_and_closes_the_messages() -> None:
    async def silence(_requests: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(())
        await asyncio.Event().wait()
        yield  # pragma: no cover

    face, closed = RudeScheduler(silence), asyncio.Event()
    async with scheduler_of(face) as client, asyncio.timeout(10):
        talking = asyncio.ensure_future(take_all(client.announce_peer(one_message_then_silence(closed))))
        await face.entered.wait()
        talking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await talking
        assert closed.is_set()
        await face.cancelled.wait()


async def test_closing_a_client_does_not_look_like_a_cancellation_to_its_callers() -> None:
    async def silence(_requests: Any, _context: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield  # pragma: no cover

    face, closed = RudeScheduler(silence), asyncio.Event()
    async with scheduler_of(face) as client, asyncio.timeout(10):
        asking = asyncio.ensure_future(client.stat_task("h", "t"))
        talking = asyncio.ensure_future(take_all(client.announce_peer(one_message_then_silence(closed))))
        await face.entered.wait()
        await face.asked.wait()
        await client.close()
        for call in (asking, talking):
            with pytest.raises(UnavailableError, match="is closed"):
                await call
        assert closed.is_set()


async def test_an_answer_of_no_known_kind_ends_the_dialogue_as_the_peers_fault() -> None:
    async def nonsense(_requests: Any, _context: Any) -> AsyncIterator[Any]:
        yield scheduler_pb2.AnnouncePeerResponse()

    async with scheduler_of(RudeScheduler(nonsense)) as client:
        with pytest.raises(PeerError, match="no known kind"):
            await take_all(client.announce_peer(one_message_then_silence()))


async def test_a_server_that_crashes_in_the_middle_is_an_error_not_an_end() -> None:
    async def crash(requests: Any, _context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield scheduler_pb2.AnnouncePeerResponse(metadata_only_response=scheduler_pb2.MetadataOnlyResponse())
            message = "bug"
            raise RuntimeError(message)

    async with scheduler_of(RudeScheduler(crash)) as client:
        answers: list[Any] = []
        with pytest.raises(DarnerError):
            await take_all(client.announce_peer(one_message_then_silence()), answers)
        assert len(answers) == 1


async def test_a_server_that_stops_reading_ends_the_dialogue_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darner.client.calls.SEND_TIMEOUT_S", 0.5)

    async def deaf(_requests: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(())
        await asyncio.Event().wait()
        yield  # pragma: no cover

    async def talkative() -> AsyncIterator[Announced]:
        register = Register(download=Download(url="http://o/" + "f" * (1 << 20)))
        while True:
            yield Announced(host_id="h", task_id="t", peer_id="p", message=register)

    async with scheduler_of(RudeScheduler(deaf)) as client, asyncio.timeout(20):
        with pytest.raises(TimedOutError, match="took no message"):
            await take_all(client.announce_peer(talkative()))


async def test_a_server_that_vanishes_ends_the_dialogue() -> None:
    async def silence(_requests: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(())
        await asyncio.Event().wait()
        yield  # pragma: no cover

    face = RudeScheduler(silence)
    async with AsyncExitStack() as stack, asyncio.timeout(10):
        server = grpc.aio.server()
        scheduler_pb2_grpc.add_SchedulerServicer_to_server(face, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = SchedulerClient(f"127.0.0.1:{port}")
        stack.push_async_callback(client.close)
        talking = asyncio.ensure_future(take_all(client.announce_peer(one_message_then_silence())))
        await face.entered.wait()
        await server.stop(None)
        with pytest.raises(UnavailableError):
            await talking


async def test_a_thousand_messages_pass_in_order_on_each_of_many_dialogues() -> None:
    received: dict[str, list[int]] = {}

    async def count(requests: Any, _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            received.setdefault(request.peer_id, []).append(int(request.task_id))
        yield scheduler_pb2.AnnouncePeerResponse(empty_task_response=scheduler_pb2.EmptyTaskResponse())

    async def numbers(peer: str) -> AsyncIterator[Announced]:
        for number in range(1000):
            yield Announced(host_id="h", task_id=str(number), peer_id=peer, message=Started())

    async with scheduler_of(RudeScheduler(count)) as client, asyncio.timeout(60):
        ends = await asyncio.gather(*(take_all(client.announce_peer(numbers(f"p{index}"))) for index in range(8)))
    assert [len(end) for end in ends] == [1] * 8
    assert all(received[f"p{index}"] == list(range(1000)) for index in range(8))


class RudeDaemon(dfdaemon_pb2_grpc.DfdaemonUploadServicer):
    """Fails as upstream's daemon does, or offers pieces for ever."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def DownloadTask(self, _request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        yield dfdaemon_pb2.DownloadTaskResponse(download_task_started_response=dfdaemon_pb2.DownloadTaskStartedResponse())
        context.set_trailing_metadata((("grpc-status-details-bin", b'{"message":"nope","header":{"a":"b"},"status_code":403}'),))
        context.set_code(grpc.StatusCode.INTERNAL)
        context.set_details("download failed")

    async def SyncPieces(self, _request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802
        try:
            while True:
                yield dfdaemon_pb2.SyncPiecesResponse(number=1, ip="10.0.0.1", tcp_port=4005)
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture
async def rude_daemon() -> AsyncIterator[tuple[RudeDaemon, DaemonClient]]:
    server, face = grpc.aio.server(), RudeDaemon()
    dfdaemon_pb2_grpc.add_DfdaemonUploadServicer_to_server(face, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = DaemonClient(f"127.0.0.1:{port}")
    yield face, client
    await client.close()
    await server.stop(None)


async def test_an_origin_failure_in_upstreams_form_is_read_after_the_first_events(
    rude_daemon: tuple[RudeDaemon, DaemonClient],
) -> None:
    events: list[Any] = []
    with pytest.raises(OriginError, match="nope") as caught:
        await take_all(rude_daemon[1].download_task(Download(url="http://o/f")), events)
    assert (len(events), caught.value.status, caught.value.header) == (1, 403, {"a": "b"})


async def test_leaving_a_stream_of_offers_cancels_it_at_the_parent(rude_daemon: tuple[RudeDaemon, DaemonClient]) -> None:
    face, client = rude_daemon
    async with asyncio.timeout(10):
        async with aclosing(client.sync_pieces("h", "t", [1])) as offers:
            async for offer in offers:
                assert offer.tcp_port == 4005
                break
        await face.cancelled.wait()


async def test_a_call_the_server_does_not_know_says_so(rude_daemon: tuple[RudeDaemon, DaemonClient]) -> None:
    with pytest.raises(DarnerError, match="does not know this call"):
        await rude_daemon[1].stat_task("t")


async def test_calls_of_the_other_face_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    tcp, unix = DaemonClient("127.0.0.1:4000"), DaemonClient(f"unix:{tmp_path}/d.sock")
    for call in (
        tcp.list_local_tasks(),
        tcp.delete_local_task("t"),
        take_all(unix.sync_pieces("h", "t", [])),
        take_all(unix.sync_host("h", "p")),
    ):
        with pytest.raises(InvalidInputError, match="speak to the daemon's"):
            await call
    await tcp.close()
    await unix.close()


async def test_a_download_ends_at_its_deadline_and_a_piece_of_64_mib_passes(tmp_path: Path) -> None:
    content = bytes(64 << 20)
    async with serve(DaemonTwin(HOST, origin={"http://o/f": content}), f"unix:{tmp_path}/d.sock") as address:
        client = DaemonClient(address)
        wanted = Download(url="http://o/f", need_piece_content=True, piece_length=64 << 20)
        _, done = await take_all(client.download_task(wanted, timeout_s=60))
        assert len(done.what.content) == len(content)
        with pytest.raises(TimedOutError, match="did not answer in time"):
            await take_all(client.download_task(wanted, timeout_s=0.001))
        await client.close()
