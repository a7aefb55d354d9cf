"""Where a request goes: a URL taken apart once, by WHATWG rules, so that guard, TLS and Host header see the same host."""

from dataclasses import dataclass
from urllib.parse import unquote

from darner.core.errors import InvalidInputError
from darner.core.task import Headers
from darner.core.url import parse_url, redacted
from darner.net.proxy import basic_authorization

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Scheme, host without brackets, port, and the request target (path and query)."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Take an http or https URL apart. Raises InvalidInputError naming the known schemes."""
        parsed = parse_url(url)
        scheme = parsed.protocol.rstrip(":")
        if scheme not in DEFAULT_PORTS or not parsed.hostname:
            message = f"unsupported scheme {scheme!r} in {redacted(url)}; expected http or https"
            raise InvalidInputError(message, field="url")
        return cls(
            scheme=scheme,
            host=parsed.hostname.strip("[]"),
            port=int(parsed.port or DEFAULT_PORTS[scheme]),
            path=parsed.pathname + parsed.search,
        )

    @property
    def authority(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The authority without the scheme's default port."""
        return self.authority.removesuffix(f":{self.port}") if self.port == DEFAULT_PORTS[self.scheme] else self.authority


def without_userinfo(url: str, header: Headers) -> tuple[str, Headers]:
    """`https://user:password@host/` as a URL without them and a basic Authorization header, unless one is given already."""
    parsed = parse_url(url)
    user, password = unquote(parsed.username), unquote(parsed.password)
    parsed.username = parsed.password = parsed.hash = ""
    if user and header.find("authorization") is None:
        header = Headers({**header, "Authorization": basic_authorization(user, password).reveal()})
    return str(parsed.href), header
