"""Redirects, TLS, forbidden places: where the origin's requests go, and with what."""

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from darner.core.errors import ForbiddenAddressError, InvalidInputError, OriginError
from darner.core.ranges import ByteRange, parse_range_header
from darner.core.task import Headers
from darner.net.guard import AddressPolicy
from darner.origin import HttpOrigin, OriginConfig, OriginRegistry, OriginRequest, http_origins
from darner.testing.httpd import LoopbackServer, Reply, Request
from darner.testing.tls import make_identity

CONTENT = random.Random(5).randbytes(1_200_000)  # noqa: S311
SPAN = ByteRange(start=100, length=1_000_000)
CANARY = "canary-7d1f"
SECRETS = Headers({"Authorization": f"Bearer {CANARY}", "Cookie": CANARY, "X-Auth-Token": CANARY, "X-Plain": "seen"})
LOOPBACK = AddressPolicy(allow_loopback=True)


def serve(request: Request) -> Reply:
    span = parse_range_header(request.header.get("range", "bytes=0-"), len(CONTENT))
    header = {"ETag": '"e"', "Content-Range": span.content_range(len(CONTENT))}
    return Reply.of(CONTENT[span.start : span.end], status=206, header=header)


def to(location: str, status: int = 307) -> Reply:
    return Reply.of(b"moved", status=status, header={"Location": location})


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
def make_origin() -> Iterator[Callable[..., HttpOrigin]]:
    origins: list[HttpOrigin] = []

    def make(**changes: Any) -> HttpOrigin:
        values = {"policy": LOOPBACK, "max_retries": 1, "retry_first_s": 0.01, **changes}
        origins.append(HttpOrigin(OriginConfig(**values)))
        return origins[-1]

    yield make
    for origin in origins:
        origin.close()


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_are_never_seen_by_another_origin(start: Any, make_origin: Any, fd: int, status: int) -> None:
    other = start(serve)
    first = start(lambda _: to(f"{other.base_url}/blob", status))
    origin = make_origin()
    request = OriginRequest(url=f"{first.base_url}/file", header=SECRETS)
    origin.stat(request)
    origin.fetch_range(request, SPAN, fd)
    assert os.pread(fd, SPAN.length, SPAN.start) == CONTENT[SPAN.start : SPAN.end]
    assert CANARY in str(first.log[0].header)
    assert other.log
    for access in other.log:
        assert CANARY not in str(access.header)
        assert access.header["x-plain"] == "seen"


def test_a_user_and_password_in_the_url_stay_with_its_origin(start: Any, make_origin: Any) -> None:
    other = start(serve)
    first = start(lambda _: to(f"{other.base_url}/blob"))
    make_origin().stat(OriginRequest(url=f"http://user:{CANARY}@{first.address}/file"))
    assert first.log[0].header["authorization"].startswith("Basic ")
    assert "authorization" not in other.log[0].header
    assert CANARY not in first.log[0].path


def test_credentials_do_not_come_back_on_the_way_through_another_origin(start: Any, make_origin: Any) -> None:
    places: dict[str, str] = {}
    first = start(lambda request: serve(request) if request.path == "/end" else to(places["other"]))
    other = start(lambda _: to(f"{first.base_url}/end"))
    places["other"] = f"{other.base_url}/x"
    make_origin().stat(OriginRequest(url=f"{first.base_url}/file", header=SECRETS))
    assert first.log[-1].path == "/end"
    assert CANARY not in str(first.log[-1].header)


def test_credentials_stay_on_a_redirect_within_the_origin(start: Any, make_origin: Any) -> None:
    server = start(lambda request: serve(request) if request.path == "/end" else to("/end"))
    make_origin().stat(OriginRequest(url=f"{server.base_url}/file", header=SECRETS))
    assert CANARY in str(server.log[-1].header)


def test_a_downgrade_from_https_is_refused_while_credentials_are_in_play(start: Any, make_origin: Any, tmp_path: Path) -> None:
    plain = start(serve)
    identity = make_identity(tmp_path)
    secure = start(lambda _: to(f"{plain.base_url}/x"), identity=identity)
    origin = make_origin(ca_file=identity.ca_file)
    with pytest.raises(OriginError, match="from https to http"):
        origin.stat(OriginRequest(url=f"{secure.base_url}/", header=SECRETS))
    assert plain.log == []
    assert origin.stat(OriginRequest(url=f"{secure.base_url}/")).content_length == len(CONTENT)


def test_a_redirect_loop_is_a_clear_error(start: Any, make_origin: Any) -> None:
    server = start(lambda request: to("/b" if request.path == "/a" else "/a"))
    with pytest.raises(OriginError, match="more than 10 times; it seems to be a loop") as caught:
        make_origin().stat(OriginRequest(url=f"{server.base_url}/a"))
    assert not caught.value.retryable
    assert len(server.log) == 11


@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "https://[fd00:ec2::254]/",
    ],
)
def test_no_redirect_and_no_request_reaches_a_forbidden_address(start: Any, make_origin: Any, place: str) -> None:
    server = start(lambda _: to(place))
    for url in (f"{server.base_url}/", place):
        with pytest.raises(ForbiddenAddressError, match="never dialled"):
            make_origin().stat(OriginRequest(url=url))


def test_loopback_is_refused_unless_the_configuration_allows_it(start: Any, make_origin: Any) -> None:
    server = start(serve)
    for url in (server.base_url, f"http://localhost:{server.port}/"):
        with pytest.raises(ForbiddenAddressError, match="loopback"):
            make_origin(policy=AddressPolicy()).stat(OriginRequest(url=url))
    assert server.log == []


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"])
def test_other_schemes_are_refused_as_a_redirect_and_as_a_url(start: Any, place: str) -> None:
    server = start(lambda _: to(place))
    origins = http_origins(OriginConfig(policy=LOOPBACK))
    with pytest.raises(OriginError, match="not followed"):
        origins.stat(OriginRequest(url=server.base_url))
    with pytest.raises(InvalidInputError, match=r"unsupported scheme .* expected one of http, https") as caught:
        origins.stat(OriginRequest(url=place))
    assert caught.value.field == "url"
    origins.close()


def test_an_origin_registry_without_https_says_so() -> None:
    with pytest.raises(InvalidInputError, match=r"expected one of http$"):
        OriginRegistry({"http": HttpOrigin(OriginConfig())}).stat(OriginRequest(url="https://a.example/"))


# --- signed URLs


class _Store:
    """A blob store behind signed URLs; `expire` makes all signatures so far invalid."""

    def __init__(self) -> None:
        self.signature = 1
        self.refusal = 403

    def expire(self) -> None:
        self.signature += 1

    def sign(self, base_url: str) -> Reply:
        return to(f"{base_url}/blob?signature={self.signature}")

    def answer(self, request: Request) -> Reply:
        if request.query.get("signature") != str(self.signature):
            return Reply.of(b"expired", status=self.refusal)
        return serve(request)


def test_a_signed_url_is_asked_directly_for_all_ranges(start: Any, make_origin: Any, fd: int) -> None:
    store = _Store()
    blobs = start(store.answer)
    front = start(lambda _: store.sign(blobs.base_url))
    origin = make_origin()
    request = OriginRequest(url=front.base_url, header=SECRETS)
    request = request.expecting(origin.stat(request))
    for start_at in range(0, 1_000_000, 250_000):
        origin.fetch_range(request, ByteRange(start=start_at, length=250_000), fd)
    assert len(front.log) == 1
    assert os.pread(fd, 1_000_000, 0) == CONTENT[:1_000_000]
    origin.stat(OriginRequest(url=front.base_url))
    assert len(front.log) == 2, "another request header may lead elsewhere"


@pytest.mark.parametrize("refusal", [400, 401, 403, 404])
def test_an_expired_signature_makes_us_ask_the_original_url_again(start: Any, make_origin: Any, fd: int, refusal: int) -> None:
    store = _Store()
    store.refusal = refusal
    blobs = start(store.answer)
    front = start(lambda _: store.sign(blobs.base_url))
    origin = make_origin(max_retries=0)
    request = OriginRequest(url=front.base_url)
    origin.stat(request)
    store.expire()
    origin.fetch_range(request, SPAN, fd)
    assert len(front.log) == 2
    assert os.pread(fd, SPAN.length, SPAN.start) == CONTENT[SPAN.start : SPAN.end]


def test_a_refusal_by_a_fresh_signature_is_told(start: Any, make_origin: Any) -> None:
    blobs = start(lambda _: Reply.of(b"", status=403))
    front = start(lambda _: to(blobs.base_url))
    with pytest.raises(OriginError, match="answered 403"):
        make_origin().stat(OriginRequest(url=front.base_url))
    assert len(front.log) == 1


# --- TLS


def test_a_certificate_of_an_unknown_authority_is_refused(start: Any, make_origin: Any, tmp_path: Path) -> None:
    server = start(serve, identity=make_identity(tmp_path / "one"))
    stranger = make_identity(tmp_path / "two")
    for ca_file in (None, stranger.ca_file):
        with pytest.raises(OriginError, match=r"certificate .* is not valid .* CA certificate") as caught:
            make_origin(ca_file=ca_file).stat(OriginRequest(url=server.base_url))
        assert not caught.value.retryable
    assert server.log == []


def test_a_certificate_for_another_name_is_refused(
    start: Any, make_origin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = make_identity(tmp_path)
    server = start(serve, identity=identity)
    origin = make_origin(ca_file=identity.ca_file)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: resolve("127.0.0.1", *rest, **more))
    assert origin.stat(OriginRequest(url=f"https://localhost:{server.port}/")).content_length == len(CONTENT)
    with pytest.raises(OriginError, match=r"other\.example.* is not valid"):
        origin.stat(OriginRequest(url=f"https://other.example:{server.port}/"))


@pytest.mark.parametrize(
    ("config", "request_values"),
    [
        ({"insecure_skip_verify": True}, {}),
        ({}, {"insecure": True}),
        ({}, {"header": Headers({"x-darner-insecure-skip-verify": "TRUE"})}),
    ],
    ids=["configuration", "request", "header"],
)
def test_verification_is_skipped_only_when_asked_for(
    start: Any, make_origin: Any, tmp_path: Path, config: Any, request_values: Any
) -> None:
    server = start(serve, identity=make_identity(tmp_path))
    origin = make_origin(**config)
    assert origin.stat(OriginRequest(url=server.base_url, **request_values)).content_length == len(CONTENT)
    if not config:
        with pytest.raises(OriginError, match="not valid"):
            origin.stat(OriginRequest(url=server.base_url))


def test_plain_http_on_a_tls_url_and_the_reverse_are_clear_errors(start: Any, make_origin: Any, tmp_path: Path) -> None:
    plain, secure = start(serve), start(serve, identity=make_identity(tmp_path))
    with pytest.raises(OriginError, match=r"TLS with .* failed"):
        make_origin().stat(OriginRequest(url=plain.base_url.replace("http:", "https:")))
    with pytest.raises(OriginError, match="cannot read"):
        make_origin().stat(OriginRequest(url=secure.base_url.replace("https:", "http:")))


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_cannot_be_used_is_refused_at_once(make_origin: Any, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"ca\.pem cannot be used"):
        make_origin(ca_file=path)


# --- many at once


@pytest.mark.parametrize("tls", [False, True])
def test_many_threads_read_ranges_at_the_same_time(start: Any, make_origin: Any, fd: int, tmp_path: Path, tls: bool) -> None:
    identity = make_identity(tmp_path / "tls") if tls else None
    server = start(serve, identity=identity)
    origin = make_origin(ca_file=identity.ca_file if identity else None)
    spans = [ByteRange(start=at, length=min(50_000, len(CONTENT) - at)) for at in range(0, len(CONTENT), 50_000)]
    seen: set[int] = set()

    def fetch(span: ByteRange) -> int:
        seen.add(threading.get_ident())
        return int(origin.fetch_range(OriginRequest(url=server.base_url), span, fd).length)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(fetch, spans)) == len(CONTENT)
    assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
    assert len(seen) > 1
