import os
import zlib
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from darner.core.announce import CandidateParent
from darner.core.digest import Digest
from darner.core.errors import ConflictError, DigestMismatchError, InvalidInputError, NotFoundError, OriginError
from darner.core.host import Host
from darner.core.ids import HostId
from darner.core.piece import MIN_PIECE_LENGTH
from darner.core.progress import PieceOffer
from darner.core.ranges import ByteRange
from darner.core.task import Download, Headers, LocalTask
from darner.daemon.board import Board, Facts
from darner.daemon.config import DaemonConfig
from darner.daemon.cutter import CutPiece, Cutter
from darner.daemon.digests import RunningDigest, file_digest
from darner.daemon.host import network_bytes
from darner.daemon.output import check_output, copy_range
from darner.daemon.parents import ContradictionError, check_offer, facts_of
from darner.daemon.work import registration, wanted_range, whole_digest
from darner.kit.config import load

FACTS = Facts(content_length=25, piece_length=10, header=Headers())


@given(st.binary(min_size=25, max_size=25), st.lists(st.integers(1, 9), min_size=1))
def test_a_stream_is_cut_into_pieces_however_it_is_chunked(content: bytes, sizes: list[int]) -> None:
    fd = os.memfd_create("cut")
    cut: list[CutPiece] = []
    cutter = Cutter(fd, FACTS, cut.append)
    at = turn = 0
    while at < len(content):
        size = sizes[turn % len(sizes)]
        cutter.write(memoryview(content)[at : at + size])
        at, turn = at + size, turn + 1
    assert os.pread(fd, 100, 0) == content
    os.close(fd)
    parts = [content[:10], content[10:20], content[20:]]
    assert [(piece.number, piece.fetched.length, piece.fetched.crc32, piece.fetched.blake3) for piece in cut] == [
        (number, len(part), zlib.crc32(part), blake3(part).digest()) for number, part in enumerate(parts)
    ]


def test_a_stream_that_is_too_long_is_an_error() -> None:
    fd = os.memfd_create("cut")
    with pytest.raises(OriginError, match="more than the 25 bytes"):
        Cutter(fd, FACTS, lambda _: None).write(memoryview(bytes(26)))
    os.close(fd)


def test_a_digest_may_follow_a_file_in_steps() -> None:
    fd = os.memfd_create("digest")
    os.write(fd, b"abc" * 1000)
    running = RunningDigest("sha256")
    for stop in (1, 700, 3000):
        running.read_to(fd, stop)
    assert running.digest() == file_digest(fd, 3000, "sha256")
    with pytest.raises(DigestMismatchError, match="ends after 3000"):
        running.read_to(fd, 3001)
    os.close(fd)


def test_a_board_tells_whether_a_part_or_all_is_here() -> None:
    board = Board()
    assert not board.holds(None)
    board.learn(FACTS)
    assert list(FACTS.numbers(ByteRange(start=9, length=2))) == [0, 1]
    assert not board.holds(ByteRange(start=0, length=1))


def test_a_range_comes_from_the_field_or_the_header() -> None:
    header = Headers({"Range": "bytes=-5"})
    assert wanted_range(Download(url="u", request_header=header), 25) == ByteRange(start=20, length=5)
    field = ByteRange(start=1, length=2)
    assert wanted_range(Download(url="u", request_header=header, range=field), 25) == field
    assert wanted_range(Download(url="u"), 25) is None


def test_the_digest_of_a_whole_is_the_askers_or_the_blobs() -> None:
    url = "https://r.example/v2/a/b/blobs/sha256:" + "c" * 64
    assert whole_digest(Download(url=url)) is None
    assert whole_digest(Download(url=url, enable_task_id_based_blob_digest=True)) == Digest("sha256", "c" * 64)


def test_a_registration_tells_lengths_as_far_as_known_and_never_the_output() -> None:
    download = Download(url="u", output_path="/x")
    known = registration(download, content_length=25, piece_length=10, concurrent=4)
    assert (known.actual_content_length, known.actual_piece_length, known.actual_piece_count, known.output_path) == (
        25,
        10,
        3,
        None,
    )
    assert registration(download, content_length=None, piece_length=None, concurrent=4).actual_piece_count is None


def test_impossible_facts_of_a_parent_are_refused() -> None:
    good = LocalTask(id="t", content_length=5, piece_length=MIN_PIECE_LENGTH)
    assert facts_of(good, Download(url="u")).content_length == 5
    with pytest.raises(NotFoundError):
        facts_of(LocalTask(id="t"), Download(url="u"))
    for length, piece_length in ((1 << 60, MIN_PIECE_LENGTH), (-1, MIN_PIECE_LENGTH), (5, 1)):
        with pytest.raises(ContradictionError):
            facts_of(LocalTask(id="t", content_length=length, piece_length=piece_length), Download(url="u"))
    with pytest.raises(ContradictionError):
        facts_of(good, Download(url="u", piece_length=2 * MIN_PIECE_LENGTH))


@pytest.mark.parametrize(
    "offer",
    [
        PieceOffer(number=3, offset=30, length=1, ip="10.0.0.1", tcp_port=4005),
        PieceOffer(number=1, offset=10, length=10, ip="10.0.0.2", tcp_port=4005),
        PieceOffer(number=1, offset=10, length=10, ip="10.0.0.1", tcp_port=0),
        PieceOffer(number=1, offset=11, length=10, ip="10.0.0.1", tcp_port=4005),
        PieceOffer(number=2, offset=20, length=10, ip="10.0.0.1", tcp_port=4005),
    ],
)
def test_an_offer_that_cannot_be_true_is_refused(offer: PieceOffer) -> None:
    parent = CandidateParent(id="p", host=Host(id=HostId("h"), ip="10.0.0.1", hostname="h", port=4000))
    check_offer(PieceOffer(number=2, offset=20, length=5, ip="10.0.0.1", tcp_port=4005), parent, FACTS)
    with pytest.raises(ContradictionError):
        check_offer(offer, parent, FACTS)


def test_network_counters_leave_loopback_out() -> None:
    text = (
        "h\nh\n    lo: 1 0 0 0 0 0 0 0 1 0\n  eth0: 100 0 0 0 0 0 0 0 50 0 0 0 0 0 0 0\n  eth1: 7 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0\n"
    )
    assert network_bytes(text) == (107, 55)


def test_outputs_are_checked_before_and_ranges_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    for path, problem in (("rel", InvalidInputError), (f"{tmp_path}/no/x", InvalidInputError), (str(tmp_path), InvalidInputError)):
        with pytest.raises(problem):
            check_output(Download(url="u", output_path=path))
    fd = os.memfd_create("content")
    os.write(fd, b"0123456789")
    target = tmp_path / "part"
    copy_range(fd, ByteRange(start=2, length=3), target, overwrite=False)
    assert target.read_bytes() == b"234"
    with pytest.raises(ConflictError):
        copy_range(fd, ByteRange(start=0, length=3), target, overwrite=False)
    with pytest.raises(ConflictError, match="ends at 10"):
        copy_range(fd, ByteRange(start=8, length=3), target, overwrite=True)
    copy_range(fd, ByteRange(start=0, length=1), target, overwrite=True)
    assert target.read_bytes() == b"0"
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    os.close(fd)


def test_the_configuration_takes_upstreams_keys(tmp_path: Path) -> None:
    path = tmp_path / "dfdaemon.yaml"
    path.write_text(
        "host: {schedulerClusterID: 3}\n"
        "gc: {policy: {taskTTL: 48h, diskHighThresholdPercent: 70}}\n"
        "proxy: {registryMirror: {addr: 'https://r.example', enableTaskIDBasedBlobDigest: false}}\n"
        "storage: {server: {tcpPort: 5005}}\n"
    )
    config = load(DaemonConfig, path, {"DARNER_DOWNLOAD__CONCURRENTPIECECOUNT": "9"}).value
    assert config.host.schedulerClusterID == 3
    assert config.gc.policy.taskTTL == 48 * 3600
    assert not config.proxy.registry_mirror.enableTaskIDBasedBlobDigest
    assert config.storage.server.tcp_port == 5005
    assert config.download.concurrent_piece_count == 9
