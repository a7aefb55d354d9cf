"""The asynchronous HTTP client (aiohttp) for registry and mirror: the same guard, TLS, proxy and redirect rules as the pool's.

The guard sits in the socket factory, so it sees every address that is really dialled: resolved ones, literal ones, and those of
redirects. Bodies are not decompressed, cookies are not kept.
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from darner.core.errors import ForbiddenAddressError
from darner.core.task import Headers
from darner.net.errors import NetError, net_error
from darner.net.guard import TRUSTING, AddressPolicy, check_name, permitted
from darner.net.proxy import Proxy, ProxySettings
from darner.net.redirect import MAX_REDIRECTS, REDIRECT_STATUSES, next_hop, too_many_redirects
from darner.net.target import Target, without_userinfo
from darner.net.tls import client_context

AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]
Body = bytes | AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How to connect. Times in seconds; `total_timeout_s` None means no limit for one request with its body."""

    policy: AddressPolicy = field(default_factory=AddressPolicy)
    ca_file: Path | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    total_timeout_s: float | None = None
    connections: int = 256
    proxies: ProxySettings | None = None


class _GuardedResolver(AbstractResolver):
    """Resolves in the loop's threads and keeps only permitted addresses; remembers those of configured proxies."""

    def __init__(self, policy: AddressPolicy, proxies: ProxySettings) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._policy = policy
        self.proxy_addresses = {(proxy.host, proxy.port) for proxy in (proxies.http, proxies.https) if proxy}

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        trusted = (host, port) in self.proxy_addresses
        found = await self._inner.resolve(host, port, family)
        allowed = permitted([(each["host"], each["port"]) for each in found], host, TRUSTING if trusted else self._policy)
        if trusted:
            self.proxy_addresses.update((address[0], address[1]) for address in allowed)
        return [each for each in found if (each["host"], each["port"]) in allowed]

    async def close(self) -> None:
        await self._inner.close()


class SessionReply:
    """An answer whose body has not been read yet; nothing is decompressed. Errors while reading are ours."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """`header` joins repeated headers by commas, `header_items` has each as it came. `url` is the final one."""
        self._response = response
        self.status, self.reason, self.url = response.status, response.reason or "", str(response.url)
        self.header_items = tuple(response.headers.items())
        self.header = Headers()
        for name, value in self.header_items:
            known = next((each for each in self.header if each.lower() == name.lower()), name)
            self.header[known] = f"{self.header[known]}, {value}" if known in self.header else value

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """The body in chunks of at most `size` bytes, as they come. Raises NetError if it breaks off."""
        while chunk := await self._read_some(size):
            yield chunk

    async def _read_some(self, size: int) -> bytes:
        try:
            return await self._response.content.read(size)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _mapped(error, self._response.url.authority) from error


class GuardedSession:
    """Requests by our rules. Made by `open_session`."""

    def __init__(self, settings: SessionSettings) -> None:
        """Must be made inside a running event loop."""
        self._settings = settings
        self._proxies = settings.proxies or ProxySettings.from_environment()
        self._verified = client_context(settings.ca_file)
        self._unverified = client_context(insecure=True)
        self._resolver = _GuardedResolver(settings.policy, self._proxies)
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            socket_factory=self._socket,
            limit=settings.connections,
            ssl=self._verified,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            requote_redirect_url=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type", "Accept"),
            timeout=aiohttp.ClientTimeout(
                total=settings.total_timeout_s, sock_connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s
            ),
        )

    @asynccontextmanager
    async def request(
        self, method: str, url: str, header: Headers, *, body: Body = None, insecure: bool = False, follow: bool = True
    ) -> AsyncIterator["SessionReply"]:
        """One request. With `follow`, redirects of GET and HEAD are followed by our rule.

        Raises ForbiddenAddressError, NetError, InvalidInputError.
        """
        async with await self._follow(method, url, header, body=body, insecure=insecure, follow=follow) as response:
            yield SessionReply(response)

    async def _follow(
        self, method: str, url: str, header: Headers, *, body: Body, insecure: bool, follow: bool
    ) -> aiohttp.ClientResponse:
        url, header = without_userinfo(url, header)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send(method, url, header, body, insecure)
            if not (follow and method in {"GET", "HEAD"} and response.status in REDIRECT_STATUSES):
                return response
            response.release()
            url, header = next_hop(url, response.headers.get("Location"), header)
        raise too_many_redirects(url)

    async def _send(self, method: str, url: str, header: Headers, body: Body, insecure: bool) -> aiohttp.ClientResponse:
        target = Target.parse(url)
        proxy = self._proxies.find(target.scheme, target.host, target.port)
        # by name too: the address of a configured proxy is dialled on trust, which must not open it as a target
        check_name(target.host, self._settings.policy)
        sent, tunnel = header.without("proxy-authorization"), None
        if proxy is not None and proxy.authorization:
            mine = {"Proxy-Authorization": proxy.authorization.reveal()}
            sent, tunnel = (Headers({**sent, **mine}), None) if target.scheme == "http" else (sent, mine)
        try:
            return await self._session.request(
                method,
                URL(url, encoded=True),
                headers=sent,
                data=body,
                allow_redirects=False,
                ssl=self._unverified if insecure else self._verified,
                proxy=f"http://{_authority(proxy)}" if proxy else None,
                proxy_headers=tunnel,
            )
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError) as error:
            raise _mapped(error, target.authority) from error

    def _socket(self, info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        trusted = (address[0], address[1]) in self._resolver.proxy_addresses
        (TRUSTING if trusted else self._settings.policy).check(str(address[0]))
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


def _authority(proxy: Proxy) -> str:
    return f"[{proxy.host}]:{proxy.port}" if ":" in proxy.host else f"{proxy.host}:{proxy.port}"


def _mapped(error: BaseException, where: str) -> Exception:
    """An error of aiohttp in our words; what the guard said comes out unchanged."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ForbiddenAddressError):
            return seen
        # aiohttp has errors that are ssl errors by class, but without what those know
        if isinstance(seen, ssl.SSLError | socket.gaierror) and not isinstance(seen, aiohttp.ClientError):
            return net_error(seen, where)
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, aiohttp.ClientConnectorError):
        return net_error(error.os_error, where)
    if isinstance(error, TimeoutError):
        return NetError(f"{where} did not answer in time")
    if isinstance(error, aiohttp.ClientPayloadError):
        return NetError(f"{where} closed the connection before the end of its answer")
    if isinstance(error, OSError | UnicodeError):  # the latter: a host name that no name can be
        return net_error(error, where)
    return NetError(f"the connection to {where} failed ({error or type(error).__name__})")


@asynccontextmanager
async def open_session(settings: SessionSettings) -> AsyncIterator[GuardedSession]:
    """A session that is closed at the end of the block."""
    session = GuardedSession(settings)
    try:
        yield session
    finally:
        await session.close()
