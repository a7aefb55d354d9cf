"""The asynchronous session and the proxies of both clients, on loopback."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darner.core.errors import ForbiddenAddressError, InvalidInputError
from darner.core.task import Headers
from darner.net.errors import NetError
from darner.net.guard import AddressPolicy, dial
from darner.net.http import GuardedSession, HttpPool, PoolSettings, Proxy, ProxySettings, SessionSettings, open_session
from darner.net.proxy import basic_authorization
from darner.testing.httpd import LoopbackServer, Reply, Request
from darner.testing.tls import make_identity

CANARY = "canary-93e2"
SECRETS = Headers({"Authorization": f"Bearer {CANARY}", "Cookie": CANARY, "X-Plain": "seen"})
LOOPBACK = AddressPolicy(allow_loopback=True)


def hello(request: Request) -> Reply:
    return Reply.of(f"hello {request.path}".encode())


def to(location: str) -> Reply:
    return Reply.of(b"moved", status=307, header={"Location": location})


@pytest.fixture
def start() -> Iterator[Callable[..., LoopbackServer]]:
    servers: list[LoopbackServer] = []

    def begin(answer: Callable[[Request], Reply], **more: Any) -> LoopbackServer:
        servers.append(LoopbackServer(answer, **more))
        servers[-1].start()
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture
async def session() -> AsyncIterator[GuardedSession]:
    async with open_session(SessionSettings(policy=LOOPBACK)) as opened:
        yield opened


async def body_of(session: GuardedSession, url: str, header: Headers | None = None, **more: Any) -> bytes:
    async with session.request("GET", url, header or Headers(), **more) as reply:
        return b"".join([chunk async for chunk in reply.chunks(65536)])


# --- redirects and the guard


async def test_credentials_are_never_seen_by_another_origin(start: Any, session: GuardedSession) -> None:
    other = start(hello)
    first = start(lambda _: to(f"{other.base_url}/end"))
    assert await body_of(session, first.base_url, SECRETS) == b"hello /end"
    assert CANARY in str(first.log[0].header)
    assert CANARY not in str(other.log[0].header)
    assert other.log[0].header["x-plain"] == "seen"


@pytest.mark.parametrize(
    "place",
    ["http://169.254.169.254/", "http://[::ffff:169.254.169.254]/", "http://0xa9fea9fe/", "http://[fe80::1]/", "http://0.0.0.0/"],
)
async def test_no_redirect_and_no_request_reaches_a_forbidden_address(start: Any, session: GuardedSession, place: str) -> None:
    server = start(lambda _: to(place))
    for url in (server.base_url, place):
        with pytest.raises(ForbiddenAddressError, match="never dialled"):
            await body_of(session, url)


async def test_a_redirect_loop_is_a_clear_error(start: Any, session: GuardedSession) -> None:
    server = start(lambda _: to("/again"))
    with pytest.raises(NetError, match="seems to be a loop"):
        await body_of(session, server.base_url)
    assert len(server.log) == 11


async def test_a_redirect_can_be_handed_on_instead_of_followed(start: Any, session: GuardedSession) -> None:
    server = start(lambda _: to("/end"))
    async with session.request("GET", server.base_url, Headers(), follow=False) as reply:
        assert (reply.status, reply.header.find("location")) == (307, "/end")


async def test_a_body_is_sent_once_and_its_redirect_is_not_followed(start: Any, session: GuardedSession) -> None:
    server = start(lambda _: to("/end"))
    async with session.request("POST", server.base_url, Headers(), body=b"data") as reply:
        assert reply.status == 307
    assert [access.method for access in server.log] == ["POST"]


async def test_nothing_is_added_decompressed_or_remembered(start: Any, session: GuardedSession) -> None:
    server = start(lambda _: Reply.of(b"\x1f\x8bgzip", header={"Content-Encoding": "gzip", "Set-Cookie": f"a={CANARY}"}))
    for _ in range(2):
        assert await body_of(session, f"{server.base_url}/a%2Fb%20c?x=%41") == b"\x1f\x8bgzip"
    for access in server.log:
        assert set(access.header) == {"host"}


async def test_a_name_that_resolves_to_a_forbidden_address_is_refused(
    session: GuardedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: resolve("169.254.169.254", *rest, **more))
    with pytest.raises(ForbiddenAddressError, match=r"rebound\.example"):
        await body_of(session, "http://rebound.example/")
    with pytest.raises(ForbiddenAddressError, match=r"rebound\.example"):
        HttpPool(PoolSettings(policy=LOOPBACK)).get("http://rebound.example/", Headers())


def test_a_name_is_resolved_once_and_exactly_the_checked_address_is_dialled(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(hello)
    resolve, answers = socket.getaddrinfo, iter(["127.0.0.1", "169.254.169.254"])
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: resolve(next(answers), *rest, **more))
    with dial("rebinding.example", server.port, LOOPBACK, timeout_s=5) as sock:
        assert sock.getpeername() == ("127.0.0.1", server.port)
    assert next(answers) == "169.254.169.254", "it was asked a second time"


def test_the_next_address_of_a_host_is_tried_when_the_first_refuses(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(hello)
    resolve = socket.getaddrinfo

    def both(_: str, *rest: Any, **more: Any) -> Any:
        return [*resolve("127.0.0.2", *rest, **more), *resolve("127.0.0.1", *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with dial("two.example", server.port, LOOPBACK, timeout_s=5) as sock:
        assert sock.getpeername() == ("127.0.0.1", server.port)


# --- errors


async def test_what_goes_wrong_is_said_in_our_words(start: Any, session: GuardedSession, tmp_path: Path) -> None:
    secure, plain = start(hello, identity=make_identity(tmp_path)), start(hello)
    gone = LoopbackServer(hello)
    gone.start()
    gone.stop()
    for url, message in {
        secure.base_url: "certificate .* is not valid",
        plain.base_url.replace("http:", "https:"): "TLS with .* failed",
        gone.base_url: "connection refused",
        "http://nobody.invalid/": "cannot be resolved",
    }.items():
        with pytest.raises(NetError, match=message):
            await body_of(session, url)
    with pytest.raises(InvalidInputError, match="unsupported scheme"):
        await body_of(session, "ftp://a.example/")
    assert await body_of(session, secure.base_url, insecure=True) == b"hello /"


async def test_a_body_that_breaks_off_is_an_error_and_not_a_short_body(start: Any, session: GuardedSession) -> None:
    server = start(lambda _: Reply(body=(b"x" * 100,), length=1000, drop_after=100))
    with pytest.raises(NetError, match=r"closed the connection|failed"):
        await body_of(session, server.base_url)


async def test_a_silent_server_is_given_up(start: Any) -> None:
    silence = threading.Event()

    def wait(_: Request) -> Reply:
        silence.wait(30)
        return Reply.of(b"late")

    server = start(wait)
    async with open_session(SessionSettings(policy=LOOPBACK, read_timeout_s=0.2)) as session:
        with pytest.raises(NetError, match="in time"):
            await body_of(session, server.base_url)
    silence.set()


async def test_the_callers_own_errors_pass_through_unchanged(start: Any, session: GuardedSession) -> None:
    server = start(hello)
    with pytest.raises(ConnectionResetError, match="my own"):
        async with session.request("GET", server.base_url, Headers()):
            raise ConnectionResetError("my own")


# --- proxies


class ForwardingProxy:
    """A proxy on loopback: absolute requests are answered by itself, tunnels lead to `backend` whatever their name."""

    def __init__(self, backend: tuple[str, int] | None = None) -> None:
        self.heads: list[str] = []
        self._backend = backend
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            head = connection.recv(65536).decode()
            self.heads.append(head)
            if not head.startswith("CONNECT"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nproxied")
                return
            if self._backend is None:
                connection.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
                return
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(self._backend) as inner:
                back = threading.Thread(target=_pump, args=(inner, connection))
                back.start()
                _pump(connection, inner)
                back.join()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., ForwardingProxy]]:
    proxies: list[ForwardingProxy] = []

    def begin(backend: tuple[str, int] | None = None) -> ForwardingProxy:
        proxies.append(ForwardingProxy(backend))
        return proxies[-1]

    yield begin
    for proxy in proxies:
        proxy.stop()


def through(proxy: ForwardingProxy, host: str = "127.0.0.1") -> ProxySettings:
    each = Proxy(host=host, port=proxy.port, authorization=basic_authorization("user", CANARY))
    return ProxySettings(http=each, https=each)


Fetch = Callable[..., bytes]


@pytest.fixture(params=["blocking", "asynchronous"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """GET through a proxy with either client; loopback is not allowed by the policy."""

    def blocking(url: str, proxies: ProxySettings, ca_file: Path | None = None) -> bytes:
        pool = HttpPool(PoolSettings(policy=AddressPolicy(), ca_file=ca_file, proxies=proxies))
        with pool.get(url, Headers()) as reply:
            view = memoryview(bytearray(100))
            data = bytes(view[: reply.readinto(view)])
        pool.close()
        return data

    async def asynchronous(url: str, proxies: ProxySettings, ca_file: Path | None = None) -> bytes:
        async with open_session(SessionSettings(policy=AddressPolicy(), ca_file=ca_file, proxies=proxies)) as session:
            return await body_of(session, url)

    if request.param == "blocking":
        return blocking
    return lambda *given: asyncio.run(asynchronous(*given))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_plain_http_goes_to_the_proxy_whose_own_address_is_the_operators_word(fetch: Fetch, start_proxy: Any, host: str) -> None:
    proxy = start_proxy()
    assert fetch("http://origin.example/a?b=c", through(proxy, host)) == b"proxied"
    assert proxy.heads[0].startswith("GET http://origin.example/a?b=c HTTP/1.1\r\n")
    assert "Host: origin.example\r\n" in proxy.heads[0]
    assert f"Proxy-Authorization: {basic_authorization('user', CANARY).reveal()}" in proxy.heads[0]


def test_https_goes_through_a_tunnel_and_the_certificate_is_the_origins(
    fetch: Fetch, start: Any, start_proxy: Any, tmp_path: Path
) -> None:
    identity = make_identity(tmp_path)
    server = start(hello, identity=identity)
    proxy = start_proxy(("127.0.0.1", server.port))
    with pytest.raises(NetError, match=r"other\.example.* is not valid"):
        fetch("https://other.example/x", through(proxy), identity.ca_file)
    assert proxy.heads[0].startswith("CONNECT other.example:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization" in proxy.heads[0]
    assert server.log == []


def test_a_proxy_that_refuses_the_tunnel_is_named(fetch: Fetch, start_proxy: Any) -> None:
    with pytest.raises(NetError, match="407"):
        fetch("https://origin.example/", through(start_proxy()))


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://metadata.google.internal/", "https://[fe80::1]/"])
def test_a_proxy_is_no_way_around_the_guard(fetch: Fetch, start_proxy: Any, url: str) -> None:
    proxy = start_proxy()
    with pytest.raises(ForbiddenAddressError):
        fetch(url, through(proxy))
    assert proxy.heads == []


def test_the_proxys_own_address_is_no_target(fetch: Fetch, start_proxy: Any) -> None:
    proxy = start_proxy()
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(ForbiddenAddressError, match=r"loopback|this machine"):
            fetch(f"http://{host}:{proxy.port}/", through(proxy))
    assert proxy.heads == []


def test_a_proxy_at_a_metadata_address_is_refused(fetch: Fetch) -> None:
    proxies = ProxySettings(http=Proxy(host="169.254.169.254", port=80))
    with pytest.raises(ForbiddenAddressError):
        fetch("http://origin.example/", proxies)


async def test_loopback_never_goes_through_the_proxy_of_the_environment(
    start: Any, start_proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = start(hello), start_proxy()
    monkeypatch.setitem(os.environ, "http_proxy", f"http://127.0.0.1:{proxy.port}")
    async with open_session(SessionSettings(policy=LOOPBACK)) as session:
        assert await body_of(session, server.base_url) == b"hello /"
    pool = HttpPool(PoolSettings(policy=LOOPBACK))
    with pool.get(server.base_url, Headers()) as reply:
        assert reply.status == 200
    pool.close()
    assert proxy.heads == []
