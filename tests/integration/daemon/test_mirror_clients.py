"""The registry mirror and the ways of its clients: those that leave, those that need a token, those that only look."""

import asyncio
import base64
import hashlib
import re
from typing import Any

import aiohttp
import pytest

from darner.testing.image import ImageLayout, make_image
from darner.testing.registry import SmallRegistry

MIB = 1024 * 1024
LOGIN = {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}


@pytest.fixture
def layout(tmp_path: Any) -> ImageLayout:
    return make_image(tmp_path / "image", layers=(24 * MIB,))


def base_of(daemon: Any) -> str:
    return f"http://127.0.0.1:{daemon.parts.config.proxy.server.port}"


def largest(layout: ImageLayout) -> tuple[str, int]:
    return max(layout.blobs().items(), key=lambda item: item[1])


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (what is waited for knows no events)
            await asyncio.sleep(0.01)


async def test_a_client_that_leaves_stops_the_download_and_the_next_one_goes_on_from_there(
    lab: Any, layout: ImageLayout, caplog: pytest.LogCaptureFixture
) -> None:
    digest, size = largest(layout)
    task_id = digest.partition(":")[2]
    with SmallRegistry() as registry:
        registry.bytes_per_s = 16 * MIB
        registry.add("team/app", "v1", layout)
        how = {"concurrent_piece_count": 1, "last_asker_grace": 0.1}
        async with lab.daemon("p1", **how) as daemon, aiohttp.ClientSession() as http:
            url = f"{base_of(daemon)}/v2/team/app/blobs/{digest}?ns={registry.address}"
            async with http.get(url) as reply:
                await reply.content.readexactly(5 * MIB)
                reply.close()
            await until(lambda: not daemon.engine.running)
            assert daemon.parts.store.task(task_id).uploading_count == 0
            held = len(daemon.parts.store.pieces(task_id))
            assert 1 <= held < 6
            before = registry.blob_bytes()[digest]
            registry.bytes_per_s = 0.0
            async with http.get(url) as reply:
                assert hashlib.sha256(await reply.read()).hexdigest() == task_id
            under_way = MIB  # left the registry before it noticed, and counted after we looked
            assert registry.blob_bytes()[digest] - before <= size - held * 4 * MIB + under_way
    assert not [record for record in caplog.records if record.name == "aiohttp.server"], "no traceback for what is no fault"


async def test_a_client_that_leaves_takes_nothing_from_another(lab: Any, layout: ImageLayout) -> None:
    digest, size = largest(layout)
    with SmallRegistry() as registry:
        registry.bytes_per_s = 16 * MIB
        registry.add("team/app", "v1", layout)
        how = {"concurrent_piece_count": 1, "last_asker_grace": 0.1}
        async with lab.daemon("p1", **how) as daemon, aiohttp.ClientSession() as http:
            url = f"{base_of(daemon)}/v2/team/app/blobs/{digest}?ns={registry.address}"
            async with http.get(url) as leaving, http.get(url) as staying:
                await leaving.content.readexactly(MIB)
                leaving.close()
                assert hashlib.sha256(await staying.read()).hexdigest() == digest.partition(":")[2]
        assert registry.blob_bytes()[digest] <= size + 1


async def test_a_registry_that_wants_a_token_tells_the_client_itself_where_to_get_one(lab: Any, layout: ImageLayout) -> None:
    digest, size = largest(layout)
    with SmallRegistry(auth="bearer", username="u", password="p") as registry:
        registry.add("team/app", "v1", layout)
        header = {"X-Dragonfly-Registry": registry.server.base_url}
        async with lab.daemon("p1") as daemon, aiohttp.ClientSession(headers=header) as http:
            blob, manifest = (f"{base_of(daemon)}/v2/team/app/{path}" for path in (f"blobs/{digest}", "manifests/v1"))
            for url in (blob, manifest):
                async with http.get(url) as reply, http.get(url.replace(base_of(daemon), registry.server.base_url)) as direct:
                    assert (reply.status, direct.status) == (401, 401)
                    assert reply.headers["WWW-Authenticate"] == direct.headers["WWW-Authenticate"]
                    assert await reply.read() == await direct.read()
                    challenge = dict(re.findall(r'(\w+)="([^"]*)"', reply.headers["WWW-Authenticate"]))
            place = {"service": challenge["service"], "scope": challenge.get("scope", "repository:team/app:pull")}
            async with http.get(challenge["realm"], params=place, headers=LOGIN) as reply:
                token = (await reply.json())["token"]
            allowed = {"Authorization": f"Bearer {token}"}
            async with http.get(manifest, headers=allowed) as reply:
                assert reply.status == 200
            async with http.get(blob, headers=allowed) as reply:
                assert len(await reply.read()) == size
            async with http.head(blob, headers=allowed) as reply:
                assert (reply.headers["Content-Length"], reply.headers["Docker-Content-Digest"]) == (str(size), digest)
            async with http.get(blob) as reply:
                assert reply.status == 401
        assert registry.blob_bytes()[digest] <= size + 1
