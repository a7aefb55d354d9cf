"""What an origin may answer, well or badly, and what comes of it."""

import os
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from darner.core.errors import InvalidInputError, OriginError, StorageFullError
from darner.core.ranges import ByteRange
from darner.core.task import Headers
from darner.net.guard import AddressPolicy
from darner.origin import FetchStoppedError, HttpOrigin, OriginChangedError, OriginConfig, OriginRequest

CONTENT = random.Random(3).randbytes(2_500_000)  # noqa: S311
SPAN = ByteRange(start=500_000, length=1_500_000)
Serve = Callable[..., Any]


@pytest.fixture
def make_origin() -> Iterator[Callable[..., HttpOrigin]]:
    origins: list[HttpOrigin] = []

    def make(**changes: Any) -> HttpOrigin:
        values = {"policy": AddressPolicy(allow_loopback=True), "max_retries": 2, "retry_first_s": 0.01, **changes}
        origins.append(HttpOrigin(OriginConfig(**values)))
        return origins[-1]

    yield make
    for origin in origins:
        origin.close()


def wanted(head: bytes) -> tuple[int, int]:
    found = re.search(rb"range: bytes=(\d+)-(\d+)", head, re.IGNORECASE)
    assert found
    return int(found[1]), int(found[2])


def partial(head: bytes, *, header: str = "", content: bytes = CONTENT, total: str | None = None, cut: int | None = None) -> bytes:
    first, last = wanted(head)
    body = content[first : last + 1]
    start = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{total or len(content)}\r\n"
    return f"{start}Content-Length: {len(body)}\r\n{header}\r\n".encode() + body[:cut]


def full(content: bytes = CONTENT, header: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n{header}\r\n".encode() + content


def chunked(status: str, header: str, *parts: bytes, end: bool = True) -> bytes:
    frames = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n{header}\r\n".encode() + frames + (b"0\r\n\r\n" if end else b"")


def range_of(span: ByteRange, total: int | str = len(CONTENT)) -> str:
    return f"Content-Range: bytes {span.start}-{span.last}/{total}\r\n"


# --- stat


@pytest.mark.parametrize(
    ("answer", "length", "ranges"),
    [
        (partial, len(CONTENT), True),
        (lambda head: partial(head, total="*"), None, True),
        (lambda _: full(), len(CONTENT), False),
        (lambda _: chunked("200 OK", "", b"abc", CONTENT), None, False),
        (lambda _: chunked("206 Partial Content", range_of(ByteRange(start=0, length=1)), CONTENT[:1]), len(CONTENT), True),
        (lambda _: full(b""), 0, False),
        (lambda _: b"HTTP/1.0 200 OK\r\n\r\nold", None, False),
        (lambda head: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + partial(head), len(CONTENT), True),
    ],
    ids=["206", "206 without a total", "200", "chunked", "chunked 206", "empty", "http/1.0", "after an interim answer"],
)
def test_stat_understands(raw_server: Serve, make_origin: Any, answer: Any, length: int | None, ranges: bool) -> None:
    server = raw_server(lambda _, head: [answer(head), None])
    stat = make_origin().stat(OriginRequest(url=server.url))
    assert (stat.content_length, stat.supports_range) == (length, ranges)


def test_an_empty_file_that_answers_416_is_asked_again_without_a_range(raw_server: Serve, make_origin: Any) -> None:
    def script(_: int, head: bytes) -> list[bytes | float | None]:
        if b"Range:" in head:
            return [b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n"]
        return [full(b"")]

    server = raw_server(script)
    assert make_origin().stat(OriginRequest(url=server.url)).content_length == 0
    assert len(server.heads) == 2


def test_the_headers_of_a_stat_read_like_a_full_answer_without_cookies(raw_server: Serve, make_origin: Any) -> None:
    extra = 'ETag: "e1"\r\nLast-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n'
    extra += "Set-Cookie: canary\r\nConnection: keep-alive\r\nX-A: 1\r\nx-a: 2\r\n"
    server = raw_server(lambda _, head: [partial(head, header=extra)])
    stat = make_origin().stat(OriginRequest(url=server.url))
    assert dict(stat.header) == {
        "ETag": '"e1"',
        "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
        "X-A": "1, 2",
        "Content-Length": str(len(CONTENT)),
    }
    assert (stat.etag, stat.last_modified) == ('"e1"', "Wed, 01 Jan 2025 00:00:00 GMT")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451])
def test_permanent_refusals_are_told_at_once_with_status_and_headers(raw_server: Serve, make_origin: Any, status: int) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\nWWW-Authenticate: Basic\r\nSet-Cookie: canary\r\n\r\nno".encode()
    server = raw_server(lambda *_: [answer])
    with pytest.raises(OriginError, match=f"answered {status} for http") as caught:
        make_origin().stat(OriginRequest(url=server.url + "/x?signature=canary"))
    assert (caught.value.status, caught.value.retryable) == (status, False)
    assert caught.value.header == {"WWW-Authenticate": "Basic"}
    assert "canary" not in caught.value.message
    assert len(server.heads) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_temporary_refusals_are_tried_again_and_then_told(raw_server: Serve, make_origin: Any, status: int) -> None:
    refusal = f"HTTP/1.1 {status} Later\r\nContent-Length: 0\r\n\r\n".encode()
    server = raw_server(lambda number, head: [refusal if number < 3 else partial(head)])
    assert make_origin().stat(OriginRequest(url=server.url)).content_length == len(CONTENT)
    always = raw_server(lambda *_: [refusal])
    with pytest.raises(OriginError) as caught:
        make_origin().stat(OriginRequest(url=always.url))
    assert (caught.value.status, caught.value.retryable, len(always.heads)) == (status, True, 3)


def test_retry_after_is_honoured_up_to_the_cap(raw_server: Serve, make_origin: Any) -> None:
    refusal = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nRetry-After: 86400\r\n\r\n"
    server = raw_server(lambda number, head: [refusal if number == 1 else partial(head)])
    assert make_origin(retry_after_cap_s=0.05).stat(OriginRequest(url=server.url)).content_length == len(CONTENT)


# --- ranges that are not what was asked for


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1500000\r\n\r\n", "no Content-Range"),
        (lambda _: f"HTTP/1.1 206 P\r\n{range_of(ByteRange(start=499_999, length=1_500_000))}\r\n".encode(), "instead of bytes"),
        (lambda _: f"HTTP/1.1 206 P\r\n{range_of(ByteRange(start=500_000, length=1_400_000))}\r\n".encode(), "instead of bytes"),
        (lambda _: b"HTTP/1.1 206 P\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n", "instead of bytes"),
        (lambda _: b"HTTP/1.1 206 P\r\nContent-Range: items 500000-1999999/2500000\r\n\r\n", "instead of bytes"),
        (lambda _: f"HTTP/1.1 206 P\r\n{range_of(SPAN)}Content-Length: 1400000\r\n\r\n".encode(), "announced 1400000 bytes"),
        (lambda _: f"HTTP/1.1 206 P\r\n{range_of(SPAN)}Content-Length: 1600000\r\n\r\n".encode(), "announced 1600000 bytes"),
        (lambda _: full(), "ignores ranges"),
        (lambda _: b"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n", "outside the content"),
        (lambda _: b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204"),
        (lambda _: b"HTTP/1.1 304 Not Modified\r\n\r\n", "answered 304"),
    ],
)
def test_a_wrong_answer_to_a_range_is_refused_and_nothing_is_written(
    raw_server: Serve, make_origin: Any, fd: int, answer: Any, message: str
) -> None:
    server = raw_server(lambda _, head: [answer(head), None])
    with pytest.raises(OriginError, match=message):
        make_origin().fetch_range(OriginRequest(url=server.url), SPAN, fd)
    assert os.fstat(fd).st_size == 0


def test_too_many_bytes_in_a_chunked_answer_are_refused(raw_server: Serve, make_origin: Any, fd: int) -> None:
    body = CONTENT[SPAN.start : SPAN.end] + b"!"
    server = raw_server(lambda *_: [chunked("206 P", range_of(SPAN), body)])
    with pytest.raises(OriginError, match="more bytes than asked for"):
        make_origin().fetch_range(OriginRequest(url=server.url), SPAN, fd)
    assert os.fstat(fd).st_size == SPAN.end


def test_bytes_after_the_announced_length_never_reach_the_next_request(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda _, head: [partial(head) + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
    origin = make_origin()
    for start in (0, 1000):
        origin.fetch_range(OriginRequest(url=server.url), ByteRange(start=start, length=1000), fd)
    assert os.pread(fd, 2000, 0) == CONTENT[:2000]
    assert server.connections == 2


def test_a_whole_200_is_accepted_for_a_range_that_is_everything(raw_server: Serve, make_origin: Any, fd: int) -> None:
    for answer in (full(), chunked("200 OK", "", CONTENT), b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT):
        server = raw_server(lambda *_, answer=answer: [answer, None])
        make_origin().fetch_range(OriginRequest(url=server.url), ByteRange(start=0, length=len(CONTENT)), fd)
        assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
        os.ftruncate(fd, 0)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_it_does_not_matter_how_an_answer_is_cut_into_packets(raw_server: Serve, make_origin: Any, fd: int, framing: str) -> None:
    span = ByteRange(start=7, length=40)
    body = CONTENT[span.start : span.end]

    def script(_: int, head: bytes) -> list[bytes | float | None]:
        answer = partial(head) if framing == "length" else chunked("206 P", range_of(span), body[:1], body[1:])
        return [piece for at in range(len(answer)) for piece in (answer[at : at + 1], 0.001)]

    server = raw_server(script)
    origin = make_origin()
    for _ in range(2):
        origin.fetch_range(OriginRequest(url=server.url), span, fd)
    assert os.pread(fd, span.length, span.start) == body
    assert server.connections == 1


# --- too few bytes, nothing, slow


def test_a_broken_connection_is_resumed_where_it_broke_off(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda number, head: [partial(head, cut=400_000 if number < 3 else None), *([None] if number < 3 else [])])
    counted: list[int] = []
    piece = make_origin().fetch_range(OriginRequest(url=server.url), SPAN, fd, on_bytes=counted.append)
    assert os.pread(fd, SPAN.length, SPAN.start) == CONTENT[SPAN.start : SPAN.end]
    assert piece.length == sum(counted) == SPAN.length
    assert [wanted(head)[0] for head in server.heads] == [500_000, 900_000, 1_300_000]


def test_an_origin_that_always_breaks_off_is_given_up_with_a_retryable_error(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda _, head: [partial(head, cut=10), None])
    with pytest.raises(OriginError, match="bytes still to come") as caught:
        make_origin().fetch_range(OriginRequest(url=server.url), SPAN, fd)
    assert caught.value.retryable
    assert len(server.heads) == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 206 Parti",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HTTP/1.1 206 P\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 206 P\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 206 P\r\nX: " + b"y" * 600_000 + b"\r\n\r\n",
        chunked("206 P", range_of(SPAN), b"abc", end=False),
        b"HTTP/1.1 206 P\r\n" + range_of(SPAN).encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 206 P\r\n" + range_of(SPAN).encode() + b"Transfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_half_an_answer_or_none_or_no_http_is_a_clear_error(raw_server: Serve, make_origin: Any, fd: int, answer: bytes) -> None:
    server = raw_server(lambda *_: [answer, None])
    with pytest.raises(OriginError, match="cannot read http://127"):
        make_origin(max_retries=0).fetch_range(OriginRequest(url=server.url), SPAN, fd)


def test_nobody_listening_is_a_clear_error(raw_server: Serve, make_origin: Any) -> None:
    server = raw_server(lambda *_: [])
    server.stop()
    with pytest.raises(OriginError, match="connection refused") as caught:
        make_origin().stat(OriginRequest(url=server.url))
    assert caught.value.retryable


def test_a_host_that_does_not_exist_is_a_clear_error(make_origin: Any) -> None:
    with pytest.raises(OriginError, match=r"nobody\.invalid.*resolved"):
        make_origin(max_retries=0).stat(OriginRequest(url="http://nobody.invalid/"))


def test_a_silent_origin_is_given_up(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda _, head: [partial(head, cut=10), 60.0])
    with pytest.raises(OriginError, match=r"sent nothing|fewer than"):
        make_origin(read_timeout_s=0.3, max_retries=0).fetch_range(OriginRequest(url=server.url), SPAN, fd)


def test_a_dripping_origin_is_given_up(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda _, head: [partial(head, cut=10), *[part for _ in range(600) for part in (b"x", 0.05)]])
    with pytest.raises(OriginError, match="fewer than 1024 bytes per second"):
        make_origin(read_timeout_s=0.5, max_retries=0).fetch_range(OriginRequest(url=server.url), SPAN, fd)


def test_a_range_has_a_time_limit_of_its_own(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda _, head: [partial(head, cut=10), *[part for _ in range(600) for part in (b"x" * 200, 0.05)]])
    with pytest.raises(OriginError, match="longer than allowed"):
        make_origin(range_timeout_s=0.3, max_retries=0).fetch_range(OriginRequest(url=server.url), SPAN, fd)


@pytest.mark.parametrize("cut", [0, 700_000])
def test_stopping_does_not_wait_for_a_silent_origin(raw_server: Serve, make_origin: Any, fd: int, cut: int) -> None:
    server = raw_server(lambda _, head: [partial(head, cut=cut) if cut else b"", 60.0])
    counted: list[int] = []
    with pytest.raises(FetchStoppedError):
        make_origin(read_timeout_s=3600.0).fetch_range(
            OriginRequest(url=server.url), SPAN, fd, on_bytes=counted.append, should_stop=lambda: bool(server.heads)
        )


def test_stopping_does_not_wait_for_the_pause_before_a_retry(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda *_: [b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nRetry-After: 3600\r\n\r\n"])
    stopping = iter([False] * 5)
    with pytest.raises(FetchStoppedError):
        make_origin(retry_after_cap_s=3600.0).fetch_range(
            OriginRequest(url=server.url), SPAN, fd, should_stop=lambda: next(stopping, True)
        )


def test_a_full_disk_is_told_as_such(raw_server: Serve, make_origin: Any) -> None:
    server = raw_server(lambda _, head: [partial(head)])
    full_disk = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StorageFullError):
            make_origin().fetch_range(OriginRequest(url=server.url), SPAN, full_disk)
    finally:
        os.close(full_disk)


# --- change while reading


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('ETag: "one"\r\n', 'ETag: "two"\r\n'),
        ('ETag: W/"one"\r\n', 'ETag: W/"two"\r\n'),
        ("Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n", "Last-Modified: Thu, 02 Jan 2025 00:00:00 GMT\r\n"),
    ],
)
def test_a_change_between_two_ranges_is_named(raw_server: Serve, make_origin: Any, fd: int, before: str, after: str) -> None:
    server = raw_server(lambda number, head: [partial(head, header=before if number == 1 else after)])
    origin = make_origin()
    request = OriginRequest(url=server.url)
    request = request.expecting(origin.stat(request))
    with pytest.raises(OriginChangedError, match="changed at the origin while it was being read"):
        origin.fetch_range(request, SPAN, fd)
    assert len(server.heads) == 2


def test_a_change_between_two_attempts_at_one_range_is_noticed(raw_server: Serve, make_origin: Any, fd: int) -> None:
    def script(number: int, head: bytes) -> list[bytes | float | None]:
        return [partial(head, header=f'ETag: "{number}"\r\n', cut=1000 if number == 1 else None), None]

    server = raw_server(script)
    with pytest.raises(OriginChangedError, match='from "1" to "2"'):
        make_origin().fetch_range(OriginRequest(url=server.url), SPAN, fd)
    assert b'If-Range: "1"' in server.heads[1]


def test_a_strong_tag_is_sent_as_if_range_and_a_weak_one_is_not(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda _, head: [partial(head)])
    for tag in ('"strong"', 'W/"weak"'):
        make_origin().fetch_range(OriginRequest(url=server.url, expected_etag=tag), SPAN, fd)
    assert b'If-Range: "strong"' in server.heads[0]
    assert b"If-Range" not in server.heads[1]


def test_a_tag_that_stays_the_same_outweighs_another_date(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda number, head: [partial(head, header=f'ETag: "same"\r\nLast-Modified: {number}\r\n')])
    origin = make_origin()
    request = OriginRequest(url=server.url)
    origin.fetch_range(request.expecting(origin.stat(request)), SPAN, fd)


# --- one pass


def test_a_stream_without_length_or_ranges_is_read_to_its_end(raw_server: Serve, make_origin: Any) -> None:
    for answer in (chunked("200 OK", "", CONTENT[:7], CONTENT[7:]), b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT):
        server = raw_server(lambda *_, answer=answer: [answer, None])
        got = bytearray()
        stat = make_origin().fetch_stream(OriginRequest(url=server.url), on_chunk=got.extend)
        assert (bytes(got), stat.content_length) == (CONTENT, len(CONTENT))


def test_a_stream_that_breaks_off_is_not_begun_again_behind_the_callers_back(raw_server: Serve, make_origin: Any) -> None:
    server = raw_server(lambda *_: [chunked("200 OK", "", b"abc", end=False), None])
    got = bytearray()
    with pytest.raises(OriginError) as caught:
        make_origin().fetch_stream(OriginRequest(url=server.url), on_chunk=got.extend)
    assert (bytes(got), len(server.heads), caught.value.retryable) == (b"abc", 1, True)


def test_compressed_bytes_are_kept_as_they_are(raw_server: Serve, make_origin: Any) -> None:
    server = raw_server(lambda *_: [full(b"\x1f\x8bgzip", header="Content-Encoding: gzip\r\n")])
    got = bytearray()
    stat = make_origin().fetch_stream(OriginRequest(url=server.url), on_chunk=got.extend)
    assert bytes(got) == b"\x1f\x8bgzip"
    assert stat.header.find("content-encoding") == "gzip"
    assert b"Accept-Encoding: identity" in server.heads[0]


# --- connections


def test_ranges_share_a_connection_and_one_closed_while_idle_is_replaced(raw_server: Serve, make_origin: Any, fd: int) -> None:
    server = raw_server(lambda number, head: [partial(head), *([None] if number == 3 else [])])
    origin = make_origin(max_retries=0)
    for number in range(5):
        origin.fetch_range(OriginRequest(url=server.url), ByteRange(start=number * 10, length=10), fd)
    assert os.pread(fd, 50, 0) == CONTENT[:50]
    assert server.connections == 2


def test_a_reused_connection_that_ends_before_its_answer_is_tried_on_a_fresh_one(
    raw_server: Serve, make_origin: Any, fd: int
) -> None:
    server = raw_server(lambda number, head: [partial(head)] if number != 2 else [None])
    origin = make_origin(max_retries=0)
    for start in (0, 10):
        origin.fetch_range(OriginRequest(url=server.url), ByteRange(start=start, length=10), fd)
    assert (len(server.heads), server.connections) == (3, 2)


# --- request headers


def test_only_headers_that_concern_the_origin_are_sent(raw_server: Serve, make_origin: Any) -> None:
    server = raw_server(lambda _, head: [partial(head)])
    header = Headers(
        {
            "X-Darner-Insecure-Skip-Verify": "true",
            "x-darner-anything": "canary",
            "X-Dragonfly-Tag": "canary",
            "Host": "canary.example",
            "Range": "bytes=7-8",
            "If-None-Match": "canary",
            "Accept-Encoding": "gzip",
            "Connection": "canary",
            "X-Own": "kept",
            "Authorization": "Bearer kept",
        }
    )
    origin = make_origin(request_header=Headers({"X-Added": "added", "X-Own": "not taken"}))
    origin.stat(OriginRequest(url=server.url, header=header))
    head = server.heads[0].decode()
    assert "canary" not in head
    assert "gzip" not in head
    assert head.count("Host:") == 1
    assert "Range: bytes=0-0\r\n" in head
    for line in ("X-Own: kept", "Authorization: Bearer kept", "X-Added: added"):
        assert f"{line}\r\n" in head
    assert re.search(r"User-Agent: darner/\d", head)


@pytest.mark.parametrize("header", [{"X-A": "a\r\nX-Smuggled: 1"}, {"X A": "b"}, {"X-Ä": "c"}, {"X-A": "\u4e2d"}])
def test_a_header_that_http_forbids_is_refused_before_anything_is_sent(raw_server: Serve, make_origin: Any, header: Any) -> None:
    server = raw_server(lambda _, head: [partial(head)])
    with pytest.raises(InvalidInputError, match="request header") as caught:
        make_origin().stat(OriginRequest(url=server.url, header=Headers(header)))
    assert caught.value.field == "request_header"
    assert server.heads == []
