"""From an image reference to its blobs: manifest or index, platforms, layers, configs (manager.md §6.6)."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence

from darner.core.errors import DigestMismatchError, InvalidInputError
from darner.core.secret import Secret
from darner.core.task import Headers
from darner.core.url import redacted
from darner.net.http import GuardedSession, SessionSettings, open_session
from darner.registry.auth import Credentials
from darner.registry.image import Blob, ManifestInfo, ResolvedImage
from darner.registry.manifest import ACCEPT, Descriptor, Index, Manifest, ManifestError, parse_config_platform, parse_manifest
from darner.registry.platform import Platform
from darner.registry.reference import ImageRef, parse_image_url
from darner.registry.transport import Transport

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 3
CONCURRENCY = 4
SKIP_VERIFY = "x-darner-insecure-skip-verify"
_NOT_SENT = ("host", "range", "accept", "accept-encoding", "content-length", "content-type", "connection", "transfer-encoding")


class RegistryClient:
    """Resolves one image. The session stays the caller's."""

    def __init__(
        self,
        ref: ImageRef,
        session: GuardedSession,
        *,
        credentials: Credentials | None = None,
        header: Mapping[str, str] | None = None,
        insecure: bool = False,
        max_retries: int = 2,
    ) -> None:
        """An Authorization in `header` is used as it is, without asking the registry's token service."""
        given = Headers(header or {})
        ours = [name for name in given if name.lower().startswith(("x-darner-", "x-dragonfly-"))]
        self._ref = ref
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._transport = Transport(
            ref,
            session,
            credentials=credentials,
            header=given.without(*_NOT_SENT, *ours),
            insecure=insecure or (given.find(SKIP_VERIFY) or "").lower() == "true",
            max_retries=max_retries,
        )

    async def resolve(self, platforms: Sequence[str] | None = None) -> ResolvedImage:
        """All blobs of the image for these platforms; without any, of every platform that the index has.

        Attestations and layers that the registry does not hold are left out with a note. Raises InvalidInputError (unknown
        platform), OriginError, NetError, ManifestError, DigestMismatchError, ForbiddenAddressError.
        """
        wanted = tuple(Platform.parse(text) for text in platforms or ())
        gathering = _Gathering(self._ref)
        root, info = await self._read(self._ref.reference, None)
        if isinstance(root, Manifest):
            gathering.add(root, await self._judged(root, info, wanted, gathering))
        else:
            gathering.manifests.append(info)
            chosen = await self._choose(root, wanted, gathering)
            for manifest, found in await self._read_all(chosen):
                if not isinstance(manifest, Manifest):
                    raise ManifestError(f"the manifest {redacted(found.url)} is an index where an image was announced")
                gathering.add(manifest, found)
        grant = self._transport.grant
        return ResolvedImage(
            layers=tuple(gathering.blobs.values()),
            manifests=tuple(gathering.manifests),
            authorization=grant.authorization if grant else None,
            authorization_expires_s=grant.expires_s if grant else None,
            notes=tuple(dict.fromkeys(gathering.notes)),
        )

    async def _read(self, reference: str, entry: Descriptor | None) -> tuple[Manifest | Index, ManifestInfo]:
        url = self._ref.manifest_url(reference)
        async with self._slots:
            answer = await self._transport.get(url, accept=ACCEPT, max_bytes=MAX_MANIFEST_BYTES, what="manifest")
        promised = reference if ":" in reference else answer.header.find("docker-content-digest")
        digest = _verified(answer.body, promised, url)
        content_type = answer.header.find("content-type") or ""
        manifest = parse_manifest(answer.body, content_type, redacted(url))
        return manifest, ManifestInfo(
            url=self._ref.manifest_url(digest),
            digest=digest,
            size=len(answer.body),
            media_type=manifest.media_type,
            platform=entry.platform if entry else None,
        )

    async def _read_all(self, entries: list[Descriptor]) -> list[tuple[Manifest | Index, ManifestInfo]]:
        """All at once, as far as slots allow; the first failure ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read(entry.digest, entry)) for entry in entries]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _choose(self, index: Index, wanted: tuple[Platform, ...], gathering: "_Gathering") -> list[Descriptor]:
        """The images of an index, and of indexes in it, that fit. Raises InvalidInputError naming what there is."""
        images = list({entry.digest: entry for entry in await self._flatten(index, gathering, MAX_DEPTH)}.values())
        for platform in wanted:
            if not any(entry.platform and platform.accepts(entry.platform) for entry in images):
                raise _no_platform(platform, self._ref, [entry.platform for entry in images])
        if not wanted:
            return images
        return [entry for entry in images if entry.platform and any(platform.accepts(entry.platform) for platform in wanted)]

    async def _flatten(self, index: Index, gathering: "_Gathering", depth: int) -> list[Descriptor]:
        if not depth:
            raise ManifestError(f"the index {self._ref} is nested more than {MAX_DEPTH} deep")
        found = []
        for entry in index.entries:
            if entry.is_attestation or (entry.platform and entry.platform.is_unknown):
                gathering.notes.append(f"attestation {entry.digest} was left out")
            elif "index" in entry.media_type or "manifest.list" in entry.media_type:
                inner, info = await self._read(entry.digest, entry)
                gathering.manifests.append(info)
                if isinstance(inner, Index):
                    found += await self._flatten(inner, gathering, depth - 1)
            else:
                found.append(entry)
        return found

    async def _judged(
        self, manifest: Manifest, info: ManifestInfo, wanted: tuple[Platform, ...], gathering: "_Gathering"
    ) -> ManifestInfo:
        """A single image says its platform in its config only; it is read when somebody wants a certain one."""
        if not wanted:
            return info
        url = self._ref.blob_url(manifest.config.digest)
        answer = await self._transport.get(url, accept="*/*", max_bytes=MAX_MANIFEST_BYTES, what="image config")
        _verified(answer.body, manifest.config.digest, url)
        platform = parse_config_platform(answer.body)
        if platform is None:
            gathering.notes.append("the image does not say its platform; it was taken as it is")
        else:
            for each in wanted:
                if not each.accepts(platform):
                    raise _no_platform(each, self._ref, [platform])
        return ManifestInfo(url=info.url, digest=info.digest, size=info.size, media_type=info.media_type, platform=platform)


class _Gathering:
    """What has been found so far; each digest once."""

    def __init__(self, ref: ImageRef) -> None:
        self._ref = ref
        self.blobs: dict[str, Blob] = {}
        self.manifests: list[ManifestInfo] = []
        self.notes: list[str] = []

    def add(self, manifest: Manifest, info: ManifestInfo) -> None:
        self.manifests.append(info)
        for each in (manifest.config, *manifest.layers):
            if each.is_foreign:
                self.notes.append(f"layer {each.digest} was left out: its licence keeps it out of registries")
                continue
            blob = Blob(url=self._ref.blob_url(each.digest), digest=each.digest, size=each.size, media_type=each.media_type)
            known = self.blobs.setdefault(each.digest, blob)
            if known.size != each.size:
                raise ManifestError(f"two manifests of {self._ref} disagree on the size of {each.digest}")


def _verified(body: bytes, promised: str | None, url: str) -> str:
    """The digest of the body, compared with the promised one. Raises DigestMismatchError."""
    if promised and not promised.startswith(("sha256:", "sha512:")):
        promised = None
    algorithm = promised.partition(":")[0] if promised else "sha256"
    digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
    if promised and digest != promised.lower():
        raise DigestMismatchError(
            f"{redacted(url)} has the digest {digest}, not {promised}; the registry or something before it changed it"
        )
    return digest


def _no_platform(platform: Platform, ref: ImageRef, available: Sequence[Platform | None]) -> InvalidInputError:
    names = ", ".join(sorted({str(each) for each in available if each})) or "none that it names"
    return InvalidInputError(f"no matching manifest for platform {platform} in {ref}; available: {names}", field="platform")


async def resolve_image(
    url: str,
    platforms: Sequence[str] | None = None,
    *,
    settings: SessionSettings,
    credentials: Credentials | None = None,
    authorization: Secret | None = None,
    header: Mapping[str, str] | None = None,
    insecure: bool = False,
) -> ResolvedImage:
    """Parse, connect, resolve, and close. `authorization` is a ready-made header value. Raises what RegistryClient.resolve does."""
    ref = parse_image_url(url)
    given = Headers(header or {})
    if authorization:
        given = Headers({**given.without("authorization"), "Authorization": authorization.reveal()})
    async with open_session(settings) as session:
        return await RegistryClient(ref, session, credentials=credentials, header=given, insecure=insecure).resolve(platforms)
