"""Callers that mean harm: a daemon answers them with a clear error, reaches no forbidden place, and serves the next one."""

import asyncio
import os
import random
import socket
import struct
from typing import Any

import aiohttp
import pytest

from darner.core.errors import ForbiddenAddressError, InvalidInputError
from darner.core.task import Download, Headers
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024 * 1024
ABORT = struct.pack("ii", 1, 0)
METADATA = (
    "169.254.169.254",
    "http://169.254.169.254",
    "[fd00:ec2::254]",
    "http://[::ffff:169.254.169.254]",
    "http://2852039166",
    "http://0xa9fea9fe",
    "metadata.google.internal",
    "http://0.0.0.0:80",
)
NO_REGISTRY = (
    "..",
    "a..b",
    "x" * 300,
    "http://user:s3cret@host",
    "file:///etc/passwd",
    "http://127.0.0.1:99999",
    "\0",
    "http://[::1",
)
RANGES = (
    "bytes=" + "9" * 5000 + "-",
    "bytes=-" + "9" * 5000,
    "bytes=-0",
    "bytes=5-1",
    "bytes=0-" + "9" * 30,
    "bytes=a-b",
    "lines=1-2",
)


def ports_of(daemon: Any) -> dict[str, int]:
    config = daemon.parts.config
    return {
        "upload": config.upload.server.port,
        "vortex": config.storage.server.tcp_port,
        "mirror": config.proxy.server.port,
        "metrics": config.metrics.server.port,
        "health": config.health.server.port,
    }


async def noise(port: int, data: bytes, *, abort: bool) -> None:
    """Send bytes and go, politely or with a reset, whatever the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        if abort:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        else:
            writer.write_eof()
            async with asyncio.timeout(0.2):
                await reader.read()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


async def test_every_port_outlives_noise_halves_and_resets(lab: Any) -> None:
    chance = random.Random(7)  # noqa: S311  (the same noise every time)
    with CountingOrigin({"/a.bin": 9 * MIB}) as origin:
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as peer:
            await lab.seed(seed, origin.url("/a.bin"))
            for port in ports_of(seed).values():
                for start in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xab\x01\xff\xff\xff\xff", b"GET / HTTP/1.1\r\nX: "):
                    for abort in (True, False):
                        await noise(port, start + chance.randbytes(chance.randrange(2000)), abort=abort)
            assert len(await lab.collect(peer, Download(url=origin.url("/a.bin")))) == 4
            assert origin.body_bytes("/a.bin") <= 9 * MIB + 1


async def test_the_mirror_reaches_no_metadata_service_and_answers_nonsense_with_an_error(lab: Any) -> None:
    path = "/v2/a/blobs/sha256:" + "a" * 64
    async with lab.daemon("p1") as daemon, aiohttp.ClientSession(f"http://127.0.0.1:{ports_of(daemon)['mirror']}") as http:
        for place in (path, "/v2/a/manifests/x"):
            for named in METADATA:
                async with http.get(place, params={"ns": named}) as reply:
                    assert reply.status == 403, named
            for named in NO_REGISTRY:
                async with http.get(place, params={"ns": named}) as reply:
                    assert reply.status in {400, 502}, named
                    assert "s3cret" not in await reply.text()


async def test_a_registry_or_an_origin_that_redirects_to_a_metadata_service_is_not_followed(lab: Any) -> None:
    with CountingOrigin() as origin:
        path = "/v2/a/blobs/sha256:" + "a" * 64
        for place in (path, "/a.bin"):
            origin.set_fault(place, Fault(redirect_to="http://169.254.169.254/latest?token=s3cret"))
        async with lab.daemon("p1") as daemon, aiohttp.ClientSession(f"http://127.0.0.1:{ports_of(daemon)['mirror']}") as http:
            async with http.get(path, params={"ns": origin.server.base_url}) as reply:
                assert reply.status == 403
                assert "s3cret" not in await reply.text()
            with pytest.raises(ForbiddenAddressError):
                await lab.collect(daemon, Download(url=origin.url("/a.bin")))


@pytest.mark.parametrize("wanted", RANGES, ids=lambda text: text[:14])
async def test_absurd_ranges_are_refused_or_ignored(lab: Any, wanted: str) -> None:
    with CountingOrigin() as origin:
        path = f"/v2/a/blobs/sha256:{origin.add('/x', 1000).sha256()}"
        origin.add(path, 1000, seed="/x")
        async with lab.daemon("p1") as daemon, aiohttp.ClientSession(f"http://127.0.0.1:{ports_of(daemon)['mirror']}") as http:
            async with http.get(path, params={"ns": origin.server.base_url}, headers={"Range": wanted}) as reply:
                assert reply.status in {200, 206, 416}
                assert len(await reply.read()) <= 1000 or reply.status == 416
            with pytest.raises(InvalidInputError):
                await lab.collect(daemon, Download(url=origin.url("/x"), request_header=Headers({"Range": wanted})))


@pytest.mark.parametrize("name", ["X\r\nInjected", "a b", "", "X"])
async def test_a_header_that_is_none_is_refused_and_its_value_is_not_repeated(lab: Any, name: str) -> None:
    with CountingOrigin({"/a.bin": 1000}) as origin:
        async with lab.daemon("p1") as daemon:
            header = Headers({name: "Bearer s3cret" + ("\r\nInjected: yes" if name == "X" else "")})
            with pytest.raises(InvalidInputError) as refused:
                await lab.collect(daemon, Download(url=origin.url("/a.bin"), request_header=header))
        assert "s3cret" not in refused.value.message
        assert not [access for access in origin.log if "injected" in access.header]


async def test_an_output_that_cannot_be_a_file_is_refused_before_anything_is_loaded(lab: Any) -> None:
    pipe = lab.directory / "pipe"
    os.mkfifo(pipe)
    with CountingOrigin({"/a.bin": 1000}) as origin:
        async with lab.daemon("p1") as daemon:
            for output in (
                "/dev/null",
                str(pipe),
                f"{lab.directory}/a\0b",
                f"{lab.directory}/{'a' * 300}",
                "relative",
                "/proc/x/y",
            ):
                with pytest.raises(InvalidInputError):
                    await lab.collect(daemon, Download(url=origin.url("/a.bin"), output_path=output, overwrite=True))
        assert origin.requests() == 0
    assert pipe.is_fifo()
