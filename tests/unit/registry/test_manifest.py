import json
from typing import Any

import pytest

from darner.registry.manifest import Index, Manifest, ManifestError, parse_config_platform, parse_manifest
from darner.registry.platform import Platform

OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": f"sha256:{number:064x}",
        "size": number * 10,
        **more,
    }


def parse(document: object, content_type: str = OCI) -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), content_type, "h.example/a:v1")


@pytest.mark.parametrize("media_type", [OCI, DOCKER])
@pytest.mark.parametrize("where", ["body", "header"])
def test_an_image_is_its_config_and_layers(media_type: str, where: str) -> None:
    document = {"schemaVersion": 2, "config": entry(1), "layers": [entry(2), entry(3)]}
    if where == "body":
        document["mediaType"] = media_type
    manifest = parse(document, media_type if where == "header" else "application/json; charset=utf-8")
    assert isinstance(manifest, Manifest)
    assert (manifest.config.size, [layer.size for layer in manifest.layers], manifest.media_type) == (10, [20, 30], media_type)


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_is_images_with_platforms(media_type: str) -> None:
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    attested = {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    index = parse({"mediaType": media_type, "manifests": [entry(1, platform=platform), entry(2, **attested), entry(3)]}, media_type)
    assert isinstance(index, Index)
    assert [each.platform for each in index.entries] == [
        Platform(os="linux", architecture="arm64", variant="v8"),
        Platform(os="unknown", architecture="unknown"),
        None,
    ]
    assert [each.is_attestation for each in index.entries] == [False, True, False]


@pytest.mark.parametrize(
    "layer",
    [
        entry(2, urls=["https://elsewhere.example/"]),
        entry(2) | {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"},
        entry(2) | {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"},
    ],
)
def test_layers_that_lie_elsewhere_are_marked(layer: dict[str, Any]) -> None:
    manifest = parse({"config": entry(1), "layers": [layer]})
    assert isinstance(manifest, Manifest)
    assert manifest.layers[0].is_foreign


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, "schema 1"),
        ([], "not a JSON object"),
        ("text", "not a JSON object"),
        ({}, "neither an image nor an index"),
        ({"errors": [{"code": "DENIED"}]}, "neither an image nor an index"),
        ({"manifests": [], "layers": [], "config": entry(1)}, "both an index and an image"),
        ({"mediaType": OCI_INDEX, "config": entry(1), "layers": []}, "another shape"),
        ({"mediaType": OCI, "manifests": []}, "another shape"),
        ({"config": entry(1), "layers": {}}, "must list"),
        ({"config": entry(1), "layers": [entry(2)] * 5000}, "must list at most"),
        ({"config": None, "layers": []}, "not an object"),
        ({"layers": [entry(2)]}, "not an object"),
        ({"config": entry(1), "layers": [entry(2) | {"size": -1}]}, "valid size"),
        ({"config": entry(1), "layers": [entry(2) | {"size": "20"}]}, "valid size"),
        ({"config": entry(1), "layers": [entry(2) | {"size": True}]}, "valid size"),
        ({"config": entry(1), "layers": [{"size": 1}]}, "invalid digest"),
        ({"config": entry(1), "layers": [entry(2) | {"digest": "sha256:../../etc/passwd"}]}, "invalid digest"),
        ({"config": entry(1), "layers": [entry(2) | {"digest": "crc32:5"}]}, "expected sha256 or sha512"),
    ],
)
def test_what_is_no_usable_manifest_is_refused_and_says_why(document: object, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        parse(document, "application/json")
    assert "h.example/a:v1" in caught.value.message


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xfe", b"[" * 200_000, b'{"a":'])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError, match="not JSON"):
        parse_manifest(data, OCI, "h.example/a:v1")


def test_a_config_says_its_platform_or_nothing() -> None:
    assert parse_config_platform(b'{"os":"linux","architecture":"aarch64"}') == Platform(os="linux", architecture="arm64")
    for data in (b"{}", b"[]", b"no json", b'{"os":5,"architecture":"amd64"}'):
        assert parse_config_platform(data) is None
