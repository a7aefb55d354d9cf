"""Proxies from the environment: http_proxy, https_proxy, all_proxy, no_proxy, in lower or upper case.

Never used for loopback. The address of a proxy is the operator's word, so it may be loopback or private; link-local and metadata
addresses stay refused. Behind a proxy the names are resolved there: the guard then judges literal addresses and well-known
names only, and the proxy must guard what it resolves.
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from urllib.parse import unquote

from darner.core.errors import InvalidInputError
from darner.core.secret import Secret
from darner.core.url import parse_url
from darner.net.guard import is_loopback_host, literal_address

DEFAULT_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An http proxy; `authorization` is the value of Proxy-Authorization."""

    host: str
    port: int
    authorization: Secret | None = None

    @classmethod
    def parse(cls, text: str) -> "Proxy":
        """Parse `[http://][user:password@]host[:port]`. Raises InvalidInputError."""
        url = parse_url(text if "://" in text else f"http://{text}", field="proxy")
        if url.protocol != "http:":
            message = f"a proxy with the scheme {url.protocol.rstrip(':')!r} is not supported; use an http:// one"
            raise InvalidInputError(message, field="proxy")
        return cls(
            host=url.hostname.strip("[]"),
            port=int(url.port or DEFAULT_PORT),
            authorization=basic_authorization(unquote(url.username), unquote(url.password)) if url.username else None,
        )


def basic_authorization(username: str, password: str) -> Secret:
    """The header value for user and password (RFC 7617, UTF-8)."""
    return Secret("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Which proxy leads where; `no_proxy` holds names, suffixes, addresses, networks, each with an optional port, or `*`."""

    http: Proxy | None = None
    https: Proxy | None = None
    no_proxy: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "ProxySettings":
        """Read the usual variables. Raises InvalidInputError for one that is not usable."""
        env = os.environ if environ is None else environ

        def read(name: str) -> str:
            # HTTP_PROXY in capitals can be set by a remote client where CGI is in play (httpoxy)
            upper = "" if name == "http_proxy" and "REQUEST_METHOD" in env else env.get(name.upper(), "")
            return env.get(name, "") or upper

        fallback = read("all_proxy")
        http, https = (read(f"{scheme}_proxy") or fallback for scheme in ("http", "https"))
        return cls(
            http=Proxy.parse(http) if http else None,
            https=Proxy.parse(https) if https else None,
            no_proxy=tuple(part.strip().lower() for part in read("no_proxy").split(",") if part.strip()),
        )

    def find(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for this target, or None for a direct connection."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or is_loopback_host(host) or any(_covers(entry, host, port) for entry in self.no_proxy):
            return None
        return proxy


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    literal = literal_address(host)
    if literal is not None:
        try:
            return literal in ip_network(entry, strict=False)
        except ValueError:
            pass
    name, _, wanted = entry.rpartition(":")
    if name and wanted.isdigit():
        if int(wanted) != port:
            return False
        entry = name
    suffix = entry.lstrip("*").lstrip(".").strip("[]")
    lowered = host.lower().strip("[]").rstrip(".")
    return lowered == suffix or lowered.endswith("." + suffix)
