"""The jobs room's view of image registries: reads manifests with the guard and the CA of the manager's configuration."""

from darner.core.secret import Secret
from darner.core.task import Headers
from darner.jobs.events import Content, JobSpec
from darner.jobs.ports import Resolved
from darner.net.http import SessionSettings
from darner.registry import Credentials, resolve_image


class RegistryImages:
    """ImageResolver over `registry`."""

    def __init__(self, settings: SessionSettings) -> None:
        """How to connect."""
        self._settings = settings

    async def resolve(self, spec: JobSpec) -> Resolved:
        """The blobs of the image, and the Authorization that peers send. Raises DarnerError."""
        credentials = Credentials(username=spec.username, password=Secret(spec.password)) if spec.username else None
        image = await resolve_image(
            spec.urls[0], list(spec.platforms) or None, settings=self._settings, credentials=credentials, header=spec.headers
        )
        headers = Headers()
        if image.authorization:
            headers["Authorization"] = image.authorization.reveal()
        return Resolved(
            contents=tuple(Content(url=blob.url, digest=blob.digest, size_bytes=blob.size) for blob in image.layers),
            headers=headers,
            notes=image.notes,
        )
