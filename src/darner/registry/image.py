"""What an image resolves to."""

from dataclasses import dataclass, field

from darner.core.secret import Secret
from darner.registry.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A layer or config blob; `size` in bytes, `digest` as `algorithm:hex`."""

    url: str
    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestInfo:
    """A manifest or index that was read; `size` in bytes. `platform` is None for an index or where nothing says it."""

    url: str
    digest: str
    size: int
    media_type: str
    platform: Platform | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """All blobs of the chosen platforms, each digest once, configs included.

    `authorization` is the header value that peers shall send, valid for about `authorization_expires_s` seconds (None: as long as
    the credentials). `notes` say what was left out and why.
    """

    layers: tuple[Blob, ...]
    manifests: tuple[ManifestInfo, ...]
    authorization: Secret | None = None
    authorization_expires_s: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def total_bytes(self) -> int:
        """The sum of the blobs' sizes."""
        return sum(blob.size for blob in self.layers)
