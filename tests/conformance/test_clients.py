"""One suite for every implementation of the client ports: the twins, and the gRPC clients against servers around twins."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Protocol

import pytest

from darner.client.dfdaemon import DaemonClient
from darner.client.manager import ManagerGrpcClient
from darner.client.ports import (
    Downloads,
    LocalTasks,
    Parent,
    SchedulerDirectory,
    SchedulerRegistration,
    Scheduling,
    Service,
    SwarmView,
)
from darner.client.scheduler import SchedulerClient
from darner.client.twin_servers import serve
from darner.client.twins import DaemonTwin, ManagerTwin, SchedulerTwin
from darner.core.announce import (
    Announced,
    BackToSourceFinished,
    BackToSourcePieceFinished,
    BackToSourceStarted,
    Finished,
    MetadataOnly,
    NeedBackToSource,
    NormalTask,
    PeerMessage,
    Register,
    Reschedule,
    SchedulerAnswer,
    Started,
)
from darner.core.errors import ConflictError, NotFoundError, OriginError, UnavailableError
from darner.core.fleet import ApplicationInfo, ClusterInfo, SchedulerInfo, SchedulerQuery
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.piece import MIN_PIECE_LENGTH, Piece, TrafficType
from darner.core.progress import DownloadStarted, PieceDone
from darner.core.ranges import ByteRange
from darner.core.task import Download

CHILD = Host(id=HostId("10.0.0.1-child"), ip="10.0.0.1", hostname="child", port=4000, max_tx_bandwidth=10**10)
SEED = Host(id=HostId("10.0.0.2-seed-seed"), ip="10.0.0.2", hostname="seed", port=4001, type=HostType.SUPER_SEED)
URL = "http://origin/file"
CONTENT = bytes(range(256)) * 4096 * 9  # 9 MiB: two whole pieces and a short one
TASK = "a" * 64


class SchedulerPort(Service, Scheduling, SwarmView, Protocol):
    """All a scheduler's client offers."""


class DaemonPort(Service, Downloads, LocalTasks, Parent, Protocol):
    """All a daemon's client offers."""


class ManagerPort(Service, SchedulerDirectory, SchedulerRegistration, Protocol):
    """All a manager's client offers."""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def scheduler_twin() -> SchedulerTwin:
    return SchedulerTwin()


@pytest.fixture(params=["twin", "grpc"])
async def scheduler(request: pytest.FixtureRequest, scheduler_twin: SchedulerTwin, stack: AsyncExitStack) -> SchedulerPort:
    if request.param == "twin":
        return scheduler_twin
    client = SchedulerClient(await stack.enter_async_context(serve(scheduler_twin)))
    stack.push_async_callback(client.close)
    return client


@pytest.fixture
def daemon_twin() -> DaemonTwin:
    return DaemonTwin(SEED, origin={URL: CONTENT})


async def open_daemon(kind: str, twin: DaemonTwin, stack: AsyncExitStack, directory: Path) -> DaemonPort:
    if kind == "twin":
        return twin
    place = f"unix:{directory}/d.sock" if kind == "unix" else "127.0.0.1:0"
    client = DaemonClient(await stack.enter_async_context(serve(twin, place)))
    stack.push_async_callback(client.close)
    return client


@pytest.fixture(params=["twin", "unix", "tcp"])
async def daemon(request: pytest.FixtureRequest, daemon_twin: DaemonTwin, stack: AsyncExitStack, tmp_path: Path) -> DaemonPort:
    return await open_daemon(request.param, daemon_twin, stack, tmp_path)


@pytest.fixture(params=["twin", "unix"])
async def local_daemon(
    request: pytest.FixtureRequest, daemon_twin: DaemonTwin, stack: AsyncExitStack, tmp_path: Path
) -> DaemonPort:
    return await open_daemon(request.param, daemon_twin, stack, tmp_path)


@pytest.fixture(params=["twin", "tcp"])
async def parent(request: pytest.FixtureRequest, daemon_twin: DaemonTwin, stack: AsyncExitStack, tmp_path: Path) -> DaemonPort:
    return await open_daemon(request.param, daemon_twin, stack, tmp_path)


@pytest.fixture
def manager_twin() -> ManagerTwin:
    cluster = ClusterInfo(id=7, name="c", bio="b", config=b'{"candidateParentLimit":4}', client_config=b'{"a":1}', scopes=b"{}")
    applications = [ApplicationInfo(id=3, name="app", url="http://x", bio="y", priority=4, urls=((r"blobs/sha256.*", 5),))]
    return ManagerTwin(cluster=cluster, applications=applications)


@pytest.fixture(params=["twin", "grpc"])
async def manager(request: pytest.FixtureRequest, manager_twin: ManagerTwin, stack: AsyncExitStack) -> ManagerPort:
    if request.param == "twin":
        return manager_twin
    client = ManagerGrpcClient(await stack.enter_async_context(serve(manager_twin)))
    stack.push_async_callback(client.close)
    return client


# --- schedulers ------------------------------------------------------------------------------------------------------------------


def says(host: Host, message: PeerMessage, *, peer: str = "peer") -> Announced:
    return Announced(host_id=host.id, task_id=TASK, peer_id=f"{host.id}-{peer}", message=message)


async def talk(scheduler: Scheduling, host: Host, *messages: PeerMessage) -> list[SchedulerAnswer]:
    async def spoken() -> AsyncIterator[Announced]:
        for message in messages:
            yield says(host, message)

    return [answer async for answer in scheduler.announce_peer(spoken())]


async def fill_from_origin(scheduler: Scheduling, host: Host) -> None:
    download = Download(url=URL, need_back_to_source=True, actual_content_length=5, actual_piece_count=1)
    piece = Piece(number=0, offset=0, length=5, digest="blake3:" + "ab" * 32, traffic_type=TrafficType.BACK_TO_SOURCE, cost_s=0.5)
    done = BackToSourcePieceFinished(piece=piece)
    answers = await talk(scheduler, host, Register(download=download), BackToSourceStarted(), done, BackToSourceFinished())
    assert answers == [NeedBackToSource(description="no peer holds the task")]


async def test_an_announced_host_is_listed_with_its_type_and_gone_after_deletion(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(CHILD, 300)
    await scheduler.announce_host(SEED, 300)
    assert sorted(host.id for host in await scheduler.list_hosts()) == [CHILD.id, SEED.id]
    assert await scheduler.list_hosts(0) == [CHILD]
    assert await scheduler.list_hosts(1) == [SEED]
    await scheduler.delete_host(SEED.id)
    assert await scheduler.list_hosts() == [CHILD]
    with pytest.raises(NotFoundError, match="is not known"):
        await scheduler.delete_host(SEED.id)


async def test_a_second_peer_is_given_the_first_as_parent(scheduler: SchedulerPort) -> None:
    for host in (CHILD, SEED):
        await scheduler.announce_host(host, 300)
    await fill_from_origin(scheduler, SEED)
    [answer] = await talk(scheduler, CHILD, Register(download=Download(url=URL)), Started(), Finished())
    assert isinstance(answer, NormalTask)
    assert [(parent.id, parent.host) for parent in answer.candidate_parents] == [(f"{SEED.id}-peer", SEED)]


async def test_what_the_source_peer_reported_is_what_stat_task_tells(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(SEED, 300)
    await fill_from_origin(scheduler, SEED)
    task = await scheduler.stat_task(CHILD.id, TASK)
    assert (task.content_length, task.piece_count, task.has_available_peer) == (5, 1, True)
    assert [piece.digest for piece in task.pieces] == ["blake3:" + "ab" * 32]
    with pytest.raises(NotFoundError, match="b" * 64):
        await scheduler.stat_task(CHILD.id, "b" * 64)


async def test_a_deleted_task_has_no_parents_left(scheduler: SchedulerPort) -> None:
    for host in (CHILD, SEED):
        await scheduler.announce_host(host, 300)
    await fill_from_origin(scheduler, SEED)
    await scheduler.delete_task(SEED.id, TASK)
    assert await talk(scheduler, CHILD, Register(download=Download(url=URL))) == [
        NeedBackToSource(description="no peer holds the task")
    ]


async def test_metadata_only_is_answered_as_such(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(SEED, 300)
    answers = await talk(scheduler, SEED, Register(download=Download(url=URL, metadata_only=True)), Started(), Finished())
    assert answers == [MetadataOnly()]


async def test_answers_arrive_while_messages_are_still_being_sent(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(CHILD, 300)
    messages: asyncio.Queue[PeerMessage] = asyncio.Queue()
    kinds = []

    async def spoken() -> AsyncIterator[Announced]:
        while True:
            yield says(CHILD, await messages.get())

    messages.put_nowait(Register(download=Download(url=URL)))
    async with aclosing(scheduler.announce_peer(spoken())) as answers:
        async for answer in answers:
            kinds.append(type(answer))
            messages.put_nowait(Reschedule() if len(kinds) < 3 else Finished())
    assert kinds == [NeedBackToSource] * 3


async def test_messages_are_taken_while_an_answer_is_being_handled(scheduler: SchedulerPort, scheduler_twin: SchedulerTwin) -> None:
    await scheduler.announce_host(CHILD, 300)
    messages: asyncio.Queue[PeerMessage] = asyncio.Queue(maxsize=1)

    async def spoken() -> AsyncIterator[Announced]:
        while True:
            yield says(CHILD, await messages.get())

    await messages.put(Register(download=Download(url=URL)))
    async with aclosing(scheduler.announce_peer(spoken())) as answers:
        async for _ in answers:
            for _ in range(20):
                await messages.put(Started())
            await messages.put(Finished())
    assert [type(heard.message) for heard in scheduler_twin.heard] == [Register, *[Started] * 20, Finished]


async def test_the_end_by_the_scheduler_ends_the_dialogue_although_the_messages_wait(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(CHILD, 300)
    closed = asyncio.Event()

    async def spoken() -> AsyncIterator[Announced]:
        try:
            yield says(CHILD, Register(download=Download(url=URL)))
            yield says(CHILD, BackToSourceFinished())
            await asyncio.Event().wait()
        finally:
            closed.set()

    assert len([answer async for answer in scheduler.announce_peer(spoken())]) == 1
    assert closed.is_set()


async def test_an_error_of_the_scheduler_arrives_although_the_messages_wait(scheduler: SchedulerPort) -> None:
    async def spoken() -> AsyncIterator[Announced]:
        yield says(CHILD, Register(download=Download(url=URL)))
        await asyncio.Event().wait()

    with pytest.raises(NotFoundError, match="announce it first"):
        _ = [answer async for answer in scheduler.announce_peer(spoken())]


async def test_an_exception_of_the_messages_is_raised_to_the_reader(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(CHILD, 300)

    async def spoken() -> AsyncIterator[Announced]:
        yield says(CHILD, Register(download=Download(url=URL)))
        raise ConflictError("the download was taken over")

    with pytest.raises(ConflictError, match="taken over"):
        _ = [answer async for answer in scheduler.announce_peer(spoken())]


async def test_a_hundred_dialogues_run_at_once(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(CHILD, 300)
    together = asyncio.Barrier(100)

    async def dialogue(number: int) -> int:
        async def spoken() -> AsyncIterator[Announced]:
            yield says(CHILD, Register(download=Download(url=URL)), peer=str(number))
            await together.wait()
            yield says(CHILD, BackToSourceFinished(), peer=str(number))

        return len([answer async for answer in scheduler.announce_peer(spoken())])

    assert await asyncio.gather(*map(dialogue, range(100))) == [1] * 100


async def test_leaving_a_dialogue_early_closes_its_messages(scheduler: SchedulerPort) -> None:
    await scheduler.announce_host(CHILD, 300)
    closed = asyncio.Event()

    async def spoken() -> AsyncIterator[Announced]:
        try:
            yield says(CHILD, Register(download=Download(url=URL)))
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with aclosing(scheduler.announce_peer(spoken())) as answers:
        async for _ in answers:
            break
    assert closed.is_set()


# --- daemons ---------------------------------------------------------------------------------------------------------------------


async def download(daemon: Downloads, **options: object) -> tuple[str, DownloadStarted, list[PieceDone]]:
    events = [event async for event in daemon.download_task(Download(url=URL, **options), timeout_s=60)]  # type: ignore[arg-type]
    started, *pieces = (event.what for event in events)
    assert isinstance(started, DownloadStarted)
    assert {event.host_id for event in events} == {SEED.id}
    return events[0].task_id, started, [piece for piece in pieces if isinstance(piece, PieceDone)]


async def test_a_download_tells_its_length_and_then_every_piece(daemon: DaemonPort) -> None:
    task_id, started, pieces = await download(daemon)
    assert (started.content_length, started.is_finished) == (len(CONTENT), False)
    assert [(done.piece.number, done.piece.length) for done in pieces] == [(0, 4 << 20), (1, 4 << 20), (2, 1 << 20)]
    assert {done.content for done in pieces} == {None}
    local = await daemon.stat_local_task(task_id)
    assert (local.content_length, local.piece_length, local.finished_at) == (len(CONTENT), MIN_PIECE_LENGTH, 1_700_000_000.0)
    assert (await daemon.stat_task(task_id)).url == URL


async def test_the_bytes_of_whole_pieces_travel_in_the_stream_when_wanted(daemon: DaemonPort) -> None:
    _, _, pieces = await download(daemon, need_piece_content=True)
    assert b"".join(done.content or b"" for done in pieces) == CONTENT


async def test_a_range_names_only_the_pieces_that_overlap_it(daemon: DaemonPort) -> None:
    span = ByteRange(start=(4 << 20) + 1, length=1)
    _, started, pieces = await download(daemon, range=span)
    assert started.range == span
    assert [done.piece.number for done in pieces] == [1]


async def test_what_the_origin_answered_reaches_the_asker(daemon: DaemonPort) -> None:
    with pytest.raises(OriginError, match="404 Not Found") as caught:
        _ = [event async for event in daemon.download_task(Download(url="http://origin/none"))]
    assert caught.value.status == 404
    assert caught.value.header == {"content-type": "text/plain"}


async def test_a_deleted_task_is_no_longer_known(daemon: DaemonPort) -> None:
    task_id, _, _ = await download(daemon)
    await daemon.delete_task(task_id)
    for ask in (daemon.stat_local_task, daemon.stat_task, daemon.delete_task):
        with pytest.raises(NotFoundError, match=task_id):
            await ask(task_id)


async def test_leaving_a_download_early_is_no_error(daemon: DaemonPort) -> None:
    async with aclosing(daemon.download_task(Download(url=URL))) as events:
        async for _ in events:
            break
    assert await daemon.healthy()


async def test_local_tasks_are_listed_and_deleted_one_by_one(local_daemon: DaemonPort) -> None:
    assert await local_daemon.list_local_tasks() == []
    task_id, _, _ = await download(local_daemon)
    assert [task.id for task in await local_daemon.list_local_tasks()] == [task_id]
    await local_daemon.delete_local_task(task_id)
    assert await local_daemon.list_local_tasks() == []


async def test_a_parent_offers_the_pieces_asked_for(parent: DaemonPort) -> None:
    task_id, _, _ = await download(parent)
    offers = [offer async for offer in parent.sync_pieces(CHILD.id, task_id, [2, 0])]
    assert [(offer.number, offer.offset, offer.length, offer.ip, offer.tcp_port) for offer in offers] == [
        (0, 0, 4 << 20, SEED.ip, SEED.port),
        (2, 8 << 20, 1 << 20, SEED.ip, SEED.port),
    ]
    with pytest.raises(NotFoundError):
        _ = [offer async for offer in parent.sync_pieces(CHILD.id, TASK, [0])]


async def test_a_parent_tells_its_bandwidths_until_the_child_leaves(parent: DaemonPort) -> None:
    hosts = []
    async with aclosing(parent.sync_host(CHILD.id, "peer")) as told:
        async for host in told:
            hosts.append(host)
            if len(hosts) == 3:
                break
    assert hosts == [SEED] * 3


# --- managers --------------------------------------------------------------------------------------------------------------------

SCHEDULER = SchedulerInfo(id=0, hostname="s-1", ip="10.0.0.9", port=8002, scheduler_cluster_id=7, idc="i", location="a|b")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (the twin behind the wire has no event to wait for)
            await asyncio.sleep(0.005)


async def test_a_scheduler_is_listed_only_while_it_says_that_it_lives(manager: ManagerPort, manager_twin: ManagerTwin) -> None:
    registered = await manager.update_scheduler(SCHEDULER, b'{"x":1}')
    assert (registered.id, registered.state, manager_twin.configs) == (1, "inactive", {1: b'{"x":1}'})
    query = SchedulerQuery(hostname="d", ip="10.0.0.1", version="1", seed=True)
    assert await manager.list_schedulers(query) == []
    living = asyncio.ensure_future(manager.keep_alive("s-1", "10.0.0.9", 7, 0.01))
    await until(lambda: manager_twin.beats >= 3)
    [listed] = await manager.list_schedulers(query)
    assert (listed.ip, listed.port, listed.location, listed.cluster) == ("10.0.0.9", 8002, "a|b", manager_twin.cluster)
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living
    await until(lambda: manager_twin.schedulers["s-1", "10.0.0.9", 7].state == "inactive")


async def test_a_manager_that_does_not_know_the_scheduler_ends_its_heartbeats(manager: ManagerPort) -> None:
    with pytest.raises(NotFoundError, match="not registered"):
        await manager.keep_alive("s-2", "10.0.0.9", 7, 0.01)
    with pytest.raises(NotFoundError, match="not registered"):
        await manager.get_scheduler("s-2", "10.0.0.9", 7)


async def test_a_scheduler_reads_its_cluster_and_the_applications(manager: ManagerPort, manager_twin: ManagerTwin) -> None:
    await manager.update_scheduler(SCHEDULER, b"{}")
    assert (await manager.get_scheduler("s-1", "10.0.0.9", 7)).cluster == manager_twin.cluster
    assert await manager.list_applications("s-1", "10.0.0.9") == manager_twin.applications


# --- all of them -----------------------------------------------------------------------------------------------------------------


async def test_a_closed_client_says_so(scheduler: SchedulerPort, daemon: DaemonPort, manager: ManagerPort) -> None:
    for service in (scheduler, daemon, manager):
        assert await service.healthy()
        await service.close()
        assert not await service.healthy()
    with pytest.raises(UnavailableError, match="is closed"):
        await scheduler.list_hosts()
    with pytest.raises(UnavailableError, match="is closed"):
        await daemon.stat_task(TASK)
    with pytest.raises(UnavailableError, match="is closed"):
        await manager.list_applications("s", "10.0.0.1")
