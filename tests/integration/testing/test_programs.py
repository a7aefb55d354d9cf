"""The real servers that fixtures start: they serve, their logs count right, and nothing stays behind."""

from pathlib import Path

import httpx
import pytest

from darner.testing.content import Content
from darner.testing.image import make_image
from darner.testing.ports import free_port_base, is_free
from darner.testing.programs import Child, DockerRegistry, NginxFiles, ProgramError


@pytest.mark.debian("docker-registry", "skopeo")
def test_docker_registry_takes_an_image_unchanged_and_its_log_counts_blob_bytes(
    docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    layout = make_image(tmp_path / "image", layers=(700_000, 20_000), platforms=("linux/amd64", "linux/arm64"))
    docker_registry.push(layout, "team/app", "v1")
    docker_registry.forget_counts()
    served = httpx.get(docker_registry.manifest_url("team/app", "v1"), headers={"Accept": layout.root.media_type})
    assert served.headers["docker-content-digest"] == layout.root.digest
    first = layout.images[0].layers[0]
    blob = f"{docker_registry.base_url}/v2/team/app/blobs/{first.digest}"
    assert httpx.get(blob).content == layout.blob_path(first.digest).read_bytes()
    assert httpx.head(blob).status_code == 200
    assert httpx.get(blob, headers={"Range": "bytes=5-104"}).status_code == 206
    assert docker_registry.blob_bytes() == {first.digest: first.size + 100}


@pytest.mark.debian("nginx-light")
def test_nginx_serves_and_its_log_counts_body_bytes(nginx_files: NginxFiles) -> None:
    content = Content(3_000_000, "n")
    content.write(nginx_files.files / "a.bin")
    assert httpx.get(nginx_files.url("a.bin")).content == content.bytes()
    assert httpx.get(nginx_files.url("a.bin"), headers={"Range": "bytes=10-19"}).content == content.bytes(10, 20)
    assert httpx.head(nginx_files.url("a.bin")).status_code == 200
    assert nginx_files.body_bytes() == 3_000_010


def test_a_program_that_does_not_start_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    child = Child(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    with pytest.raises(ProgramError, match="no such luck"):
        child.wait_for_port(1)
    assert child.stop() == 3


def test_a_base_of_free_ports_can_be_bound_throughout() -> None:
    base = free_port_base(30)
    assert all(is_free(port) for port in range(base, base + 30))
