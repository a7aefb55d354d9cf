"""The small registry and the images of the testing room, judged by the real clients: skopeo and podman."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from darner.testing.image import INDEX, load_layout, make_image
from darner.testing.programs import Podman
from darner.testing.registry import Auth, SmallRegistry

pytestmark = pytest.mark.debian("skopeo")


def skopeo(*args: str | Path) -> Any:
    done = subprocess.run(["skopeo", *args], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout


def test_the_same_arguments_give_the_same_image(tmp_path: Path) -> None:
    first = make_image(tmp_path / "1", layers=(100_000, 70_000))
    second = make_image(tmp_path / "2", layers=(100_000, 70_000))
    assert first.root == second.root
    assert first.blobs() == second.blobs()
    assert make_image(tmp_path / "3", layers=(100_000, 70_000), seed="other").root != first.root


def test_a_written_layout_is_read_back_as_it_was(tmp_path: Path) -> None:
    made = make_image(tmp_path / "1", layers=(10_000,), platforms=("linux/amd64", "linux/arm64/v8"))
    assert made.root.media_type == INDEX
    assert load_layout(tmp_path / "1") == made


PASSWORD = "pa:ss"  # a colon in it is the difficult case


@pytest.mark.parametrize("auth", ["none", "basic", "bearer"])
def test_skopeo_copies_the_image_and_each_blob_is_counted_once(tmp_path: Path, auth: Auth) -> None:
    made = make_image(tmp_path / "image", layers=(3_000_000, 20_000))
    with SmallRegistry(auth=auth, username="ann", password=PASSWORD) as registry:
        registry.add("team/app", "v1", made)
        credentials = () if auth == "none" else ("--src-creds", f"ann:{PASSWORD}")
        source = f"docker://{registry.address}/team/app:v1"
        skopeo("copy", "-q", "--src-tls-verify=false", *credentials, source, f"dir:{tmp_path / 'copy'}")
        assert registry.blob_bytes() == made.blobs()
        if auth != "none":
            assert httpx.get(registry.manifest_url("team/app", "v1")).status_code == 401
            wrong = subprocess.run(
                ["skopeo", "inspect", "--tls-verify=false", "--creds", "ann:wrong", source],
                check=False,
                capture_output=True,
                text=True,
            )
            assert wrong.returncode != 0
    for digest, size in made.blobs().items():
        assert (tmp_path / "copy" / digest.removeprefix("sha256:")).stat().st_size == size


def test_an_index_gives_each_platform_its_own_image(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", layers=(50_000,), platforms=("linux/amd64", "linux/arm64"))
    with SmallRegistry() as registry:
        registry.add("app", "v1", made)
        for architecture, image in zip(("amd64", "arm64"), made.images, strict=True):
            source = f"docker://{registry.address}/app:v1"
            shown = skopeo("--override-arch", architecture, "inspect", "--tls-verify=false", source)
            assert shown["Layers"] == [layer.digest for layer in image.layers]


@pytest.mark.debian("podman")
def test_podman_unpacks_what_the_image_holds(tmp_path: Path, podman: Podman) -> None:
    made = make_image(tmp_path / "image", layers=(70_000_000, 20_000))
    with SmallRegistry() as registry:
        registry.add("app", "v1", made)
        pulled = podman("pull", "-q", "--tls-verify=false", f"{registry.address}/app:v1")
        assert pulled.returncode == 0, pulled.stderr
        assert pulled.stdout.strip() == made.images[0].config.digest.removeprefix("sha256:")
