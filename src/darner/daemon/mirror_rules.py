"""Small laws of the registry mirror: which registry is meant, what travels on, what a blob request says (daemon.md, section 9)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from darner.core.digest import Digest
from darner.core.errors import InvalidInputError
from darner.core.task import DEFAULT_PRIORITY, Headers
from darner.core.url import masked, parse_url

HOP_HEADERS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
    }
)
OWN_PREFIXES = ("x-dragonfly-", "x-darner-")
ORIGIN_HEADERS = frozenset({"authorization", "accept", "user-agent", "cookie"})
"""What the source peer needs of a client's headers to fetch a blob."""
DOCKER_HUB = "registry-1.docker.io"
_HUB_NAMES = frozenset({"docker.io", "www.docker.io"})
_BLOB_PATH = re.compile(r"^/v2/(?P<name>.+)/blobs/(?P<digest>[A-Za-z0-9_+.-]+:[0-9A-Fa-f]+)$")
MAX_PRIORITY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobPath:
    """A blob as its path names it."""

    name: str
    digest: Digest


def blob_path(path: str) -> BlobPath | None:
    """The blob of `/v2/<name>/blobs/<digest>`, or None for any other path or a digest that the swarm cannot name.

    SHA-512 gives an id of 128 characters, which pieces cannot be asked for by (daemon.md, section 7).
    """
    found = _BLOB_PATH.match(path)
    if found is None or not found["digest"].lower().startswith("sha256:"):
        return None
    try:
        return BlobPath(name=found["name"], digest=Digest.parse(found["digest"]))
    except InvalidInputError:
        return None


def registry_base(header: str | None, namespace: str | None, default: str, insecure: Iterable[str]) -> str:
    """`scheme://host[:port]` of the registry: the header's, else `ns`'s, else the default. Raises InvalidInputError.

    A registry named without a scheme is spoken to by https, unless it is on this machine or listed as insecure.
    """
    named = (header or namespace or default).strip()
    if "://" not in named:
        authority = named.partition("/")[0]
        host = DOCKER_HUB if authority.lower() in _HUB_NAMES else authority
        named = f"{'http' if is_plain(host, insecure) else 'https'}://{host}"
    url = parse_url(named, field="registry")
    if url.protocol not in {"http:", "https:"} or not url.host or url.username or url.password:
        raise InvalidInputError(f"registry {masked(named)!r} is not HOST, HOST:PORT or http(s)://HOST", field="registry")
    return str(url.origin)


def is_plain(host: str, insecure: Iterable[str]) -> bool:
    """Whether a registry is spoken to without TLS."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) and not host.endswith("]") else host
    bare = name.strip("[]")
    if host in insecure or bare in insecure or bare == "localhost":
        return True
    try:
        return ip_address(bare).is_loopback
    except ValueError:
        return False


def forwarded(header: Iterable[tuple[str, str]]) -> Headers:
    """The request headers that a registry sees: not those of the connection, not ours.

    A repeated header becomes one line with commas (RFC 9110, 5.3): clients send a line of Accept per manifest type.
    """
    kept = Headers()
    for name, value in header:
        if name.lower() not in HOP_HEADERS and not name.lower().startswith(OWN_PREFIXES):
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def for_origin(header: Mapping[str, str]) -> Headers:
    """The request headers that the peer which goes to the source needs."""
    return Headers({name: value for name, value in header.items() if name.lower() in ORIGIN_HEADERS})


def returned(header: Iterable[tuple[str, str]], *, keep_length: bool) -> list[tuple[str, str]]:
    """The response headers that a client sees."""
    dropped = HOP_HEADERS - ({"content-length"} if keep_length else set())
    return [(name, value) for name, value in header if name.lower() not in dropped]


def priority_of(text: str | None) -> int:
    """`X-Dragonfly-Priority`; the default when it is absent or not a priority."""
    return int(text) if text and text.isascii() and text.isdigit() and int(text) <= MAX_PRIORITY else DEFAULT_PRIORITY


def is_true(text: str | None) -> bool:
    """Upstream's reading of a flag header."""
    return (text or "").strip().lower() == "true"
