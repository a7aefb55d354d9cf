"""Real OCI images from computed files: layers are tars of regular files, packed as gzip, with a config, a manifest and an index.

The same arguments give the same bytes, so digests can be compared between runs. The layout can be read by skopeo
(`skopeo copy oci:DIR:latest docker://…`), podman and buildah, and served by `registry.SmallRegistry`. Gzip is used without
compression: the content is random anyway, and what counts here is that clients see the usual media type.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from darner.testing.content import Content

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_FILE_SIZE = 64 * 1024 * 1024
_CREATED = "2025-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What OCI says about a blob; `size` in bytes."""

    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """As it stands in manifests."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """The image for one platform (`linux/amd64`)."""

    platform: str
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayout:
    """An OCI image layout on disk. `root` is what a tag points to: a manifest, or with several platforms an index."""

    path: Path
    root: Descriptor
    images: tuple[PlatformImage, ...]

    def blob_path(self, digest: str) -> Path:
        """Where a blob lies."""
        algorithm, _, value = digest.partition(":")
        return self.path / "blobs" / algorithm / value

    def blobs(self) -> dict[str, int]:
        """Digest → size of every layer and config, over all platforms, each once."""
        return {d.digest: d.size for image in self.images for d in (*image.layers, image.config)}


def make_image(
    directory: Path,
    *,
    layers: Sequence[int] = (1024 * 1024,),
    platforms: Sequence[str] = ("linux/amd64",),
    seed: str = "image",
    tag: str = "latest",
) -> ImageLayout:
    """Write a layout below `directory`. `layers` are sizes in bytes of the files in them, bottom first.

    All platforms share the layers; each adds one small layer of its own when there are several, as real images do.
    """
    (directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    shared = [_layer(directory, f"{seed}-{number}", size) for number, size in enumerate(layers)]
    several = len(platforms) > 1
    images = []
    for platform in platforms:
        own = [_layer(directory, f"{seed}-{platform}", 4096)] if several else []
        images.append(_platform_image(directory, platform, [*shared, *own]))
    root = images[0].manifest
    if several:
        entries = [image.manifest.to_json() | {"platform": _platform(image.platform)} for image in images]
        root = _json_blob(directory, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    named = root.to_json() | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return ImageLayout(path=directory, root=root, images=tuple(images))


def load_layout(directory: Path) -> ImageLayout:
    """Read a layout that `make_image` or skopeo has written. Raises OSError, KeyError or ValueError if it is none."""
    entry = json.loads((directory / "index.json").read_text())["manifests"][0]
    layout = ImageLayout(path=directory, root=_descriptor(entry), images=())
    listed = (
        json.loads(layout.blob_path(layout.root.digest).read_bytes())["manifests"] if layout.root.media_type == INDEX else [entry]
    )
    return dataclasses.replace(layout, images=tuple(_load_platform(layout, one) for one in listed))


def _load_platform(layout: ImageLayout, entry: dict[str, Any]) -> PlatformImage:
    manifest = json.loads(layout.blob_path(entry["digest"]).read_bytes())
    config = json.loads(layout.blob_path(manifest["config"]["digest"]).read_bytes())
    return PlatformImage(
        platform="/".join(config[key] for key in ("os", "architecture", "variant") if key in config),
        manifest=_descriptor(entry),
        config=_descriptor(manifest["config"]),
        layers=tuple(_descriptor(layer) for layer in manifest["layers"]),
    )


def _descriptor(entry: dict[str, Any]) -> Descriptor:
    return Descriptor(media_type=entry["mediaType"], digest=entry["digest"], size=entry["size"])


def _platform(text: str) -> dict[str, str]:
    system, architecture, *variant = text.split("/")
    return {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})


def _platform_image(directory: Path, platform: str, layers: Sequence[tuple[Descriptor, str]]) -> PlatformImage:
    config = _json_blob(
        directory,
        CONFIG,
        _platform(platform)
        | {
            "created": _CREATED,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
            "history": [{"created": _CREATED, "created_by": "darner.testing"} for _ in layers],
        },
    )
    descriptors = tuple(descriptor for descriptor, _ in layers)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.to_json(),
        "layers": [descriptor.to_json() for descriptor in descriptors],
    }
    return PlatformImage(platform=platform, manifest=_json_blob(directory, MANIFEST, body), config=config, layers=descriptors)


def _json_blob(directory: Path, media_type: str, value: object) -> Descriptor:
    data = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (directory / "blobs" / "sha256" / digest).write_bytes(data)
    return Descriptor(media_type=media_type, digest=f"sha256:{digest}", size=len(data))


def _layer(directory: Path, seed: str, size: int) -> tuple[Descriptor, str]:
    """Write a layer blob; its descriptor and diff id (the digest of the unpacked tar)."""
    target = directory / "blobs" / "sha256" / f".{hashlib.sha256(seed.encode()).hexdigest()}.part"
    with target.open("wb") as file:
        outer = _Hashing(file)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=0, fileobj=outer, mtime=0) as packed:
            inner = _Hashing(packed)
            with tarfile.open(fileobj=inner, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                _fill(tar, seed, size)
    digest = outer.hexdigest()
    target.rename(target.with_name(digest))
    return Descriptor(media_type=LAYER, digest=f"sha256:{digest}", size=outer.size), f"sha256:{inner.hexdigest()}"


def _fill(tar: tarfile.TarFile, seed: str, size: int) -> None:
    name = seed.replace("/", "-")
    folder = tarfile.TarInfo(f"opt/{name}")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(folder)
    for number, start in enumerate(range(0, size, _FILE_SIZE)):
        entry = tarfile.TarInfo(f"opt/{name}/data-{number}.bin")
        entry.size, entry.mode = min(_FILE_SIZE, size - start), 0o644
        tar.addfile(entry, io.BufferedReader(_Reader(Content(entry.size, f"{seed}-{number}")), 1024 * 1024))
    link = tarfile.TarInfo(f"opt/{name}/first")
    link.type, link.linkname = tarfile.SYMTYPE, "data-0.bin"
    tar.addfile(link)


class _Reader(io.RawIOBase):
    """Computed content as a file to read."""

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (any writable buffer)
        data = next(self._content.read(self._position, self._position + len(buffer)), b"")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Hashing(io.RawIOBase):
    """A file to write that hashes and counts what goes through."""

    def __init__(self, target: BinaryIO | gzip.GzipFile) -> None:
        super().__init__()
        self._target = target
        self._hasher = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401  (any readable buffer)
        self._hasher.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()
