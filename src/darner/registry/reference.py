"""Image references as people and Harbor write them.

A reference without http or https is asked over https, but over http on a loopback host, as other tools do. Without a host it
means Docker Hub.
"""

import re
from dataclasses import dataclass

from darner.core.digest import Digest
from darner.core.errors import InvalidInputError
from darner.core.url import masked, parse_url, redacted
from darner.net.guard import is_loopback_host

FORMS = "https://HOST/v2/REPOSITORY/manifests/TAG-OR-DIGEST, docker://HOST/REPOSITORY:TAG, oci://… or HOST/REPOSITORY:TAG"
DEFAULT_TAG = "latest"
_HUB, _HUB_API = "docker.io", "registry-1.docker.io"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MANIFEST_PATH = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_HASHED = frozenset({"sha256", "sha512"})
MAX_NAME = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """One image in one registry. `host` may have a port; `reference` is a tag or a digest."""

    scheme: str
    host: str
    repository: str
    reference: str

    @property
    def base_url(self) -> str:
        """`scheme://host/v2/repository`."""
        return f"{self.scheme}://{self.host}/v2/{self.repository}"

    @property
    def url(self) -> str:
        """The manifest's URL."""
        return self.manifest_url(self.reference)

    def manifest_url(self, reference: str) -> str:
        """The URL of a manifest of the same repository."""
        return f"{self.base_url}/manifests/{reference}"

    def blob_url(self, digest: str) -> str:
        """The URL of a blob of the same repository."""
        return f"{self.base_url}/blobs/{digest}"

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}{'@' if ':' in self.reference else ':'}{self.reference}"


def parse_image_url(url: str) -> ImageRef:
    """Parse any of the accepted forms. Raises InvalidInputError naming them."""
    text = url.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _from_name(text, text)
    if scheme.lower() in {"docker", "oci"}:
        return _from_name(rest, text)
    if scheme.lower() not in {"http", "https"}:
        raise _invalid(text, f"unsupported scheme {scheme!r}")
    parsed = parse_url(text)
    if parsed.username or parsed.password:
        raise _invalid(redacted(text), "a user name and password do not belong into the URL; give them as credentials")
    found = _MANIFEST_PATH.fullmatch(parsed.pathname)
    if not found:
        raise _invalid(redacted(text), "the path is not that of a manifest")
    return _checked(parsed.protocol.rstrip(":"), parsed.host, found["name"], found["reference"].replace("%3A", ":"), text)


def _from_name(name: str, whole: str) -> ImageRef:
    if "@" in name.partition("/")[0]:
        raise _invalid("the reference", "a user name and password do not belong into it; give them as credentials")
    path, at, digest = name.partition("@")
    first, slash, rest = path.partition("/")
    has_host = slash and ("." in first or ":" in first or first.lower() == "localhost")
    host, remainder = (first, rest) if has_host else (_HUB, path)
    repository, colon, tag = remainder.rpartition(":")
    if not colon:
        repository, tag = remainder, DEFAULT_TAG
    if host in {_HUB, f"index.{_HUB}"}:
        repository = repository if "/" in repository else f"library/{repository}"
        host = _HUB_API
    try:
        hostname = parse_url(f"http://{host}").hostname
    except InvalidInputError:
        raise _invalid(whole, f"{host!r} is not a host") from None
    scheme = "http" if is_loopback_host(hostname) else "https"
    return _checked(scheme, host.lower(), repository, digest if at else tag, whole)


def _checked(scheme: str, host: str, repository: str, reference: str, whole: str) -> ImageRef:
    if not _REPOSITORY.fullmatch(repository) or len(repository) > MAX_NAME:
        raise _invalid(whole, f"{repository!r} is not a repository name (lower case letters, digits, and single . _ - / between)")
    if ":" in reference:
        digest = Digest.parse(reference, field="url")
        if digest.algorithm not in _HASHED:
            raise _invalid(whole, f"{reference!r} is not a digest that registries use (sha256, sha512)")
    elif not _TAG.fullmatch(reference):
        raise _invalid(whole, f"{reference!r} is not a tag")
    return ImageRef(scheme=scheme, host=host, repository=repository, reference=reference)


def _invalid(text: str, reason: str) -> InvalidInputError:
    return InvalidInputError(f"image reference {masked(text)}: {reason}; expected {FORMS}", field="url")
