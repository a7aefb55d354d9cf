"""The sink of a piece: however the bytes are cut, the same digests and the same bytes at the same place."""

import os
from pathlib import Path

from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from darner.core.ranges import ByteRange
from darner.swarm.receive import BodySink


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=10), st.integers(0, 1000))
def test_digests_and_bytes_do_not_depend_on_how_the_content_is_cut(tmp_path: Path, chunks: list[bytes], start: int) -> None:
    content = b"".join(chunks)
    seen: list[int] = []
    fd = os.open(tmp_path / "content", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    sink = BodySink(fd, ByteRange(start=start, length=len(content)), seen.append, with_blake3=True)
    for chunk in chunks:
        sink.take(memoryview(chunk))
    got = sink.fetched()
    assert (got.length, got.crc32, got.blake3) == (len(content), isal_zlib.crc32(content), blake3(content).digest())
    assert os.pread(fd, 10_000, 0) == bytes(start) + content
    assert seen == [len(chunk) for chunk in chunks]
    assert sink.remaining == 0
    os.close(fd)
