"""OCI registries, as far as preheating needs them: an image reference becomes the blobs that make up the image.

In flow a reference, platforms and credentials; out flow blob URLs with digests and sizes, the Authorization header that peers shall
use, and notes on what was left out. Refused are manifests that are too large, not JSON, of schema 1, or not of their digest.
"""

from darner.registry.auth import Credentials
from darner.registry.client import RegistryClient, resolve_image
from darner.registry.image import Blob, ManifestInfo, ResolvedImage
from darner.registry.platform import Platform
from darner.registry.reference import ImageRef, parse_image_url

__all__ = [
    "Blob",
    "Credentials",
    "ImageRef",
    "ManifestInfo",
    "Platform",
    "RegistryClient",
    "ResolvedImage",
    "parse_image_url",
    "resolve_image",
]
