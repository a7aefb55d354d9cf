"""Reading manifests and indexes (OCI image spec 1.1; Docker schema 2). Plain functions over bytes; everything is checked."""

import json
from dataclasses import dataclass
from typing import Any

from darner.core.digest import Digest
from darner.core.errors import DarnerError, InvalidInputError
from darner.registry.platform import Platform

MANIFEST_TYPES = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"},
)
INDEX_TYPES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"},
)
ACCEPT = ", ".join(sorted(MANIFEST_TYPES) + sorted(INDEX_TYPES))
MAX_ENTRIES = 4096
_ATTESTATION = "vnd.docker.reference.type"


class ManifestError(DarnerError):
    """The registry's answer is not a manifest that can be used."""

    kind = "origin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a manifest says of another piece of content; `size` in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    is_foreign: bool = False
    is_attestation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image: its config and its layers."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several images, one per platform."""

    media_type: str
    entries: tuple[Descriptor, ...]


def parse_manifest(data: bytes, content_type: str, where: str) -> Manifest | Index:
    """Read a manifest or an index; `where` names it in errors. Raises ManifestError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ManifestError(f"the manifest {where} is not JSON; check that the address is a registry's") from None
    if not isinstance(document, dict):
        raise ManifestError(f"the manifest {where} is not a JSON object")
    media_type = document.get("mediaType") or content_type.partition(";")[0].strip()
    if document.get("schemaVersion") == 1 or "manifest.v1" in str(media_type).replace("oci.image.manifest.v1", ""):
        raise ManifestError(f"the manifest {where} has the outdated schema 1, which is not supported; push the image again")
    is_index, is_image = "manifests" in document, "layers" in document or "config" in document
    if is_index == is_image:
        # with both, two readers could see two images (CVE-2021-41190)
        kind = "both an index and an image" if is_index else f"neither an image nor an index ({str(media_type)[:80]!r})"
        raise ManifestError(f"the manifest {where} is {kind}; refused")
    wanted = INDEX_TYPES if is_index else MANIFEST_TYPES
    if media_type in (INDEX_TYPES | MANIFEST_TYPES) - wanted:
        raise ManifestError(f"the manifest {where} says it is {media_type} but has another shape; refused")
    if is_index:
        return Index(media_type=str(media_type), entries=_descriptors(document["manifests"], where))
    config = _descriptor(document.get("config"), where)
    return Manifest(media_type=str(media_type), config=config, layers=_descriptors(document.get("layers", []), where))


def parse_config_platform(data: bytes) -> Platform | None:
    """The platform that an image's config states, or None if it is not the config of an image."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return _platform(document) if isinstance(document, dict) else None


def _descriptors(entries: object, where: str) -> tuple[Descriptor, ...]:
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise ManifestError(f"the manifest {where} must list at most {MAX_ENTRIES} entries")
    return tuple(_descriptor(entry, where) for entry in entries)


def _descriptor(entry: object, where: str) -> Descriptor:
    if not isinstance(entry, dict):
        raise ManifestError(f"the manifest {where} has an entry that is not an object")
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ManifestError(f"the manifest {where} has an entry without a valid size")
    try:
        digest = Digest.parse(str(entry.get("digest")))
    except InvalidInputError as error:
        raise ManifestError(f"the manifest {where} has an entry with an invalid digest ({error.message})") from None
    if digest.algorithm not in {"sha256", "sha512"}:
        raise ManifestError(f"the manifest {where} has an entry with a {digest.algorithm} digest; expected sha256 or sha512")
    media_type = str(entry.get("mediaType", ""))
    annotations = entry.get("annotations")
    return Descriptor(
        media_type=media_type,
        digest=str(digest),
        size=size,
        platform=_platform(entry.get("platform")),
        is_foreign="foreign" in media_type or "nondistributable" in media_type or bool(entry.get("urls")),
        is_attestation=isinstance(annotations, dict) and _ATTESTATION in annotations,
    )


def _platform(value: Any) -> Platform | None:  # noqa: ANN401  (JSON)
    if not isinstance(value, dict):
        return None
    os, architecture, variant = (value.get(key) or "" for key in ("os", "architecture", "variant"))
    if not (isinstance(os, str) and isinstance(architecture, str) and isinstance(variant, str) and os and architecture):
        return None
    return Platform.named(os, architecture, variant)
