"""The registry mirror against a small registry."""

import asyncio
import base64
import hashlib
from typing import Any

import aiohttp
import pytest

from darner.testing.image import ImageLayout, make_image
from darner.testing.origin import CountingOrigin, Fault
from darner.testing.registry import SmallRegistry

MIB = 1024 * 1024


@pytest.fixture
def layout(tmp_path: Any) -> ImageLayout:
    return make_image(tmp_path / "image", layers=(9 * MIB,))


def base_of(daemon: Any) -> str:
    return f"http://127.0.0.1:{daemon.parts.config.proxy.server.port}"


def login(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def largest(layout: ImageLayout) -> tuple[str, int]:
    return max(layout.blobs().items(), key=lambda item: item[1])


async def test_two_mirrors_pull_an_image_with_one_copy_from_the_registry(lab: Any, layout: ImageLayout) -> None:
    with SmallRegistry() as registry:
        registry.add("team/app", "v1", layout)
        async with lab.daemon("p1") as one, lab.daemon("p2") as two, aiohttp.ClientSession() as http:
            for daemon in (one, two):
                ns = {"ns": registry.address}
                async with http.get(f"{base_of(daemon)}/v2/team/app/manifests/v1", params=ns) as reply:
                    assert reply.status == 200
                    assert reply.headers["Docker-Content-Digest"] == layout.root.digest
                for digest, size in layout.blobs().items():
                    async with http.get(f"{base_of(daemon)}/v2/team/app/blobs/{digest}", params=ns) as reply:
                        body = await reply.read()
                        assert reply.status == 200
                        assert reply.headers["Content-Length"] == str(size)
                        assert reply.headers["Docker-Content-Digest"] == digest
                        assert reply.headers["X-Dragonfly-Task-ID"] == digest.partition(":")[2]
                        assert hashlib.sha256(body).hexdigest() == digest.partition(":")[2]
        for digest, count in registry.blob_bytes().items():
            assert count <= layout.blobs()[digest] + 1


async def test_ranges_heads_and_unknown_blobs_are_answered_as_the_registry_would(lab: Any, layout: ImageLayout) -> None:
    digest, size = largest(layout)
    whole = layout.blob_path(digest).read_bytes()
    with SmallRegistry() as registry:
        registry.add("team/app", "v1", layout)
        header = {"X-Dragonfly-Registry": registry.server.base_url}
        async with lab.daemon("p1") as daemon, aiohttp.ClientSession(headers=header) as http:
            url = f"{base_of(daemon)}/v2/team/app/blobs/{digest}"
            async with http.head(url) as reply:
                assert (reply.status, reply.headers["Content-Length"]) == (200, str(size))
            async with http.get(url, headers={"Range": "bytes=5000000-5000999"}) as reply:
                assert reply.status == 206
                assert reply.headers["Content-Range"] == f"bytes 5000000-5000999/{size}"
                assert await reply.read() == whole[5000000:5001000]
            async with http.get(url, headers={"Range": f"bytes={size}-"}) as reply:
                assert reply.status == 416
            async with http.get(url, headers={"Range": "bytes=-10"}) as reply:
                assert await reply.read() == whole[-10:]
            async with http.get(f"{base_of(daemon)}/v2/team/app/blobs/sha256:{'0' * 64}") as reply:
                assert reply.status == 404
                assert (await reply.json())["errors"][0]["code"] == "BLOB_UNKNOWN"
            async with http.get(f"{base_of(daemon)}/v2/") as reply:
                assert reply.status == 200
            async with http.post(f"{base_of(daemon)}/v2/team/app/blobs/uploads/", data=b"x") as reply:
                assert reply.status == 405
            async with http.get(f"{base_of(daemon)}/healthy") as reply:
                assert reply.status == 200


async def test_a_cached_blob_is_given_only_to_those_whom_the_registry_lets_in(lab: Any, layout: ImageLayout) -> None:
    digest, size = largest(layout)
    with SmallRegistry(auth="basic", username="u", password="p") as registry:
        registry.add("team/app", "v1", layout)
        header = {"X-Dragonfly-Registry": registry.server.base_url}
        async with lab.daemon("p1") as daemon, lab.daemon("p2") as other, aiohttp.ClientSession(headers=header) as http:
            url = f"/v2/team/app/blobs/{digest}"
            async with http.get(base_of(daemon) + url) as reply:
                assert reply.status == 401
                assert reply.headers["WWW-Authenticate"].startswith("Basic")
            for mirror in (daemon, other):
                async with http.get(base_of(mirror) + url, headers=login("u:p")) as reply:
                    assert reply.status == 200
                    assert len(await reply.read()) == size
                for wrong in ({}, login("u:wrong")):
                    async with http.get(base_of(mirror) + url, headers=wrong) as reply:
                        assert reply.status == 401
        assert registry.blob_bytes()[digest] <= size + 1


async def test_a_blob_streams_before_all_of_it_is_here(lab: Any, layout: ImageLayout) -> None:
    digest, size = largest(layout)
    with SmallRegistry() as registry:
        registry.bytes_per_s = 6 * MIB
        registry.add("team/app", "v1", layout)
        async with lab.daemon("p1", concurrent_piece_count=1) as daemon, aiohttp.ClientSession() as http:
            url = f"{base_of(daemon)}/v2/team/app/blobs/{digest}?ns={registry.address}"
            async with http.get(url) as reply:
                assert await reply.content.readexactly(MIB)
                assert len(daemon.parts.store.pieces(digest.partition(":")[2])) < 3
                assert len(await reply.read()) == size - MIB


async def test_wrong_bytes_break_the_connection_and_are_not_kept(lab: Any) -> None:
    with CountingOrigin() as origin:
        content = origin.add("/x", 9 * MIB)
        path = f"/v2/team/app/blobs/sha256:{content.sha256()}"
        origin.add(path, 9 * MIB, seed="something else")
        header = {"X-Dragonfly-Registry": origin.server.base_url}
        async with lab.daemon("p1") as daemon, aiohttp.ClientSession(headers=header) as http:
            with pytest.raises(aiohttp.ClientError):
                async with http.get(base_of(daemon) + path) as reply:
                    await reply.read()
            assert daemon.parts.store.task(content.sha256()) is None


async def test_a_registry_that_fails_is_told_with_its_status(lab: Any, layout: ImageLayout) -> None:
    digest, _ = largest(layout)
    with CountingOrigin() as origin:
        path = f"/v2/team/app/blobs/{digest}"
        origin.add(path, 100)
        origin.set_fault(path, Fault(status=503, header={"Retry-After": "1"}))
        header = {"X-Dragonfly-Registry": origin.server.base_url}
        async with lab.daemon("p1") as daemon, aiohttp.ClientSession(headers=header) as http:
            async with http.get(base_of(daemon) + path) as reply:
                assert reply.status == 503
            async with http.get(f"{base_of(daemon)}/v2/", headers={"X-Dragonfly-Registry": "http://127.0.0.1:1"}) as reply:
                assert reply.status == 502
                assert reply.headers["X-Dragonfly-Error-Type"] == "proxy"


async def test_redirects_of_a_blob_store_are_followed_by_the_daemon(lab: Any, layout: ImageLayout) -> None:
    digest, size = largest(layout)
    with SmallRegistry() as store, CountingOrigin() as front:
        store.add("team/app", "v1", layout)
        path = f"/v2/team/app/blobs/{digest}"
        front.add(path, 1)
        front.set_fault(path, Fault(redirect_to=store.blob_url("team/app", digest)))
        header = {"X-Dragonfly-Registry": front.server.base_url}
        async with (
            lab.daemon("p1") as daemon,
            aiohttp.ClientSession(headers=header) as http,
            http.get(base_of(daemon) + path, allow_redirects=False) as reply,
        ):
            assert reply.status == 200
            assert len(await reply.read()) == size


async def test_many_clients_of_one_mirror_share_one_download(lab: Any, layout: ImageLayout) -> None:
    digest, size = largest(layout)
    with SmallRegistry() as registry:
        registry.add("team/app", "v1", layout)
        async with lab.daemon("p1") as daemon, aiohttp.ClientSession() as http:

            async def pull() -> int:
                async with http.get(f"{base_of(daemon)}/v2/team/app/blobs/{digest}?ns={registry.address}") as reply:
                    return len(await reply.read())

            assert await asyncio.gather(*(pull() for _ in range(8))) == [size] * 8
        assert registry.blob_bytes()[digest] <= size + 1


@pytest.mark.debian("skopeo")
async def test_skopeo_copies_an_image_through_the_mirror(lab: Any, layout: ImageLayout) -> None:
    with SmallRegistry(auth="bearer", username="u", password="p") as registry:
        registry.add("team/app", "v1", layout)
        async with (
            lab.daemon("p1", registry=registry.server.base_url) as one,
            lab.daemon("p2", registry=registry.server.base_url) as two,
        ):
            for number, daemon in enumerate((one, two)):
                target = lab.directory / f"copy{number}"
                source = f"docker://{base_of(daemon).removeprefix('http://')}/team/app:v1"
                process = await asyncio.create_subprocess_exec(
                    "skopeo", "copy", "--src-tls-verify=false", "--src-creds", "u:p", source, f"dir:{target}",
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                )  # fmt: skip
                said, _ = await process.communicate()
                assert process.returncode == 0, said.decode()
                for digest in layout.blobs():
                    assert hashlib.sha256((target / digest.partition(":")[2]).read_bytes()).hexdigest() == digest.partition(":")[2]
        for digest, count in registry.blob_bytes().items():
            assert count <= layout.blobs()[digest] + 1
