"""Container images: preheated once, pulled by real clients through the mirrors of several daemons."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from darner.testing.cluster import Daemon, UpCluster, UpFactory
from darner.testing.content import sha256_of
from darner.testing.image import PlatformImage, make_image
from darner.testing.programs import DockerRegistry, Podman, run
from darner.testing.registry import SmallRegistry

MIB = 1024**2
CANARY = "canary-8c1f-never-in-a-log"
STAT_BYTES = 1  # asking how long a blob is may cost one byte, as upstream does it (GET with Range: bytes=0-0)
MIRROR_OF = "DARNER_PROXY__REGISTRYMIRROR__ADDR"


def assert_left_once(sent: Mapping[str, int], blobs: Mapping[str, int]) -> None:
    """Every blob's bytes left the registry exactly once, and no other's."""
    assert set(sent) == set(blobs)
    surplus = {digest: sent[digest] - size for digest, size in blobs.items()}
    assert all(0 <= more <= STAT_BYTES for more in surplus.values()), surplus


def blobs_of(image: PlatformImage) -> dict[str, int]:
    return {blob.digest: blob.size for blob in (*image.layers, image.config)}


def pull(daemon: Daemon, repository: str, target: Path, *, arch: str = "amd64") -> Path:
    """Copy an image through a daemon's mirror into a directory of blobs."""
    source = f"docker://{daemon.mirror_address}/{repository}"
    run(
        [
            "skopeo",
            "--override-os",
            "linux",
            "--override-arch",
            arch,
            "copy",
            "-q",
            "--src-tls-verify=false",
            source,
            f"dir:{target}",
        ]
    )
    return target


def assert_is(directory: Path, image: PlatformImage) -> None:
    """A pulled directory holds exactly this image: its manifest and every blob, each matching its digest."""
    assert "sha256:" + sha256_of(directory / "manifest.json") == image.manifest.digest
    found = {f"sha256:{path.name}": f"sha256:{sha256_of(path)}" for path in directory.iterdir() if len(path.name) == 64}
    assert found == {digest: digest for digest in blobs_of(image)}


@pytest.mark.debian("docker-registry", "skopeo")
def test_a_preheated_image_leaves_the_registry_once_and_three_daemons_serve_it(
    docker_registry: DockerRegistry, darner_up: UpFactory, tmp_path: Path
) -> None:
    layout = make_image(tmp_path / "image", layers=(200 * MIB, 24 * MIB, 3 * MIB), platforms=("linux/amd64", "linux/arm64"))
    amd64, arm64 = layout.images
    docker_registry.push(layout, "team/app", "v1")
    docker_registry.forget_counts()
    cluster = darner_up(peers=3, env={MIRROR_OF: docker_registry.base_url})
    first, second, third = cluster.facts.peers

    done = cluster.run("preheat", docker_registry.manifest_url("team/app", "v1"), "--type", "image", "--platform", "linux/amd64")
    assert done.returncode == 0, done.stderr
    assert_left_once(docker_registry.blob_bytes(), blobs_of(amd64))

    docker_registry.forget_counts()
    for daemon in (first, second, third):
        assert_is(pull(daemon, "team/app:v1", tmp_path / daemon.name), amd64)
    assert_is(pull(first, "team/app:v1", tmp_path / "again"), amd64)
    assert docker_registry.blob_bytes() == {}, "a preheated image was read from the registry again"

    for daemon in (second, third):
        assert_is(pull(daemon, "team/app:v1", tmp_path / f"{daemon.name}-arm64", arch="arm64"), arm64)
    assert_left_once(docker_registry.blob_bytes(), {d: size for d, size in blobs_of(arm64).items() if d not in blobs_of(amd64)})

    blob = f"{first.mirror}/v2/team/app/blobs/{amd64.layers[2].digest}"
    docker_registry.forget_counts()
    named = httpx.get(blob, params={"ns": docker_registry.base_url})
    assert (named.status_code, hashlib.sha256(named.content).hexdigest()) == (200, amd64.layers[2].digest.removeprefix("sha256:"))
    part = httpx.get(blob, headers={"Range": "bytes=1048570-1048585"})
    assert (part.status_code, part.content) == (206, named.content[1048570:1048586])
    assert docker_registry.blob_bytes() == {}


@pytest.mark.debian("docker-registry", "skopeo")
def test_a_client_that_names_the_registry_itself_goes_through_the_mirror_by_its_configuration(
    docker_registry: DockerRegistry, darner_up: UpFactory, tmp_path: Path
) -> None:
    layout = make_image(tmp_path / "image", layers=(9 * MIB, MIB, 50_000))
    docker_registry.push(layout, "app", "v2")
    cluster = darner_up(peers=2, env={MIRROR_OF: docker_registry.base_url})
    first, second = cluster.facts.peers
    assert_is(pull(first, "app:v2", tmp_path / "first"), layout.images[0])
    docker_registry.forget_counts()
    configuration = tmp_path / "registries.conf"
    configuration.write_text(
        f'[[registry]]\nlocation = "{docker_registry.address}"\ninsecure = true\n'
        f'[[registry.mirror]]\nlocation = "{second.mirror_address}"\ninsecure = true\n'
    )
    source, target = f"docker://{docker_registry.address}/app:v2", f"dir:{tmp_path / 'second'}"
    run(["skopeo", "--registries-conf", configuration, "copy", "-q", source, target])
    assert_is(tmp_path / "second", layout.images[0])
    assert docker_registry.blob_bytes() == {}


@pytest.mark.debian("podman")
def test_podman_pulls_a_private_image_and_the_password_is_in_no_file_of_ours(
    darner_up: UpFactory, podman: Podman, tmp_path: Path
) -> None:
    layout = make_image(tmp_path / "image", layers=(20 * MIB, 2 * MIB, 100_000))
    with SmallRegistry(auth="bearer", username="ann", password=CANARY) as registry:
        registry.add("private/app", "v1", layout)
        cluster = darner_up(peers=2, env={MIRROR_OF: registry.server.base_url})
        preheat = (
            "preheat",
            registry.manifest_url("private/app", "v1"),
            "--type",
            "image",
            "--username",
            "ann",
            "--password-stdin",
        )
        done = cluster.run(*preheat, text_in=CANARY)
        assert done.returncode == 0, done.stderr
        assert CANARY not in done.stdout + done.stderr
        assert_left_once(registry.blob_bytes(), layout.blobs())
        registry.forget_counts()
        reference = f"{cluster.facts.peers[0].mirror_address}/private/app:v1"
        pulled = podman("pull", "-q", "--tls-verify=false", "--creds", f"ann:{CANARY}", reference)
        assert pulled.returncode == 0, pulled.stderr
        assert pulled.stdout.strip() == layout.images[0].config.digest.removeprefix("sha256:")
        assert registry.blob_bytes() == {}
        tokens = {access.header.get("authorization", "").partition(" ")[2] for access in registry.log} - {""}

        stranger = httpx.get(f"{cluster.facts.peers[0].mirror}/v2/private/app/blobs/{layout.images[0].layers[1].digest}")
        assert stranger.status_code in (401, 403), "what was loaded with one user's rights was given to somebody without any"

        shown = json.dumps(cluster.documents("jobs", "ls"))
        assert CANARY not in shown
        cluster.stop()
        for secret in {CANARY, *tokens}:
            assert files_with(cluster, secret) == []


def files_with(cluster: UpCluster, secret: str) -> list[str]:
    """Every file of the system that holds this text in clear: logs, database, configuration, what `up` printed."""
    files = [cluster.out_file, cluster.err_file, *(path for path in cluster.data_dir.rglob("*") if path.is_file())]
    return [str(path) for path in files if "content" not in path.parts and secret.encode() in path.read_bytes()]


@pytest.mark.debian("podman")
def test_an_image_that_nobody_preheated_comes_through_the_mirror_too(darner_up: UpFactory, podman: Podman, tmp_path: Path) -> None:
    layout = make_image(tmp_path / "image", layers=(12 * MIB, 100_000))
    with SmallRegistry() as registry:
        registry.add("app", "v1", layout)
        cluster = darner_up(peers=2, env={MIRROR_OF: registry.server.base_url})
        first, second = cluster.facts.peers
        pulled = podman("pull", "-q", "--tls-verify=false", f"{first.mirror_address}/app:v1")
        assert pulled.returncode == 0, pulled.stderr
        assert_left_once(registry.blob_bytes(), layout.blobs())
        registry.forget_counts()
        for layer in layout.images[0].layers:
            served = httpx.get(f"{second.mirror}/v2/app/blobs/{layer.digest}")
            assert f"sha256:{hashlib.sha256(served.content).hexdigest()}" == layer.digest
        assert registry.blob_bytes() == {}
