"""A pool of blocking connections, safe to use from many threads; bodies go into the caller's buffers.

A connection belongs to one origin, one kind of TLS and one proxy. One found closed when it is reused is replaced once.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from darner.core.task import Headers
from darner.net.errors import ConnectionLostError, NetError, net_error
from darner.net.exchange import Exchange, Head, Pace, ShouldStop
from darner.net.guard import TRUSTING, AddressPolicy, check_name, dial
from darner.net.proxy import Proxy, ProxySettings
from darner.net.redirect import MAX_REDIRECTS, REDIRECT_STATUSES, next_hop, too_many_redirects
from darner.net.target import Target, without_userinfo
from darner.net.tls import client_context

DRAIN_BYTES = 64 * 1024
DRAIN_S = 1.0
HTTP_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How to connect. Times in seconds. `proxies` None means: from the environment."""

    policy: AddressPolicy = field(default_factory=AddressPolicy)
    ca_file: Path | None = None
    connect_timeout_s: float = 10.0
    pace: Pace = field(default_factory=Pace)
    max_idle_per_origin: int = 64
    idle_s: float = 60.0
    proxies: ProxySettings | None = None


Key = tuple[str, str, int, bool, Proxy | None]


class Reply:
    """An answer whose body has not been read yet. Use it as a context manager: that returns or closes its connection."""

    def __init__(self, *, url: str, hop_header: Headers, head: Head, exchange: Exchange, give_back: Callable[[bool], None]) -> None:
        """`url` is the final one, `hop_header` what was sent to it (after redirects)."""
        self.url, self.hop_header = url, hop_header
        self.status, self.header, self.length = head.status, head.header, head.length
        self._exchange = exchange
        self._give_back = give_back
        self._open = True
        self.redirected = False

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte of the body; 0 at its end. Raises NetError, StoppedError."""
        return self._exchange.readinto(view)

    def close(self) -> None:
        """Give the connection back if the body was read (a short rest is read now), else close it."""
        if not self._open:
            return
        self._open = False
        try:
            self._drain()
        except Exception:  # noqa: BLE001  (whatever it is, the connection is of no more use)
            self._give_back(False)
        else:
            self._give_back(self._exchange.reusable)

    def _drain(self) -> None:
        if (self._exchange.left or 0) > DRAIN_BYTES or self._exchange.reusable:
            return
        self._exchange.hurry(DRAIN_S)
        view = memoryview(bytearray(DRAIN_BYTES))
        rest = DRAIN_BYTES
        while rest > 0 and (count := self._exchange.readinto(view)):
            rest -= count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class HttpPool:
    """Blocking GET requests over pooled connections."""

    def __init__(self, settings: PoolSettings) -> None:
        """Raises InvalidInputError for a CA file or proxy that cannot be used."""
        self._settings = settings
        self._proxies = settings.proxies or ProxySettings.from_environment()
        self._verified = client_context(settings.ca_file)
        self._unverified = client_context(insecure=True)
        self._lock = threading.Lock()
        self._idle: dict[Key, list[tuple[socket.socket, float]]] = {}
        self._closed = False

    def get(self, url: str, header: Headers, *, insecure: bool = False, should_stop: ShouldStop | None = None) -> Reply:
        """GET, following redirects. Raises ForbiddenAddressError, NetError, StoppedError, InvalidInputError."""
        url, header = without_userinfo(url, header)
        for hop in range(MAX_REDIRECTS + 1):
            reply = self._get_once(url, header, insecure, should_stop)
            reply.redirected = hop > 0
            if reply.status not in REDIRECT_STATUSES:
                return reply
            with reply:
                url, header = next_hop(url, reply.header.find("location"), header)
        raise too_many_redirects(url)

    def close(self) -> None:
        """Close all idle connections; those in use are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for sock, _ in connections:
                sock.close()

    def _get_once(self, url: str, header: Headers, insecure: bool, should_stop: ShouldStop | None) -> Reply:
        target = Target.parse(url)
        proxy = self._proxies.find(target.scheme, target.host, target.port)
        key = (target.scheme, target.host, target.port, insecure, proxy)
        sock = self._take(key)
        if sock is not None:
            try:
                return self._ask(sock, key, url, target, header, should_stop)
            except ConnectionLostError:
                pass  # it was closed while idle; a fresh one tells the truth
        return self._ask(self._connect(key), key, url, target, header, should_stop)

    def _ask(
        self, sock: socket.socket, key: Key, url: str, target: Target, header: Headers, should_stop: ShouldStop | None
    ) -> Reply:
        try:
            exchange = Exchange(sock, target.authority, self._settings.pace, should_stop)
            proxy = key[4]
            sent = [("Host", target.host_header), *((name, value) for name, value in header.items() if name.lower() != "host")]
            path = target.path
            if proxy is not None and target.scheme == "http":
                path = f"http://{target.host_header}{target.path}"
                if proxy.authorization:
                    sent.append(("Proxy-Authorization", proxy.authorization.reveal()))
            exchange.send("GET", path, sent)
            head = exchange.head("GET")
        except BaseException:
            sock.close()
            raise

        def give_back(reusable: bool) -> None:
            if reusable:
                self._put(key, sock)
            else:
                sock.close()

        return Reply(url=url, hop_header=header, head=head, exchange=exchange, give_back=give_back)

    def _connect(self, key: Key) -> socket.socket:
        scheme, host, port, insecure, proxy = key
        settings = self._settings
        if proxy is None:
            sock = dial(host, port, settings.policy, timeout_s=settings.connect_timeout_s)
        else:
            check_name(host, settings.policy)
            sock = dial(proxy.host, proxy.port, TRUSTING, timeout_s=settings.connect_timeout_s)
        if scheme == "http":
            return sock
        try:
            if proxy is not None:
                self._open_tunnel(sock, host, port, proxy)
            sock.settimeout(settings.connect_timeout_s)
            context = self._unverified if insecure else self._verified
            return context.wrap_socket(sock, server_hostname=host.rstrip("."))
        except (OSError, ssl.CertificateError) as error:
            sock.close()
            raise net_error(error, f"{host}:{port}") from error
        except BaseException:
            sock.close()
            raise

    def _open_tunnel(self, sock: socket.socket, host: str, port: int, proxy: Proxy) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        pace = replace(self._settings.pace, read_timeout_s=self._settings.connect_timeout_s)
        exchange = Exchange(sock, f"proxy {proxy.host}:{proxy.port}", pace)
        sent = [("Host", authority)]
        if proxy.authorization:
            sent.append(("Proxy-Authorization", proxy.authorization.reveal()))
        exchange.send("CONNECT", authority, sent)
        status = exchange.head("CONNECT").status
        if status != HTTP_OK:
            raise NetError(f"proxy {proxy.host}:{proxy.port} refused a tunnel to {authority} with status {status}", retryable=False)

    def _take(self, key: Key) -> socket.socket | None:
        now = time.monotonic()
        while True:
            with self._lock:
                connections = self._idle.get(key)
                if not connections:
                    return None
                sock, since = connections.pop()
            if now - since < self._settings.idle_s and not _readable(sock):
                return sock
            sock.close()

    def _put(self, key: Key, sock: socket.socket) -> None:
        with self._lock:
            connections = self._idle.setdefault(key, [])
            if not self._closed and len(connections) < self._settings.max_idle_per_origin:
                connections.append((sock, time.monotonic()))
                return
        sock.close()


def _readable(sock: socket.socket) -> bool:
    """An idle connection with something to read was closed, or its server broke the rules."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLERR | select.POLLHUP)
    return bool(poll.poll(0))
