"""The counting origin, asked by curl and by hand: it must be right before it judges others."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from darner.testing.content import Content, sha256_of
from darner.testing.origin import CountingOrigin, Fault

SIZE = 3 * 1024**2 + 17


@pytest.fixture
def origin() -> Iterator[CountingOrigin]:
    with CountingOrigin({"/a.bin": SIZE, "/empty": 0}) as running:
        yield running


def test_any_range_of_computed_content_equals_the_slice_of_the_whole() -> None:
    content = Content(SIZE, "x")
    whole = content.bytes()
    assert len(whole) == SIZE
    for start, stop in [(0, 1), (65535, 65537), (1024**2 - 1, 1024**2 + 1), (SIZE - 5, SIZE), (7, SIZE - 7), (SIZE, SIZE)]:
        assert content.bytes(start, stop) == whole[start:stop]
    assert whole[:65536] != whole[65536:131072]
    assert Content(SIZE, "y").bytes(0, 64) != whole[:64]


def test_curl_gets_the_file_and_every_byte_is_counted_once(origin: CountingOrigin, tmp_path: Path) -> None:
    subprocess.run(["curl", "-fsS", "-o", tmp_path / "a", origin.url("/a.bin")], check=True)
    assert sha256_of(tmp_path / "a") == origin.sha256("/a.bin")
    assert origin.body_bytes("/a.bin") == SIZE
    subprocess.run(["curl", "-fsSI", origin.url("/a.bin")], check=True, capture_output=True)
    assert (origin.requests("/a.bin"), origin.body_bytes("/a.bin")) == (2, SIZE)


def test_ranges_follow_http(origin: CountingOrigin) -> None:
    part = httpx.get(origin.url("/a.bin"), headers={"Range": "bytes=65530-65545"})
    assert (part.status_code, part.headers["content-range"]) == (206, f"bytes 65530-65545/{SIZE}")
    assert part.content == origin.content("/a.bin").bytes(65530, 65546)
    beyond = httpx.get(origin.url("/a.bin"), headers={"Range": f"bytes={SIZE}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{SIZE}")
    changed = httpx.get(origin.url("/a.bin"), headers={"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (changed.status_code, len(changed.content)) == (200, SIZE)
    assert httpx.get(origin.url("/empty")).content == b""
    assert httpx.get(origin.url("/none")).status_code == 404


def test_faults_do_what_they_say(origin: CountingOrigin) -> None:
    url = origin.url("/a.bin")
    whole = origin.content("/a.bin").bytes()
    origin.set_fault("/a.bin", Fault(status=503, header={"Retry-After": "1"}, times=2))
    assert [httpx.get(url).status_code for _ in range(3)] == [503, 503, 200]
    origin.set_fault("/a.bin", Fault(no_ranges=True, no_length=True))
    plain = httpx.get(url, headers={"Range": "bytes=5-9"})
    assert (plain.status_code, plain.headers.get("content-length"), plain.content == whole) == (200, None, True)
    origin.set_fault("/a.bin", Fault(drop_after=1000))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url)
    origin.set_fault("/a.bin", Fault(redirect_to="/a.bin"))
    with pytest.raises(httpx.TooManyRedirects):
        httpx.get(url, follow_redirects=True)
    origin.set_fault("/a.bin", Fault(wrong_bytes=True))
    assert httpx.get(url).content != whole
    origin.set_fault("/a.bin", Fault(shifted_range=True))
    assert httpx.get(url, headers={"Range": "bytes=9-10"}).headers["content-range"].startswith("bytes 8-9/")
    origin.set_fault("/a.bin", None)
    assert httpx.get(url).content == whole


def test_content_that_changes_midway_changes_its_etag_too(origin: CountingOrigin) -> None:
    before = httpx.head(origin.url("/a.bin")).headers["etag"]
    origin.set_fault("/a.bin", Fault(changes_after=1_500_000))
    first = httpx.get(origin.url("/a.bin"), headers={"Range": "bytes=0-1048575"})
    second = httpx.get(origin.url("/a.bin"), headers={"Range": "bytes=1048576-2097151"})
    third = httpx.get(origin.url("/a.bin"), headers={"Range": "bytes=2097152-"})
    assert [reply.headers["etag"] == before for reply in (first, second, third)] == [True, True, False]


def test_stopping_does_not_wait_for_clients_that_stay_connected() -> None:
    origin = CountingOrigin({"/a": 10})
    origin.server.start()
    with socket.create_connection(("127.0.0.1", origin.server.port)) as idle:
        idle.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(5) == b"HTTP/"
        origin.server.stop()
        while idle.recv(65536):
            pass


def test_https_is_trusted_with_the_origins_own_authority_only(tmp_path: Path) -> None:
    with CountingOrigin({"/a": 100}, tls_dir=tmp_path) as origin:
        trusting = subprocess.run(["curl", "-fsS", "--cacert", origin.ca_file, origin.url("/a")], check=False, capture_output=True)
        assert trusting.stdout == origin.content("/a").bytes()
        refusing = subprocess.run(["curl", "-fsS", origin.url("/a")], check=False, capture_output=True)
        assert refusing.returncode == 60


def test_the_program_serves_and_tells_its_counts() -> None:
    command = [sys.executable, "-m", "darner.testing.origin", "--file", "dir/a.bin=1MiB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base = process.stdout.readline().removeprefix("ready ").strip()
        assert httpx.get(f"{base}/dir/a.bin").content == Content(1024**2, "/dir/a.bin").bytes()
        assert json.loads(httpx.get(f"{base}/-/counts").content) == {"/dir/a.bin": {"requests": 1, "body_bytes": 1024**2}}
        process.terminate()
