"""Logging in to a registry: challenges (RFC 9110 §11, Docker token authentication) and who is told which secret.

A ready-made Authorization is used as it is. User and password go to the registry (Basic) or to the token service that it names
(Bearer), there only over https, or over http if the registry itself is asked over http.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from darner.core.errors import OriginError
from darner.core.secret import Secret
from darner.core.url import masked, parse_url, redacted
from darner.net.proxy import basic_authorization

DEFAULT_EXPIRY_S = 60.0
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)(?:\s+|$)(?![\s=])")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user of a registry."""

    username: str
    password: Secret

    def basic(self) -> Secret:
        """The Basic header value."""
        return basic_authorization(self.username, self.password.reveal())


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and keys in lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A header value and how long it lasts in seconds (None: as long as the credentials)."""

    authorization: Secret
    expires_s: float | None = None


def parse_challenges(text: str) -> list[Challenge]:
    """All challenges of the header, also several in one line; what cannot be read ends the list."""
    found, at = [], 0
    while at < len(text):
        scheme = _SCHEME.match(text, at)
        if not scheme:
            break
        at = scheme.end()
        parameters = {}
        while parameter := _PARAMETER.match(text, at):
            quoted, plain = parameter[2], parameter[3]
            parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            at = parameter.end()
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return found


def token_url(challenge: Challenge, *, registry_scheme: str, repository: str, has_credentials: bool) -> str:
    """The URL of the token service with service and scope. Raises OriginError if it must not be asked."""
    realm = challenge.parameters.get("realm", "")
    scheme = realm.partition("://")[0].lower()
    if scheme not in {"http", "https"}:
        raise OriginError(f"the registry names no usable token service ({masked(realm)!r})", status=401)
    if has_credentials and scheme == "http" and registry_scheme == "https":
        message = f"the token service {redacted(realm)} is plain http; user and password are not sent there"
        raise OriginError(message, status=401)
    url = parse_url(realm)
    url.username = url.password = ""
    query = [f"scope={quote(challenge.parameters.get('scope') or f'repository:{repository}:pull', safe='')}"]
    if service := challenge.parameters.get("service"):
        query.insert(0, f"service={quote(service, safe='')}")
    url.search = "&".join([url.search.removeprefix("?"), *query] if url.search else query)
    return str(url.href)


def parse_token(data: bytes, url: str) -> Grant:
    """The token service's answer. Raises OriginError."""
    try:
        document = json.loads(data)
        token = document.get("token") or document.get("access_token")
        expires = document.get("expires_in")
    except (ValueError, AttributeError, RecursionError):
        token, expires = None, None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise OriginError(f"the token service {redacted(url)} gave no token", status=401)
    lasts = float(expires) if isinstance(expires, int | float) and expires > 0 else DEFAULT_EXPIRY_S
    return Grant(authorization=Secret(f"Bearer {token}"), expires_s=lasts)
