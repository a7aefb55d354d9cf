"""What every origin keeps to, whatever it is made of. A new implementation adds one line to WORLDS."""

import os
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from blake3 import blake3

from darner.core.errors import OriginError
from darner.core.ranges import ByteRange
from darner.net.guard import AddressPolicy
from darner.origin import (
    FetchStoppedError,
    HttpOrigin,
    MemoryOrigin,
    Origin,
    OriginChangedError,
    OriginConfig,
    OriginRegistry,
    OriginRequest,
)
from darner.testing.httpd import LoopbackServer, Reply, Request
from darner.testing.tls import make_identity

CONTENT = random.Random(7).randbytes(3 * 1024 * 1024 + 4321)  # noqa: S311  (content, not a secret)


@dataclass
class World:
    origin: Origin
    put: Callable[[str, bytes], str]  # path, content → URL


class _Files:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def answer(self, request: Request) -> Reply:
        content = self.files.get(request.path)
        if content is None:
            return Reply.of(b"", status=404)
        header = {"ETag": f'"{zlib.crc32(content)}"'}
        wanted = request.header.get("range", "")
        if not wanted or request.header.get("if-range", header["ETag"]) != header["ETag"]:
            return Reply.of(content, header=header)
        first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        if first >= len(content):
            return Reply.of(b"", status=416, header={"Content-Range": f"bytes */{len(content)}"})
        part = content[first : last + 1]
        header["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return Reply.of(part, status=206, header=header)


def _http(tmp_path: Path, *, tls: bool) -> Iterator[World]:
    files = _Files()
    identity = make_identity(tmp_path / "tls") if tls else None
    config = OriginConfig(
        ca_file=identity.ca_file if identity else None, policy=AddressPolicy(allow_loopback=True), max_retries=1, retry_first_s=0.01
    )
    origin = HttpOrigin(config)
    with LoopbackServer(files.answer, identity=identity) as server:

        def put(path: str, content: bytes) -> str:
            files.files[path] = content
            return server.base_url + path

        yield World(OriginRegistry({"https" if tls else "http": origin}), put)
        origin.close()


def _memory() -> Iterator[World]:
    origin = MemoryOrigin()

    def put(path: str, content: bytes) -> str:
        origin.put("memory:" + path, content)
        return "memory:" + path

    yield World(origin, put)


WORLDS: dict[str, Callable[[Path], Iterator[World]]] = {
    "http": lambda tmp_path: _http(tmp_path, tls=False),
    "https": lambda tmp_path: _http(tmp_path, tls=True),
    "memory": lambda _: _memory(),
}


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from WORLDS[request.param](tmp_path)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    handle = os.open(tmp_path / "content", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)


def test_stat_tells_length_and_that_ranges_can_be_asked_for(world: World) -> None:
    stat = world.origin.stat(OriginRequest(url=world.put("/a", CONTENT)))
    assert stat.content_length == len(CONTENT)
    assert stat.supports_range
    assert stat.header.find("content-length") == str(len(CONTENT))
    assert stat.header.find("content-range") is None
    assert stat.etag


def test_stat_of_an_empty_content_is_zero_bytes(world: World) -> None:
    assert world.origin.stat(OriginRequest(url=world.put("/empty", b""))).content_length == 0


def test_a_range_lands_at_its_own_offset_with_both_digests(world: World, fd: int) -> None:
    span = ByteRange(start=1_000_003, length=2_000_001)
    wanted = CONTENT[span.start : span.end]
    counted: list[int] = []
    piece = world.origin.fetch_range(OriginRequest(url=world.put("/a", CONTENT)), span, fd, on_bytes=counted.append)
    assert (piece.length, piece.crc32, piece.blake3) == (span.length, zlib.crc32(wanted), blake3(wanted).digest())
    assert os.pread(fd, span.length + 10, span.start) == wanted
    assert os.pread(fd, span.start, 0) == bytes(span.start)
    assert sum(counted) == span.length


def test_the_last_byte_alone_can_be_read(world: World, fd: int) -> None:
    span = ByteRange(start=len(CONTENT) - 1, length=1)
    assert world.origin.fetch_range(OriginRequest(url=world.put("/a", CONTENT)), span, fd).length == 1
    assert os.pread(fd, 10, span.start) == CONTENT[-1:]


def test_a_stream_gives_all_bytes_in_order_and_the_true_length(world: World) -> None:
    got = bytearray()
    stat = world.origin.fetch_stream(OriginRequest(url=world.put("/a", CONTENT)), on_chunk=got.extend)
    assert bytes(got) == CONTENT
    assert stat.content_length == len(CONTENT)


def test_missing_content_is_a_permanent_error_with_status_404(world: World, fd: int) -> None:
    request = OriginRequest(url=world.put("/a", CONTENT) + "-missing")
    with pytest.raises(OriginError) as in_stat:
        world.origin.stat(request)
    with pytest.raises(OriginError) as in_range:
        world.origin.fetch_range(request, ByteRange(start=0, length=1), fd)
    for caught in (in_stat, in_range):
        assert caught.value.status == 404
        assert not caught.value.retryable


@pytest.mark.parametrize("after", [CONTENT[::-1], CONTENT[:-5]], ids=["other bytes", "shorter"])
def test_content_that_changed_since_the_stat_is_refused(world: World, fd: int, after: bytes) -> None:
    request = OriginRequest(url=world.put("/a", CONTENT))
    request = request.expecting(world.origin.stat(request))
    world.put("/a", after)
    with pytest.raises(OriginChangedError, match="changed"):
        world.origin.fetch_range(request, ByteRange(start=1000, length=len(CONTENT) - 1000), fd)
    with pytest.raises(OriginChangedError, match="changed"):
        world.origin.fetch_stream(request, on_chunk=lambda _: None)
    with pytest.raises(OriginChangedError, match="changed"):
        world.origin.stat(request)


def test_a_caller_who_has_lost_interest_gets_a_stopped_error(world: World, fd: int) -> None:
    request = OriginRequest(url=world.put("/a", CONTENT))
    with pytest.raises(FetchStoppedError):
        world.origin.fetch_range(request, ByteRange(start=0, length=len(CONTENT)), fd, should_stop=lambda: True)
    with pytest.raises(FetchStoppedError):
        world.origin.fetch_stream(request, on_chunk=lambda _: None, should_stop=lambda: True)
