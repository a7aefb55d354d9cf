"""The piece client against peers that lie in every way, each on a real socket."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from blake3 import blake3
from isal import isal_zlib

from darner.core.errors import ForbiddenAddressError, PeerError, StorageFullError
from darner.core.ranges import ByteRange
from darner.swarm import ClientLimits, PieceClient
from darner.wire import vortex

TASK = "d3add1f6" + "4" * 56
NUMBER = 7
CONTENT = os.urandom(300_000)
SPAN = ByteRange(start=2_100_000, length=len(CONTENT))
CRC32 = f"crc32:{isal_zlib.crc32(CONTENT)}"
HASTY = ClientLimits(connect_timeout_s=2, reply_timeout_s=0.6, stall_timeout_s=0.6, min_bytes_per_s=100_000)

Script = Callable[[socket.socket], None]


class FakePeer:
    """Runs one script per connection, in the order given; the last one for all further connections."""

    def __init__(self, *scripts: Script) -> None:
        self.connections = 0
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ("127.0.0.1", int(self._listener.getsockname()[1]))
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._socks.append(sock)
            thread = threading.Thread(target=self._run, args=(script, sock), daemon=True)
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _run(script: Script, sock: socket.socket) -> None:
        with sock:
            try:
                script(sock)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


@contextmanager
def fake_peer(*scripts: Script) -> Iterator[FakePeer]:
    peer = FakePeer(*scripts)
    try:
        yield peer
    finally:
        peer.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "content", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def request(sock: socket.socket) -> bytes:
    data = b""
    while len(data) < 74:
        chunk = sock.recv(74 - len(data))
        if not chunk:
            raise ConnectionResetError
        data += chunk
    return data


def reply(**changes: int | str) -> bytes:
    facts = {"number": NUMBER, "offset": SPAN.start, "length": SPAN.length, "digest": CRC32, "parent_id": "10.0.0.1-h-u"} | changes
    return vortex.encode_reply(vortex.Reply(**facts), frame_id=1)  # type: ignore[arg-type]


def answering(*parts: bytes, linger_s: float = 0.0) -> Script:
    """Read a request, send these bytes, close."""

    def script(sock: socket.socket) -> None:
        request(sock)
        for part in parts:
            sock.sendall(part)
        time.sleep(linger_s)

    return script


def honest(sock: socket.socket) -> None:
    """As Darner's own server: answer request after request."""
    while True:
        request(sock)
        sock.sendall(reply() + CONTENT)


@pytest.fixture
def client() -> Iterator[PieceClient]:
    client = PieceClient()
    yield client
    client.close()


def fetch(client: PieceClient, peer: FakePeer, fd: int, **options: object) -> object:
    return client.fetch(peer.address, TASK, NUMBER, SPAN, fd, **options)  # type: ignore[arg-type]


def test_an_honest_piece_is_written_at_its_place_with_both_digests(client: PieceClient, target: int) -> None:
    seen: list[int] = []
    with fake_peer(honest) as peer:
        got = client.fetch(peer.address, TASK, NUMBER, SPAN, target, on_bytes=seen.append)
    assert os.pread(target, SPAN.length, SPAN.start) == CONTENT
    assert (got.length, got.crc32, got.blake3) == (SPAN.length, isal_zlib.crc32(CONTENT), blake3(CONTENT).digest())
    assert sum(seen) == SPAN.length


def test_the_request_is_byte_for_byte_upstreams(client: PieceClient, target: int) -> None:
    received: list[bytes] = []

    def script(sock: socket.socket) -> None:
        received.append(request(sock))
        sock.sendall(reply() + CONTENT)

    with fake_peer(script) as peer:
        fetch(client, peer, target)
    assert received[0][1:] == bytes.fromhex("0000000044") + TASK.encode() + bytes.fromhex("00000007")


LIES = {
    "another piece": answering(reply(number=8), CONTENT),
    "another offset": answering(reply(offset=0), CONTENT),
    "an offset beyond the file": answering(reply(offset=2**63), CONTENT),
    "a longer piece": answering(reply(length=SPAN.length + 1), CONTENT + b"x"),
    "a shorter piece": answering(reply(length=SPAN.length - 1), CONTENT[:-1]),
    "an endless piece": answering(reply(length=2**64 - 1), CONTENT),
    "wrong bytes": answering(reply(), b"X" + CONTENT[1:]),
    "a wrong digest": answering(reply(digest="crc32:1"), CONTENT),
    "no digest": answering(reply(digest=""), CONTENT),
    "a digest of another kind": answering(reply(digest="md5:00"), CONTENT),
    "a digest that is no number": answering(reply(digest="crc32:abc"), CONTENT),
    "a short body": answering(reply(), CONTENT[:-1]),
    "no body": answering(reply()),
    "half a header": answering(reply()[:3]),
    "half the metadata": answering(reply()[:40]),
    "nothing": answering(),
    "4 GiB of metadata": answering(struct.pack(">BBI", 1, 1, 0xFFFFFFFF), reply()[6:], CONTENT),
    "metadata one byte over the cap": answering(struct.pack(">BBI", 1, 1, vortex.MAX_REPLY_VALUE + 1), b"x" * 5000),
    "metadata that does not add up": answering(reply()[:6] + struct.pack(">I", 2**32 - 1) + reply()[10:], CONTENT),
    "a digest length of 4 GiB": answering(reply()[:30] + struct.pack(">I", 2**32 - 1) + reply()[34:], CONTENT),
    "empty metadata": answering(struct.pack(">BBI", 1, 1, 0)),
    "an unknown tag": answering(struct.pack(">BBI", 1, 77, 10), b"x" * 10),
    "a request instead of a reply": answering(vortex.encode_request(TASK, NUMBER, frame_id=3)),
    "a close frame": answering(vortex.encode_close(frame_id=3)),
    "an error frame: not found": answering(vortex.encode_error(2, "no such piece", frame_id=3)),
    "an empty error frame": answering(struct.pack(">BBI", 1, 255, 0)),
    "an error frame of 4 GiB": answering(struct.pack(">BBI", 1, 255, 0xFFFFFFFF), b"\x02no"),
    "http": answering(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_costs_an_error_and_nothing_else(lie: str, target: int) -> None:
    with fake_peer(LIES[lie]) as peer:
        client = PieceClient(HASTY)
        with closing(client), pytest.raises(PeerError):
            fetch(client, peer, target)
    outside = os.pread(target, 10**8, SPAN.end)
    assert outside == b""
    assert os.pread(target, SPAN.start, 0).strip(b"\0") == b""


def test_the_refusal_of_a_peer_says_why(client: PieceClient, target: int) -> None:
    refusal = vortex.encode_error(2, "piece 7 is not here", frame_id=3)
    with fake_peer(answering(refusal)) as peer, pytest.raises(PeerError, match="code 2: piece 7 is not here"):
        fetch(client, peer, target)


def test_an_empty_digest_is_taken_only_when_allowed(client: PieceClient, target: int) -> None:
    with fake_peer(answering(reply(digest=""), CONTENT)) as peer:
        got = client.fetch(peer.address, TASK, NUMBER, SPAN, target, allow_empty_digest=True)
    assert got.crc32 == isal_zlib.crc32(CONTENT)


def drip(sock: socket.socket) -> None:
    request(sock)
    sock.sendall(reply())
    for number in range(1000):
        sock.sendall(CONTENT[number * 10 : number * 10 + 10])
        time.sleep(0.02)


def drip_header(sock: socket.socket) -> None:
    request(sock)
    for number in range(1000):
        sock.sendall(reply()[number : number + 1])
        time.sleep(0.2)


def stop_midway(sock: socket.socket) -> None:
    request(sock)
    sock.sendall(reply() + CONTENT[:100_000])
    sock.recv(1)  # until the client has had enough


def say_nothing(sock: socket.socket) -> None:
    request(sock)
    sock.recv(1)  # until the client has had enough


@pytest.mark.parametrize("slow", [drip, drip_header, stop_midway, say_nothing])
def test_a_peer_that_dawdles_is_left(slow: Script, target: int) -> None:
    with fake_peer(slow) as peer:
        client = PieceClient(HASTY)
        with closing(client), pytest.raises(PeerError, match=r"nothing|per second|took"):
            fetch(client, peer, target)


def test_a_fetch_ends_when_its_caller_wants_to_stop(client: PieceClient, target: int) -> None:
    stop = threading.Event()
    with fake_peer(say_nothing) as peer:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(PeerError, match="stopped"):
            client.fetch(peer.address, TASK, NUMBER, SPAN, target, should_stop=stop.is_set)


def test_a_connection_is_used_again(client: PieceClient, target: int) -> None:
    with fake_peer(honest) as peer:
        for _ in range(3):
            fetch(client, peer, target)
        assert peer.connections == 1


def test_a_parent_that_closes_after_each_piece_gets_a_fresh_connection_each_time(client: PieceClient, target: int) -> None:
    with fake_peer(answering(reply(), CONTENT)) as peer:
        for _ in range(3):
            fetch(client, peer, target)
            time.sleep(0.05)
        assert peer.connections == 3


def closes_on_second_request(sock: socket.socket) -> None:
    request(sock)
    sock.sendall(reply() + CONTENT)
    request(sock)


def test_a_kept_connection_closed_before_its_reply_is_tried_once_more_on_a_fresh_one(client: PieceClient, target: int) -> None:
    with fake_peer(closes_on_second_request, honest) as peer:
        fetch(client, peer, target)
        fetch(client, peer, target)
        assert peer.connections == 2


def test_a_fresh_connection_closed_before_its_reply_is_not_tried_again(client: PieceClient, target: int) -> None:
    with fake_peer(answering()) as peer:
        with pytest.raises(PeerError, match="instead of answering"):
            fetch(client, peer, target)
        assert peer.connections == 1


def test_surplus_bytes_never_become_the_next_reply(client: PieceClient, target: int) -> None:
    forged = reply(digest="crc32:0") + bytes(SPAN.length)
    with fake_peer(answering(reply(), CONTENT, forged, linger_s=2), honest) as peer:
        fetch(client, peer, target)
        time.sleep(1.0)  # what was sent too much has arrived by now; later it would be a lie like any other, found by its digest
        fetch(client, peer, target)
        assert peer.connections == 2
    assert os.pread(target, SPAN.length, SPAN.start) == CONTENT


def test_a_peer_that_is_not_there_is_named(client: PieceClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(PeerError, match=f"127.0.0.1:{port}.*cannot be reached"):
        client.fetch(("127.0.0.1", port), TASK, NUMBER, SPAN, -1)


def test_a_host_name_is_not_looked_up(client: PieceClient) -> None:
    with pytest.raises(PeerError, match="no IP address"):
        client.fetch(("localhost", 1), TASK, NUMBER, SPAN, -1)


def test_a_forbidden_address_is_not_dialled() -> None:
    def refuse(ip: str) -> None:
        raise ForbiddenAddressError(ip)

    client = PieceClient(check_address=refuse)
    with closing(client), pytest.raises(ForbiddenAddressError):
        client.fetch(("169.254.169.254", 80), TASK, NUMBER, SPAN, -1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_not_blamed_on_the_peer(client: PieceClient) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with fake_peer(honest) as peer, pytest.raises(StorageFullError):
        fetch(client, peer, fd)
    os.close(fd)
