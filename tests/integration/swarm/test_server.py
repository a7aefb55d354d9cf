"""The piece server with children that are honest, silent, slow or hostile, on real sockets."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from isal import isal_zlib

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError
from darner.core.ranges import ByteRange
from darner.swarm import PieceClient, PieceServer, ServedPiece, ServerLimits
from darner.wire import vortex

TASK = "5eed" + "6" * 60
LENGTH = 1_000_003
COUNT = 6
CONTENT = os.urandom(LENGTH * COUNT)
QUICK = ServerLimits(workers=2, idle_timeout_s=1, request_timeout_s=1, stall_timeout_s=1, min_bytes_per_s=1e6)


class Pieces:
    """Pieces of one file; counts what is open."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(CONTENT)
        self.fd = os.open(path, os.O_RDONLY)
        self.open_count = 0
        self.most_open = 0
        self._lock = threading.Lock()

    def open_piece(self, task_id: str, number: int) -> ServedPiece:
        if number == 666:
            message = "the disk is on fire at /secret/path"
            raise OSError(message)
        if task_id != TASK or number >= COUNT:
            message = f"piece {number} of task {task_id} is not here"
            raise NotFoundError(message)
        with self._lock:
            self.open_count += 1
            self.most_open = max(self.most_open, self.open_count)
        return ServedPiece(
            fd=self.fd,
            offset=number * LENGTH,
            length=LENGTH,
            crc32=isal_zlib.crc32(CONTENT[number * LENGTH : (number + 1) * LENGTH]),
            parent_id="10.0.0.9-h-u",
            cost_s=2.9,
            created_at=1_700_000_000.5,
            release=self._released,
        )

    def _released(self) -> None:
        with self._lock:
            self.open_count -= 1


class Parent:
    """A running server."""

    def __init__(self, path: Path, limits: ServerLimits) -> None:
        self.pieces = Pieces(path)
        self.server = PieceServer(("127.0.0.1", 0), self.pieces, limits)
        self.address = ("127.0.0.1", self.server.start())

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address)
        sock.settimeout(10)
        return sock

    def close(self) -> None:
        self.server.stop()
        self.server.stop()
        os.close(self.pieces.fd)
        assert self.pieces.open_count == 0, "every opened piece was given back"


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    parent = Parent(tmp_path / "content", QUICK)
    yield parent
    parent.close()


def read(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def read_frame(sock: socket.socket) -> tuple[vortex.Header, bytes]:
    header = vortex.decode_header(read(sock, vortex.HEADER_LENGTH))
    return header, read(sock, header.length)


def ask(sock: socket.socket, number: int, *, task_id: str = TASK, tag: int = 0) -> None:
    sock.sendall(vortex.encode_request(task_id, number, tag=tag, frame_id=0xAB))


def is_served(sock: socket.socket, number: int = 1) -> bool:
    """Whether a whole piece comes over this connection."""
    ask(sock, number)
    read_frame(sock)
    return read(sock, LENGTH) == CONTENT[number * LENGTH : (number + 1) * LENGTH]


def is_closed(sock: socket.socket) -> bool:
    """Whether the server ends the connection without another byte."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("tag", [0, 2, 4])
def test_a_reply_is_upstreams_byte_for_byte_then_the_content(parent: Parent, tag: int) -> None:
    with parent.connect() as sock:
        ask(sock, 2, tag=tag)
        content = CONTENT[2 * LENGTH : 3 * LENGTH]
        wanted = vortex.Reply(
            number=2,
            offset=2 * LENGTH,
            length=LENGTH,
            digest=f"crc32:{isal_zlib.crc32(content)}",
            parent_id="10.0.0.9-h-u",
            traffic_type=1,
            cost_s=2,
            created_at=1_700_000_000,
        )
        frame = vortex.encode_reply(wanted, tag=tag + 1, frame_id=0xAB)
        assert read(sock, len(frame)) == frame
        assert read(sock, LENGTH) == content


def test_many_children_over_few_workers_all_get_their_pieces(parent: Parent, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "child", os.O_RDWR | os.O_CREAT)
    with closing(PieceClient()) as client, ThreadPoolExecutor(16) as pool:

        def one(turn: int) -> int:
            number = turn % COUNT
            span = ByteRange(start=number * LENGTH, length=LENGTH)
            return client.fetch(parent.address, TASK, number, span, fd).length

        assert sum(pool.map(one, range(96))) == 96 * LENGTH
    assert os.pread(fd, len(CONTENT), 0) == CONTENT
    os.close(fd)
    assert parent.server.sent_bytes == 96 * LENGTH


def test_a_missing_piece_is_answered_with_code_2_and_the_connection_goes_on(parent: Parent) -> None:
    with parent.connect() as sock:
        ask(sock, 99)
        header, value = read_frame(sock)
        assert (header.tag, header.frame_id, value[0]) == (vortex.ERROR, 0xAB, vortex.CODE_NOT_FOUND)
        assert is_served(sock)


def test_a_failing_disk_is_answered_with_code_3_without_its_details(parent: Parent) -> None:
    with parent.connect() as sock:
        ask(sock, 666)
        _, value = read_frame(sock)
        assert value[0] == vortex.CODE_INTERNAL
        assert b"secret" not in value
        assert is_served(sock)


BAD_REQUESTS = {
    "a length of 4 GiB": struct.pack(">BBI", 1, 0, 0xFFFFFFFF),
    "one byte too long": struct.pack(">BBI", 1, 0, 69) + b"x" * 69,
    "one byte too short": struct.pack(">BBI", 1, 0, 67) + b"x" * 67,
    "no length": struct.pack(">BBI", 1, 0, 0),
    "a reserved tag": struct.pack(">BBI", 1, 100, 68) + b"x" * 68,
    "the unused cache tag": struct.pack(">BBI", 1, 6, 68) + b"x" * 68,
    "a reply": struct.pack(">BBI", 1, 1, 68) + b"x" * 68,
    "an error frame": vortex.encode_error(2, "you", frame_id=1),
    "a close frame": vortex.encode_close(frame_id=1),
    "a task id that is not ascii": struct.pack(">BBI", 1, 0, 68) + b"\xff" * 68,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("bad", BAD_REQUESTS)
def test_what_is_no_request_ends_the_connection_and_nothing_else(parent: Parent, bad: str) -> None:
    with parent.connect() as other, parent.connect() as sock:
        sock.sendall(BAD_REQUESTS[bad])
        assert is_closed(sock)
        assert is_served(other)


def test_a_request_that_comes_in_drops_is_served_if_it_comes_in_time(parent: Parent) -> None:
    with parent.connect() as sock:
        frame = vortex.encode_request(TASK, 0, frame_id=1)
        for start in range(0, len(frame), 8):
            sock.sendall(frame[start : start + 8])
            time.sleep(0.01)
        read_frame(sock)
        assert read(sock, LENGTH) == CONTENT[:LENGTH]


def test_requests_sent_at_once_are_answered_in_turn(parent: Parent) -> None:
    with parent.connect() as sock:
        sock.sendall(b"".join(vortex.encode_request(TASK, number, frame_id=number) for number in range(3)))
        for number in range(3):
            header, _ = read_frame(sock)
            assert header.frame_id == number
            assert read(sock, LENGTH) == CONTENT[number * LENGTH : (number + 1) * LENGTH]


@pytest.mark.parametrize("begun", [b"", b"\x01", vortex.encode_request(TASK, 0, frame_id=1)[:70]])
def test_who_never_finishes_a_request_is_disconnected(parent: Parent, begun: bytes) -> None:
    with parent.connect() as sock:
        sock.sendall(begun)
        assert is_closed(sock)


def test_idle_and_slow_connections_keep_no_worker_busy(tmp_path: Path) -> None:
    parent = Parent(tmp_path / "content", ServerLimits(workers=2))
    idle = [parent.connect() for _ in range(50)]
    slow = [parent.connect() for _ in range(20)]
    for sock in slow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for number in range(COUNT):
            ask(sock, number)
    with parent.connect() as sock:
        assert is_served(sock)
    assert parent.server.connection_count >= 70
    for sock in idle + slow:
        sock.close()
    parent.close()


def test_who_takes_nothing_is_disconnected_and_its_piece_given_back(parent: Parent) -> None:
    with parent.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for number in range(COUNT):
            ask(sock, number)
        deadline = time.monotonic() + 20
        while parent.server.connection_count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert parent.server.connection_count == 0
        assert parent.pieces.open_count == 0


def test_a_child_that_vanishes_midway_leaves_nothing_open(parent: Parent) -> None:
    sock = parent.connect()
    for number in range(COUNT):
        ask(sock, number)
    read(sock, 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    with parent.connect() as other:
        assert is_served(other)


def test_at_the_connection_limit_the_longest_idle_one_makes_room(tmp_path: Path) -> None:
    parent = Parent(tmp_path / "content", replace(QUICK, max_connections=3, idle_timeout_s=60, request_timeout_s=60))
    first, second, third = [parent.connect() for _ in range(3)]
    assert is_served(second)
    assert is_served(third)
    deadline = time.monotonic() + 10
    served = False
    while not served and time.monotonic() < deadline:
        with parent.connect() as sock:
            try:
                served = is_served(sock)
            except (OSError, struct.error):
                continue
    assert served
    assert is_closed(first)
    for one in (first, second, third):
        one.close()
    parent.close()


def test_no_more_pieces_are_sent_at_once_than_allowed_and_all_are_sent(tmp_path: Path) -> None:
    parent = Parent(tmp_path / "content", ServerLimits(workers=4, max_uploads=1))
    with ThreadPoolExecutor(8) as pool:

        def one(number: int) -> bool:
            with parent.connect() as sock:
                return is_served(sock, number % COUNT)

        assert all(pool.map(one, range(24)))
    parent.close()


def test_a_child_that_leaves_while_it_waits_for_its_turn_does_not_block_the_others(tmp_path: Path) -> None:
    parent = Parent(tmp_path / "content", replace(QUICK, max_uploads=1))
    holder = parent.connect()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(COUNT):
        ask(holder, number)
    leaver = parent.connect()
    ask(leaver, 0)
    leaver.close()
    with parent.connect() as sock:
        assert is_served(sock)
    holder.close()
    parent.close()


def test_the_upload_limit_is_kept(tmp_path: Path) -> None:
    parent = Parent(tmp_path / "content", ServerLimits(bytes_per_s=4 * LENGTH))
    started = time.monotonic()
    with parent.connect() as sock:
        assert all(is_served(sock, number % COUNT) for number in range(7))
    # One second's worth is saved up; the other three pieces cost a quarter of a second each.
    assert time.monotonic() - started > 0.7
    parent.close()


def test_a_taken_port_and_a_bad_address_are_named(parent: Parent) -> None:
    with pytest.raises(ConflictError, match=str(parent.address[1])):
        PieceServer(parent.address, parent.pieces).start()
    with pytest.raises(InvalidInputError, match="example"):
        PieceServer(("example", 0), parent.pieces).start()


def test_stopping_cuts_pieces_under_way_and_gives_them_back(tmp_path: Path) -> None:
    parent = Parent(tmp_path / "content", ServerLimits())
    sock = parent.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(COUNT):
        ask(sock, number)
    read(sock, 1000)
    parent.close()
    sock.close()
