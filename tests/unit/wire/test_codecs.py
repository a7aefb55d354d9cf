"""Every codec gives back what it was given, whatever the values."""

import contextlib
from dataclasses import replace
from typing import Any

from dragonfly_api import scheduler_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from darner.core.announce import (
    Announced,
    BackToSourceFailed,
    BackToSourceFinished,
    BackToSourcePieceFailed,
    BackToSourcePieceFinished,
    BackToSourceStarted,
    CandidateParent,
    EmptyTask,
    Failed,
    Finished,
    MetadataOnly,
    NeedBackToSource,
    NormalTask,
    PieceFailed,
    PieceFinished,
    Register,
    Reschedule,
    Started,
)
from darner.core.digest import Digest
from darner.core.errors import InvalidInputError
from darner.core.fleet import ApplicationInfo, ClusterInfo, SchedulerInfo, SchedulerQuery
from darner.core.host import Host, HostType
from darner.core.piece import Piece, TrafficType
from darner.core.progress import DownloadEvent, DownloadStarted, PieceDone, PieceOffer
from darner.core.ranges import ByteRange
from darner.core.task import Download, Headers, LocalTask, TaskInfo
from darner.wire import common, dfdaemon, manager, scheduler

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**63 - 1)
PORT = st.integers(0, 65535)
# protobuf strings are UTF-8: lone surrogates do not exist there
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
HEADERS = st.dictionaries(TEXT, TEXT, max_size=3).map(Headers)
# whole nanoseconds, as the wire holds them
SECONDS = st.integers(0, 10**15).map(lambda nanos: nanos / 10**9)
UNIX = st.floats(1e9, 4e9)
RANGES = st.builds(ByteRange, start=U64, length=U64)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
DIGESTS = st.one_of(HEX.map(lambda value: Digest("sha256", value)), U32.map(lambda value: Digest("crc32", str(value))))
PIECE_DIGESTS = st.one_of(U32.map(lambda value: f"crc32:{value}"), HEX.map(lambda value: f"blake3:{value}"), st.just(""))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


PIECES = st.builds(
    Piece,
    number=U32,
    offset=U64,
    length=U64,
    digest=PIECE_DIGESTS,
    parent_id=TEXT,
    traffic_type=st.sampled_from(TrafficType),
    cost_s=SECONDS,
    created_at=UNIX,
)
DOWNLOADS = st.builds(
    Download,
    url=TEXT,
    digest=maybe(DIGESTS),
    range=maybe(RANGES),
    tag=maybe(TEXT),
    application=maybe(TEXT),
    revision=maybe(TEXT),
    priority=st.integers(0, 6),
    filtered_query_params=st.lists(TEXT, max_size=3).map(tuple),
    request_header=HEADERS,
    piece_length=maybe(U64),
    output_path=maybe(TEXT),
    timeout_s=maybe(SECONDS),
    disable_back_to_source=st.booleans(),
    need_back_to_source=st.booleans(),
    prefetch=st.booleans(),
    is_prefetch=st.booleans(),
    need_piece_content=st.booleans(),
    force_hard_link=st.booleans(),
    overwrite=st.booleans(),
    content_for_calculating_task_id=maybe(TEXT),
    enable_task_id_based_blob_digest=st.booleans(),
    remote_ip=maybe(TEXT),
    concurrent_piece_count=maybe(U32),
    actual_piece_length=maybe(U64),
    actual_content_length=maybe(U64),
    actual_piece_count=maybe(U64),
    metadata_only=st.booleans(),
)
HOSTS = st.builds(
    Host,
    id=TEXT,
    ip=TEXT,
    hostname=TEXT,
    port=PORT,
    type=st.sampled_from(HostType),
    download_port=PORT,
    proxy_port=PORT,
    name=TEXT,
    os=TEXT,
    platform=TEXT,
    kernel_version=TEXT,
    idc=TEXT,
    location=TEXT,
    max_tx_bandwidth=U64,
    tx_bandwidth=U64,
    max_rx_bandwidth=U64,
    rx_bandwidth=U64,
    disk_total=U64,
    disk_free=U64,
    scheduler_cluster_id=U64,
    disable_shared=st.booleans(),
    build_version=TEXT,
)
CANDIDATES = st.builds(CandidateParent, id=TEXT, host=HOSTS, state=NAME)


def tasks() -> st.SearchStrategy[TaskInfo]:
    lengths = st.one_of(st.just((None, None)), st.just((0, 0)), st.tuples(st.integers(1, 2**63 - 1), st.integers(1, 2**32 - 1)))
    return st.builds(
        lambda length, **rest: TaskInfo(content_length=length[0], piece_count=length[1], **rest),
        length=lengths,
        id=TEXT,
        url=TEXT,
        state=TEXT,
        digest=maybe(TEXT),
        tag=maybe(TEXT),
        application=maybe(TEXT),
        filtered_query_params=st.lists(TEXT, max_size=3).map(tuple),
        request_header=HEADERS,
        pieces=st.lists(PIECES, max_size=3).map(tuple),
        peer_count=U32,
        has_available_peer=st.booleans(),
        created_at=UNIX,
        updated_at=UNIX,
    )


PEER_MESSAGES = st.one_of(
    st.builds(Register, download=DOWNLOADS),
    st.just(Started()),
    st.builds(BackToSourceStarted, description=TEXT),
    st.builds(Reschedule, candidate_parents=st.lists(CANDIDATES, max_size=2).map(tuple), description=TEXT),
    st.just(Finished()),
    st.just(BackToSourceFinished()),
    st.builds(Failed, description=TEXT),
    st.builds(BackToSourceFailed, description=TEXT),
    st.builds(PieceFinished, piece=PIECES),
    st.builds(BackToSourcePieceFinished, piece=PIECES),
    st.builds(PieceFailed, parent_id=TEXT, piece_number=maybe(U32), temporary=st.booleans()),
    st.builds(BackToSourcePieceFailed, piece_number=maybe(U32), message=TEXT, status_code=maybe(st.integers(0, 599))),
)
ANNOUNCED = st.builds(Announced, host_id=NAME, task_id=NAME, peer_id=NAME, message=PEER_MESSAGES)
ANSWERS = st.one_of(
    st.builds(EmptyTask, certain=st.booleans()),
    st.builds(NormalTask, candidate_parents=st.lists(CANDIDATES, max_size=2).map(tuple)),
    st.builds(NeedBackToSource, description=TEXT),
    st.just(MetadataOnly()),
)
STARTED = st.builds(
    DownloadStarted,
    content_length=U64,
    range=maybe(RANGES),
    response_header=HEADERS,
    pieces=st.lists(PIECES, max_size=2).map(tuple),
    is_finished=st.booleans(),
)
DONE = st.builds(PieceDone, piece=PIECES, content=maybe(st.binary(max_size=9)))
EVENTS = st.builds(DownloadEvent, host_id=TEXT, task_id=TEXT, peer_id=TEXT, what=st.one_of(STARTED, DONE))
OFFERS = st.builds(PieceOffer, number=U32, offset=U64, length=U64, ip=TEXT, tcp_port=PORT, quic_port=PORT)
LOCAL_TASKS = st.builds(
    LocalTask,
    id=TEXT,
    piece_length=maybe(U64),
    content_length=maybe(U64),
    response_header=HEADERS,
    uploading_count=U64,
    uploaded_count=U64,
    created_at=UNIX,
    updated_at=UNIX,
    prefetched_at=maybe(UNIX),
    failed_at=maybe(UNIX),
    finished_at=maybe(UNIX),
)
CLUSTERS = st.builds(
    ClusterInfo,
    id=U64,
    name=TEXT,
    bio=TEXT,
    config=st.binary(max_size=9),
    client_config=st.binary(max_size=9),
    seed_client_config=st.binary(max_size=9),
    scopes=st.binary(max_size=9),
)
SCHEDULERS = st.builds(
    SchedulerInfo,
    id=U64,
    hostname=TEXT,
    ip=TEXT,
    port=PORT,
    scheduler_cluster_id=U64,
    state=TEXT,
    idc=TEXT,
    location=TEXT,
    features=st.lists(TEXT, max_size=3).map(tuple),
    cluster=maybe(CLUSTERS),
)
QUERIES = st.builds(
    SchedulerQuery,
    hostname=TEXT,
    ip=TEXT,
    seed=st.booleans(),
    idc=TEXT,
    location=TEXT,
    version=TEXT,
    scheduler_cluster_id=U64,
)
APPLICATIONS = st.builds(
    ApplicationInfo,
    id=U64,
    name=TEXT,
    url=TEXT,
    bio=TEXT,
    priority=st.integers(0, 6),
    urls=st.lists(st.tuples(TEXT, st.integers(0, 6)), max_size=3).map(tuple),
)


def through_the_wire(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@given(DOWNLOADS)
def test_a_download_comes_back_as_it_went(download: Download) -> None:
    assert common.download_from_pb(through_the_wire(common.download_to_pb(download))) == download


@given(DOWNLOADS, DOWNLOADS)
def test_what_a_download_says_wins_over_what_it_carries(download: Download, other: Download) -> None:
    carried = common.download_to_pb(other).SerializeToString()
    assert common.download_from_pb(common.download_to_pb(replace(download, carried=carried))) == download


@given(HOSTS, HOSTS)
def test_what_a_host_says_wins_over_what_it_carries(host: Host, other: Host) -> None:
    carried = common.host_to_pb(other).SerializeToString()
    assert common.host_from_pb(common.host_to_pb(replace(host, carried=carried))) == host


@given(HOSTS)
def test_a_host_comes_back_as_it_went(host: Host) -> None:
    assert common.host_from_pb(through_the_wire(common.host_to_pb(host))) == host


@given(PIECES)
def test_a_piece_comes_back_as_it_went_with_the_times_go_demands(piece: Piece) -> None:
    message = through_the_wire(common.piece_to_pb(piece))
    assert common.piece_from_pb(message) == piece
    assert message.HasField("cost")
    assert message.HasField("created_at")


@given(tasks())
def test_a_task_comes_back_as_it_went(task: TaskInfo) -> None:
    assert common.task_from_pb(through_the_wire(common.task_to_pb(task))) == task


@given(CANDIDATES)
def test_a_candidate_parent_comes_back_as_it_went_with_all_that_go_demands(candidate: CandidateParent) -> None:
    message = through_the_wire(common.candidate_to_pb(candidate))
    assert common.candidate_from_pb(message) == candidate
    assert all(message.HasField(name) for name in ("cost", "task", "host", "created_at", "updated_at"))
    assert all((message.state, message.task.id, message.task.state, ":" in message.task.url))
    assert all(message.task.HasField(name) for name in ("created_at", "updated_at"))


@given(ANNOUNCED)
def test_an_announcement_comes_back_as_it_went(announced: Announced) -> None:
    message = through_the_wire(scheduler.announced_to_pb(announced))
    assert scheduler.announced_from_pb(message) == announced


@given(ANSWERS)
def test_an_answer_comes_back_as_it_went(answer: Any) -> None:
    assert scheduler.answer_from_pb(through_the_wire(scheduler.answer_to_pb(answer))) == answer


@given(EVENTS)
def test_progress_comes_back_as_it_went(event: DownloadEvent) -> None:
    assert dfdaemon.event_from_pb(through_the_wire(dfdaemon.event_to_pb(event))) == event


@given(OFFERS)
def test_an_offer_comes_back_as_it_went_with_all_six_fields(offer: PieceOffer) -> None:
    message = through_the_wire(dfdaemon.offer_to_pb(offer))
    assert dfdaemon.offer_from_pb(message) == offer
    assert message.HasField("tcp_port")
    assert message.HasField("quic_port")


@given(LOCAL_TASKS)
def test_a_local_task_comes_back_as_it_went(task: LocalTask) -> None:
    assert dfdaemon.local_task_from_pb(through_the_wire(dfdaemon.local_task_to_pb(task))) == task


@given(SCHEDULERS)
def test_a_scheduler_comes_back_as_it_went(info: SchedulerInfo) -> None:
    assert manager.scheduler_from_pb(through_the_wire(manager.scheduler_to_pb(info))) == info


@given(SCHEDULERS, st.binary(max_size=9))
def test_an_update_comes_back_as_it_went_but_for_what_the_manager_decides(info: SchedulerInfo, config: bytes) -> None:
    read, read_config = manager.update_from_pb(through_the_wire(manager.update_to_pb(info, config)))
    assert read_config == config
    for name in ("hostname", "ip", "port", "scheduler_cluster_id", "idc", "location", "features"):
        assert getattr(read, name) == getattr(info, name)


@given(QUERIES)
def test_a_query_comes_back_as_it_went(query: SchedulerQuery) -> None:
    assert manager.query_from_pb(through_the_wire(manager.query_to_pb(query))) == query


@given(APPLICATIONS)
def test_an_application_comes_back_as_it_went(application: ApplicationInfo) -> None:
    assert manager.application_from_pb(through_the_wire(manager.application_to_pb(application))) == application


@given(st.floats(-1e12, 1e12) | st.sampled_from([float("inf"), float("nan"), float("-inf")]))
def test_any_time_can_be_sent(seconds: float) -> None:
    common.from_timestamp(through_the_wire(common.to_timestamp(seconds)))
    common.to_timestamp(seconds).ToJsonString()  # refuses what lies outside the type
    common.to_duration(seconds).ToJsonString()


@given(ANNOUNCED, st.data())
def test_damaged_announcements_are_decoded_or_refused_by_name(announced: Announced, data: st.DataObject) -> None:
    raw = bytearray(scheduler.announced_to_pb(announced).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = scheduler_pb2.AnnouncePeerRequest.FromString(bytes(raw))
    except DecodeError:
        return  # never reaches a codec
    with contextlib.suppress(InvalidInputError):
        scheduler.announced_from_pb(message)
