"""What must survive being passed on, and what absent, empty and unknown mean."""

from dataclasses import replace

import pytest
from dragonfly_api import common_pb2, dfdaemon_pb2, manager_pb2, scheduler_pb2
from google.protobuf.message import Message

from darner.core.announce import Announced, CandidateParent, NormalTask, Reschedule
from darner.core.digest import Digest
from darner.core.errors import InvalidInputError, PeerError
from darner.core.host import Host
from darner.core.ids import HostId, task_id
from darner.core.piece import TrafficType
from darner.core.task import Download, Headers, TaskInfo
from darner.wire import common, dfdaemon, manager, scheduler

# field 1000 (length-delimited): "from the future"
FUTURE = b"\xc2\x3e\x0ffrom the future"


def of_a_newer_peer(message: Message) -> bytes:
    return message.SerializeToString() + FUTURE


HOST = Host(id=HostId("10.0.0.1-a"), ip="10.0.0.1", hostname="a", port=4000)


def test_a_field_of_a_newer_peer_survives_the_forwarding_of_a_download() -> None:
    received = common_pb2.Download.FromString(of_a_newer_peer(common_pb2.Download(url="http://o/f", output_path="/data/x")))
    download = common.download_from_pb(received)
    sent = common.download_to_pb(replace(download, output_path=None, need_back_to_source=True))
    assert FUTURE in sent.SerializeToString()
    assert not sent.HasField("output_path")
    assert sent.need_back_to_source


def test_what_a_download_has_but_the_value_does_not_survives_the_forwarding() -> None:
    received = common_pb2.Download(
        url="s3://bucket/key",
        certificate_chain=[b"der"],
        object_storage=common_pb2.ObjectStorage(region="r", access_key_secret="s", insecure_skip_verify=True),
        hdfs=common_pb2.HDFS(delegation_token="t"),
        model_scope=common_pb2.ModelScope(token="t", revision="v1"),
        scheduling_policy=common_pb2.ALWAYS,
    )
    assert common.download_to_pb(common.download_from_pb(received)) == received


def test_a_field_of_a_newer_peer_survives_in_a_host_and_its_numbers_that_we_do_not_read_too() -> None:
    message = common_pb2.Host(id="h", ip="10.0.0.1", hostname="h", port=4000, cpu=common_pb2.CPU(percent=12.5))
    message.memory.total, message.disk.inodes_free, message.network.tcp_connection_count = 7, 8, 9
    received = common_pb2.Host.FromString(of_a_newer_peer(message))
    sent = common.host_to_pb(common.host_from_pb(received))
    assert FUTURE in sent.SerializeToString()
    assert (sent.cpu.percent, sent.memory.total, sent.disk.inodes_free, sent.network.tcp_connection_count) == (12.5, 7, 8, 9)


def test_a_candidate_parent_goes_back_in_a_reschedule_byte_for_byte() -> None:
    peer = common_pb2.Peer(id="p", state="Running", priority=9, host=common.host_to_pb(HOST), cost=common.to_duration(0.125))  # type: ignore[arg-type]
    peer.task.id, peer.concurrent_piece_count = "t", 0
    raw = of_a_newer_peer(peer)
    answer = scheduler_pb2.AnnouncePeerResponse()
    answer.normal_task_response.candidate_parents.add().MergeFromString(raw)
    told = scheduler.answer_from_pb(scheduler_pb2.AnnouncePeerResponse.FromString(answer.SerializeToString()))
    assert isinstance(told, NormalTask)
    message = Reschedule(candidate_parents=told.candidate_parents, description="d")
    request = scheduler.announced_to_pb(Announced(host_id="h", task_id="t", peer_id="c", message=message))
    [parent] = request.reschedule_peer_request.candidate_parents
    assert parent.SerializeToString() == raw
    assert raw in request.SerializeToString()


def test_parents_without_a_host_are_left_out() -> None:
    answer = scheduler_pb2.AnnouncePeerResponse()
    answer.normal_task_response.candidate_parents.extend(
        [common_pb2.Peer(id="a"), common_pb2.Peer(id="b", host=common_pb2.Host(id="h"))]
    )
    told = scheduler.answer_from_pb(answer)
    assert isinstance(told, NormalTask)
    assert [parent.id for parent in told.candidate_parents] == ["b"]


def test_a_parent_of_our_own_names_its_task_and_keeps_all_its_host_announced() -> None:
    announced = common.host_to_pb(HOST)
    announced.cpu.percent = 12.5
    parent = CandidateParent(id="p", host=common.host_from_pb(announced), state="Succeeded")
    task = TaskInfo(id="t", url="http://o/f", state="Running", content_length=5, piece_count=1, created_at=1.5, updated_at=2.5)
    [peer] = scheduler.answer_to_pb(NormalTask(candidate_parents=(parent,)), task=task).normal_task_response.candidate_parents
    assert (peer.task.id, peer.task.url, peer.state, peer.host.cpu.percent) == ("t", "http://o/f", "Succeeded", 12.5)
    assert common.from_timestamp(peer.updated_at) == 2.5


def test_absent_and_zero_and_empty_stay_what_they_are() -> None:
    absent = common.download_from_pb(common_pb2.Download(url="u"))
    assert (absent.tag, absent.piece_length, absent.actual_content_length, absent.timeout_s, absent.range) == (None,) * 5
    empty = common_pb2.Download(url="u", tag="", piece_length=0, actual_content_length=0, concurrent_piece_count=0)
    empty.timeout.SetInParent()
    empty.range.SetInParent()
    download = common.download_from_pb(empty)
    assert (download.tag, download.piece_length, download.actual_content_length, download.timeout_s) == ("", 0, 0, 0.0)
    again = common.download_to_pb(download)
    assert all(again.HasField(name) for name in ("tag", "piece_length", "actual_content_length", "timeout", "range"))
    assert not common.download_to_pb(absent).HasField("tag")


def test_a_present_zero_of_a_host_stays_present() -> None:
    message = common_pb2.Host(id="h", network=common_pb2.Network(tx_bandwidth=0, idc=""))
    sent = common.host_to_pb(common.host_from_pb(message))
    assert sent.network.HasField("tx_bandwidth")
    assert sent.network.HasField("idc")
    assert not sent.network.HasField("rx_bandwidth")


@pytest.mark.parametrize(
    ("given", "revision"),
    [
        (common_pb2.Download(), None),
        (common_pb2.Download(hugging_face=common_pb2.HuggingFace(revision="")), ""),
        (common_pb2.Download(model_scope=common_pb2.ModelScope(revision="m"), open_csg=common_pb2.OpenCSG(revision="o")), "m"),
        (
            common_pb2.Download(model_scope=common_pb2.ModelScope(revision="m"), hugging_face=common_pb2.HuggingFace(revision="h")),
            "h",
        ),
    ],
)
def test_the_revision_is_that_of_the_first_hub_in_upstreams_order(given: common_pb2.Download, revision: str | None) -> None:
    assert common.download_from_pb(given).revision == revision


@pytest.mark.parametrize(
    ("url", "field"), [("hf://a/b", "hugging_face"), ("modelscope://a/b", "model_scope"), ("opencsg://a/b", "open_csg")]
)
def test_a_revision_of_our_own_goes_to_the_hub_that_the_url_names(url: str, field: str) -> None:
    message = common.download_to_pb(Download(url=url, revision="v2"))
    assert getattr(message, field).revision == "v2"
    assert common.download_from_pb(message).revision == "v2"


def test_a_forwarded_download_keeps_its_task_id() -> None:
    download = Download(
        url="http://o/f?b=2&a=1", tag="t", application="", piece_length=4 << 20, filtered_query_params=("a",), revision="r"
    )
    there = common.download_from_pb(common_pb2.Download.FromString(common.download_to_pb(download).SerializeToString()))
    assert task_id(there) == task_id(download)


def test_values_of_enums_that_we_do_not_know_never_raise() -> None:
    download = common_pb2.Download.FromString(b"\x20\x63\x38\x63\x98\x02\x63")  # type, priority and policy are 99
    read = common.download_from_pb(download)
    assert read.priority == 99
    assert common.download_to_pb(read) == download
    piece = common_pb2.Piece.FromString(b"\x38\x63")
    assert common.piece_from_pb(piece).traffic_type is TrafficType.REMOTE_PEER
    host = common_pb2.Host(id="h", type=99)
    assert common.host_from_pb(host).is_seed
    assert common.host_to_pb(common.host_from_pb(host)).type == 99
    task = common_pb2.Task.FromString(b"\x10\x63\x58\x63")
    assert common.task_from_pb(task).content_length is None
    query = manager_pb2.ListSchedulersRequest.FromString(b"\x08\x63")
    assert not manager.query_from_pb(query).seed
    application = manager_pb2.Application(priority=manager_pb2.ApplicationPriority(value=99))  # type: ignore[arg-type]
    assert manager.application_to_pb(manager.application_from_pb(application)).priority.value == 99


def test_traffic_that_is_not_told_is_not_taken_for_the_sources() -> None:
    assert common.piece_from_pb(common_pb2.Piece()).traffic_type is TrafficType.REMOTE_PEER
    assert common.piece_from_pb(common_pb2.Piece(traffic_type=common_pb2.BACK_TO_SOURCE)).traffic_type is TrafficType.BACK_TO_SOURCE


@pytest.mark.parametrize(
    ("length", "scope", "expected"),
    [
        (0, common_pb2.NORMAL, None),  # not told
        (0, common_pb2.EMPTY, 0),
        (2**64 - 1, common_pb2.NORMAL, None),  # -1 as Go writes it
        (7, 4, None),  # UNKNOW of Go
        (7, common_pb2.TINY, 7),
    ],
)
def test_an_unknown_length_is_never_taken_for_an_empty_content(length: int, scope: int, expected: int | None) -> None:
    task = common_pb2.Task(id="t", content_length=length)
    task.size_scope = scope  # type: ignore[assignment]
    assert common.task_from_pb(task).content_length == expected


def test_a_digest_that_we_could_not_check_is_refused_and_an_empty_one_is_none() -> None:
    with pytest.raises(InvalidInputError, match="expected one of"):
        common.download_from_pb(common_pb2.Download(url="u", digest="md5:" + "0" * 32))
    assert common.download_from_pb(common_pb2.Download(url="u", digest="")).digest is None
    loud = common_pb2.Download(url="u", digest="SHA256:" + "AB" * 32)
    assert common.download_from_pb(loud).digest == Digest("sha256", "ab" * 32)
    assert common.download_to_pb(common.download_from_pb(loud)).digest == loud.digest


def test_permission_to_skip_verification_travels_as_a_header_and_is_never_lost() -> None:
    sent = common.download_to_pb(Download(url="u", insecure_skip_verify=True, request_header=Headers({"a": "b"})))
    assert dict(sent.request_header) == {"a": "b", common.INSECURE_HEADER: "true"}
    read = common.download_from_pb(sent)
    assert read.insecure_skip_verify
    assert common.download_to_pb(read) == sent
    assert not common.download_from_pb(common_pb2.Download(request_header={common.INSECURE_HEADER: "false"})).insecure_skip_verify


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (scheduler_pb2.AnnouncePeerRequest(task_id="t", peer_id="p"), "host_id"),
        (scheduler_pb2.AnnouncePeerRequest(host_id="h", peer_id="p"), "task_id"),
        (scheduler_pb2.AnnouncePeerRequest(host_id="h", task_id="t"), "peer_id"),
        (scheduler_pb2.AnnouncePeerRequest(host_id="h", task_id="t", peer_id="p"), "request"),
        (
            scheduler_pb2.AnnouncePeerRequest(
                host_id="h", task_id="t", peer_id="p", register_peer_request=scheduler_pb2.RegisterPeerRequest()
            ),
            "register_peer_request.download",
        ),
        (
            scheduler_pb2.AnnouncePeerRequest(
                host_id="h", task_id="t", peer_id="p", download_piece_finished_request=scheduler_pb2.DownloadPieceFinishedRequest()
            ),
            "piece",
        ),
    ],
)
def test_an_announcement_that_lacks_a_part_is_refused_naming_it(request_: scheduler_pb2.AnnouncePeerRequest, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        scheduler.announced_from_pb(request_)
    assert caught.value.field == field


def test_answers_and_progress_of_no_known_kind_are_the_peers_fault() -> None:
    with pytest.raises(PeerError, match="no known kind"):
        scheduler.answer_from_pb(scheduler_pb2.AnnouncePeerResponse())
    with pytest.raises(PeerError, match="no known kind"):
        dfdaemon.event_from_pb(dfdaemon_pb2.DownloadTaskResponse(host_id="h"))


@pytest.mark.parametrize("features", [b"", b"null", b"{}", b"{", b"7", b"\xff", b'["a", 1]'])
def test_unreadable_features_do_not_spoil_a_scheduler(features: bytes) -> None:
    info = manager.scheduler_from_pb(manager_pb2.Scheduler(hostname="s", features=features))
    assert info.features in ((), ("a",))


def test_times_keep_what_a_float_holds() -> None:
    for unix_s in (0.0, 0.1, 1_700_000_000.123456, 1_999_999_999.9999998):
        assert common.from_timestamp(common.to_timestamp(unix_s)) == unix_s
    assert common.from_timestamp(common.to_timestamp(-0.25)) == -0.25
    assert common.from_duration(common.to_duration(1.650340239)) == 1.650340239
    assert common.to_duration(-1).seconds == 0
    assert common.to_duration(float("inf")).seconds == 315_576_000_000
