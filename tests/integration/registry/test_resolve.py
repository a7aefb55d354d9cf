"""Images resolved from a registry on loopback."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darner.core.errors import DarnerError, DigestMismatchError, ForbiddenAddressError, InvalidInputError, OriginError
from darner.core.secret import Secret
from darner.net.errors import NetError
from darner.net.guard import AddressPolicy
from darner.net.http import SessionSettings
from darner.registry import Credentials, ResolvedImage, resolve_image
from darner.registry.manifest import ManifestError
from darner.testing.httpd import LoopbackServer, Reply, Request
from darner.testing.image import ImageLayout, make_image
from darner.testing.registry import SmallRegistry

CANARY = "canary-51c3"
LOOPBACK = SessionSettings(policy=AddressPolicy(allow_loopback=True))
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def image(tmp_path: Path) -> ImageLayout:
    return make_image(tmp_path / "image", layers=(5000, 3000))


@pytest.fixture
def many(tmp_path: Path) -> ImageLayout:
    return make_image(tmp_path / "many", layers=(5000, 3000), platforms=("linux/amd64", "linux/arm64"))


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    with SmallRegistry() as running:
        yield running


@pytest.fixture
def start() -> Iterator[Callable[..., LoopbackServer]]:
    servers: list[LoopbackServer] = []

    def begin(answer: Callable[[Request], Reply], **more: Any) -> LoopbackServer:
        servers.append(LoopbackServer(answer, **more))
        servers[-1].start()
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def digests(image: ResolvedImage) -> dict[str, int]:
    return {blob.digest: blob.size for blob in image.layers}


def described(body: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(body).hexdigest()}", "size": len(body), **more}


def add_json(registry: SmallRegistry, reference: str, media_type: str, document: Any) -> bytes:
    body = json.dumps(document).encode()
    registry.add_manifest("a/b", reference, media_type, body)
    registry.add_manifest("a/b", described(body, media_type)["digest"], media_type, body)
    return body


# --- what an image is made of


@pytest.mark.parametrize("form", ["http://{}/v2/a/b/manifests/v1", "{}/a/b:v1", "docker://{}/a/b:v1", "oci://{}/a/b:v1"])
async def test_an_image_is_its_layers_and_its_config(registry: SmallRegistry, image: ImageLayout, form: str) -> None:
    registry.add("a/b", "v1", image)
    found = await resolve_image(form.format(registry.address), settings=LOOPBACK)
    assert digests(found) == image.blobs()
    assert found.total_bytes == sum(image.blobs().values())
    assert {blob.url for blob in found.layers} == {registry.blob_url("a/b", digest) for digest in image.blobs()}
    assert [manifest.digest for manifest in found.manifests] == [image.root.digest]
    assert (found.authorization, found.notes) == (None, ())


async def test_without_a_platform_all_of_an_index_are_taken_and_each_blob_once(registry: SmallRegistry, many: ImageLayout) -> None:
    registry.add("a/b", "v1", many)
    found = await resolve_image(registry.manifest_url("a/b", "v1"), settings=LOOPBACK)
    assert digests(found) == many.blobs()
    assert len(found.layers) == len(many.blobs())
    assert {manifest.digest for manifest in found.manifests} == {many.root.digest, *(each.manifest.digest for each in many.images)}


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/aarch64", "linux/arm64/v8"])
async def test_a_platform_chooses_its_image(registry: SmallRegistry, many: ImageLayout, platform: str) -> None:
    registry.add("a/b", "v1", many)
    wanted = next(each for each in many.images if "arm64" in each.platform)
    found = await resolve_image(registry.manifest_url("a/b", "v1"), [platform], settings=LOOPBACK)
    assert set(digests(found)) == {wanted.config.digest, *(layer.digest for layer in wanted.layers)}


async def test_an_unknown_platform_is_an_error_that_names_the_available_ones(
    registry: SmallRegistry, many: ImageLayout, image: ImageLayout
) -> None:
    registry.add("a/b", "v1", many)
    registry.add("a/b", "single", image)
    with pytest.raises(InvalidInputError, match=r"linux/s390x in .*; available: linux/amd64, linux/arm64") as caught:
        await resolve_image(registry.manifest_url("a/b", "v1"), ["linux/amd64", "linux/s390x"], settings=LOOPBACK)
    assert caught.value.field == "platform"
    with pytest.raises(InvalidInputError, match="available: linux/amd64"):
        await resolve_image(registry.manifest_url("a/b", "single"), ["linux/arm64"], settings=LOOPBACK)
    found = await resolve_image(registry.manifest_url("a/b", "single"), ["linux/amd64"], settings=LOOPBACK)
    assert digests(found) == image.blobs()


async def test_attestations_and_foreign_layers_are_left_out_with_a_note(registry: SmallRegistry) -> None:
    layer, foreign = described(b"layer", "x"), described(b"foreign", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    config = described(b"{}", "application/vnd.oci.image.config.v1+json")
    manifest = add_json(registry, "m", OCI, {"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": [layer, foreign]})
    entries = [
        described(manifest, OCI, platform={"os": "linux", "architecture": "amd64"}),
        described(b"not served", OCI, platform={"os": "unknown", "architecture": "unknown"}),
    ]
    inner = add_json(registry, "inner", OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    add_json(registry, "v1", OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described(inner, OCI_INDEX)]})
    found = await resolve_image(registry.manifest_url("a/b", "v1"), ["linux/amd64"], settings=LOOPBACK)
    assert set(digests(found)) == {layer["digest"], config["digest"]}
    assert len(found.manifests) == 3
    assert [note.split()[0] for note in found.notes] == ["attestation", "layer"]


async def test_indexes_nested_without_end_are_refused(registry: SmallRegistry) -> None:
    body = b""
    for depth in range(6):
        entries = [described(body, OCI_INDEX)] if body else []
        body = add_json(registry, f"v{depth}", OCI_INDEX, {"mediaType": OCI_INDEX, "manifests": entries})
    with pytest.raises(ManifestError, match="nested"):
        await resolve_image(registry.manifest_url("a/b", "v5"), settings=LOOPBACK)


# --- manifests that must be refused


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>login</html>", "not JSON"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (b'{"pad": "' + b"x" * (4 * 1024 * 1024) + b'"}', "larger than the 4194304 bytes"),
    ],
)
async def test_a_manifest_that_is_none_is_refused(registry: SmallRegistry, body: bytes, message: str) -> None:
    registry.add_manifest("a/b", "v1", OCI, body)
    with pytest.raises(DarnerError, match=message):
        await resolve_image(registry.manifest_url("a/b", "v1"), settings=LOOPBACK)


async def test_an_endless_manifest_is_cut_off(start: Any) -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield b" " * 65536

    server = start(lambda _: Reply(body=forever(), length=None))
    with pytest.raises(OriginError, match="larger than"):
        await resolve_image(f"{server.address}/a:v1", settings=LOOPBACK)


async def test_every_manifest_must_have_its_digest(registry: SmallRegistry, many: ImageLayout) -> None:
    registry.add("a/b", "v1", many)
    child = many.images[0].manifest
    registry.add_manifest("a/b", child.digest, child.media_type, many.blob_path(child.digest).read_bytes() + b" ")
    with pytest.raises(DigestMismatchError, match=f"not {child.digest}"):
        await resolve_image(registry.manifest_url("a/b", "v1"), settings=LOOPBACK)
    registry.add_manifest("a/b", many.root.digest, OCI_INDEX, b'{"manifests": []}')
    with pytest.raises(DigestMismatchError):
        await resolve_image(registry.manifest_url("a/b", many.root.digest), settings=LOOPBACK)


# --- logging in


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_credentials_open_the_registry_and_give_peers_a_header(many: ImageLayout, auth: Any) -> None:
    with SmallRegistry(auth=auth, username="us er", password=CANARY) as registry:
        registry.add("a/b", "v1", many)
        login = Credentials(username="us er", password=Secret(CANARY))
        found = await resolve_image(registry.manifest_url("a/b", "v1"), settings=LOOPBACK, credentials=login)
        assert digests(found) == many.blobs()
        assert found.authorization is not None
        assert found.authorization.reveal().startswith(auth.capitalize())
        assert (found.authorization_expires_s is None) is (auth == "basic")
        assert CANARY not in repr(found)
        assert registry.server.requests("/token") == (auth == "bearer")
        again = await resolve_image(registry.manifest_url("a/b", "v1"), settings=LOOPBACK, authorization=found.authorization)
        assert again.authorization == found.authorization
        assert registry.server.requests("/token") == (auth == "bearer")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_wrong_or_no_credentials_are_a_clear_error(image: ImageLayout, auth: Any) -> None:
    with SmallRegistry(auth=auth, username="user", password=Secret("right")) as registry:
        registry.add("a/b", "v1", image)
        url = registry.manifest_url("a/b", "v1")
        wrong = Credentials(username="user", password=Secret(CANARY))
        attempts: list[dict[str, Any]] = [{}, {"credentials": wrong}, {"authorization": Secret(f"Bearer {CANARY}")}]
        for attempt in attempts:
            with pytest.raises(OriginError, match="it wants a login") as caught:
                await resolve_image(url, settings=LOOPBACK, **attempt)
            assert caught.value.status == 401
            assert CANARY not in caught.value.message + str(caught.value.header)


async def test_an_anonymous_token_is_fetched_where_the_registry_gives_one(start: Any, image: ImageLayout) -> None:
    manifest = image.blob_path(image.root.digest).read_bytes()

    def answer(request: Request) -> Reply:
        if request.path == "/token":
            assert "authorization" not in request.header
            return Reply.of(b'{"token": "anonymous"}')
        if request.header.get("authorization") != "Bearer anonymous":
            challenge = f'Bearer realm="http://{request.header["host"]}/token",service="x"'
            return Reply.of(b"", status=401, header={"WWW-Authenticate": challenge})
        return Reply.of(manifest, header={"Content-Type": image.root.media_type})

    server = start(answer)
    found = await resolve_image(f"{server.address}/a:v1", settings=LOOPBACK)
    assert found.authorization == Secret("Bearer anonymous")
    assert digests(found) == image.blobs()


async def test_a_ready_made_header_in_any_case_is_used_as_it_is(start: Any, image: ImageLayout) -> None:
    manifest = image.blob_path(image.root.digest).read_bytes()
    server = start(lambda _: Reply.of(manifest, header={"Content-Type": image.root.media_type}))
    header = {"authorization": "Custom abc", "X-Own": "1", "X-Darner-Insecure-Skip-Verify": "true", "Range": "bytes=0-1"}
    found = await resolve_image(f"{server.address}/a:v1", settings=LOOPBACK, header=header)
    assert found.authorization == Secret("Custom abc")
    seen = server.log[0].header
    assert (seen["authorization"], seen["x-own"], "range" in seen) == ("Custom abc", "1", False)
    assert not any(name.startswith("x-darner") for name in seen)


# --- the way there


async def test_credentials_do_not_follow_a_redirect_to_another_origin(start: Any, image: ImageLayout) -> None:
    manifest = image.blob_path(image.root.digest).read_bytes()
    other = start(lambda _: Reply.of(manifest, header={"Content-Type": image.root.media_type}))
    first = start(lambda _: Reply.of(b"", status=307, header={"Location": f"{other.base_url}/m"}))
    await resolve_image(f"{first.address}/a:v1", settings=LOOPBACK, authorization=Secret(f"Bearer {CANARY}"))
    assert CANARY in str(first.log[0].header)
    assert CANARY not in str(other.log[0].header)


@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "http://[fe80::1]/token"])
async def test_neither_a_redirect_nor_a_token_service_leads_to_a_forbidden_address(start: Any, realm: str) -> None:
    challenging = start(lambda _: Reply.of(b"", status=401, header={"WWW-Authenticate": f'Bearer realm="{realm}"'}))
    redirecting = start(lambda _: Reply.of(b"", status=302, header={"Location": realm}))
    for server in (challenging, redirecting):
        with pytest.raises(ForbiddenAddressError, match="never dialled"):
            await resolve_image(f"{server.address}/a:v1", settings=LOOPBACK)


async def test_loopback_is_refused_unless_allowed(registry: SmallRegistry) -> None:
    with pytest.raises(ForbiddenAddressError, match="loopback"):
        await resolve_image(f"{registry.address}/a:v1", settings=SessionSettings())


@pytest.mark.parametrize(("status", "advice"), [(403, "may pull"), (404, "check repository and tag"), (429, "fewer requests")])
async def test_a_refusal_is_told_with_its_status(start: Any, status: int, advice: str) -> None:
    server = start(lambda _: Reply.of(b"", status=status))
    with pytest.raises(OriginError, match=advice) as caught:
        await resolve_image(f"{server.address}/a:v1", settings=LOOPBACK)
    assert caught.value.status == status


async def test_a_registry_that_stumbles_is_asked_again(start: Any, image: ImageLayout) -> None:
    manifest = image.blob_path(image.root.digest).read_bytes()
    answers = iter([Reply.of(b"", status=503), Reply.of(manifest[:10] + b"x" * 90, header={"Content-Type": OCI})])

    def answer(_: Request) -> Reply:
        reply = next(answers, None)
        if reply is not None and reply.status == 200:
            return Reply(body=(manifest,), length=len(manifest) + 5, drop_after=len(manifest), header={"Content-Type": OCI})
        return reply or Reply.of(manifest, header={"Content-Type": image.root.media_type})

    server = start(answer)
    assert digests(await resolve_image(f"{server.address}/a:v1", settings=LOOPBACK)) == image.blobs()
    assert len(server.log) == 3


async def test_tls_is_verified_unless_told_otherwise(tmp_path: Path, image: ImageLayout) -> None:
    with SmallRegistry(tls_dir=tmp_path / "tls") as registry:
        registry.add("a/b", "v1", image)
        url = registry.manifest_url("a/b", "v1")
        with pytest.raises(NetError, match=r"certificate .* is not valid"):
            await resolve_image(url, settings=LOOPBACK)
        trusting = SessionSettings(policy=AddressPolicy(allow_loopback=True), ca_file=registry.ca_file)
        assert digests(await resolve_image(url, settings=trusting)) == image.blobs()
        assert digests(await resolve_image(url, settings=LOOPBACK, insecure=True)) == image.blobs()
