import pytest

from darner.core.task import Headers
from darner.origin.headers import ContentRange, Facts, parse_content_range, retry_after_s
from darner.origin.hops import MAX_HOPS, Hop, HopCache, hop_key

NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 3-9/20", ContentRange(first=3, last=9, total=20)),
        ("Bytes  0-0/*", ContentRange(first=0, last=0, total=None)),
        ("bytes */20", None),
        ("bytes 3-9", None),
        ("bytes 3-9/20, bytes 1-2/20", None),
        ("bytes -3-9/20", None),
        ("bytes 3-9/" + "9" * 30, None),
        ("items 3-9/20", None),
        ("", None),
    ],
)
def test_a_content_range_is_read_exactly_or_not_at_all(text: str, found: ContentRange | None) -> None:
    assert parse_content_range(Headers({"content-RANGE": text})) == found


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("Sun, 15 Jun 2025 15:06:50 GMT", 10.0),
        ("Sun, 15 Jun 2025 15:00:00 GMT", 0.0),
        ("9" * 400, 999_999_999.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("٧", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, wait_s: float) -> None:
    assert retry_after_s(Headers({"Retry-After": text}), NOW) == wait_s


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (Facts(etag='"a"', total=5), Facts(etag='"a"', total=5), False),
        (Facts(etag='"a"'), Facts(etag='"b"'), True),
        (Facts(etag='"a"'), Facts(etag='W/"a"'), False),
        (Facts(etag='"a"', total=5), Facts(etag='"a"', total=6), True),
        (Facts(total=5), Facts(), False),
        (Facts(last_modified="x"), Facts(last_modified="y"), True),
        (Facts(etag='"a"', last_modified="x"), Facts(etag='"a"', last_modified="y"), False),
        (Facts(etag='"a"', last_modified="x"), Facts(last_modified="y"), True),
    ],
)
def test_contents_differ_by_length_tag_or_date(before: Facts, after: Facts, changed: bool) -> None:
    assert (before.difference(after) is not None) is changed
    assert (after.difference(before) is not None) is changed


def test_a_hop_is_kept_for_its_time_and_for_exactly_its_request() -> None:
    cache = HopCache(10.0)
    key, hop = (
        hop_key("http://a.example/", Headers({"Authorization": "one"}), False),
        Hop(url="http://b.example/", header=Headers()),
    )
    cache.put(key, hop, 100.0)
    assert cache.get(key, 109.9) == hop
    for other in (
        hop_key("http://a.example/", Headers({"Authorization": "two"}), False),
        hop_key("http://a.example/", Headers({"Authorization": "one"}), True),
    ):
        assert cache.get(other, 100.0) is None
    assert cache.get(key, 110.0) is None
    assert cache.get(key, 100.0) is None, "an old one is gone for good"


def test_the_least_recently_used_hop_goes_first() -> None:
    cache = HopCache(1000.0)
    for number in range(MAX_HOPS):
        cache.put(number, Hop(url=f"http://a.example/{number}", header=Headers()), 0.0)
    assert cache.get(0, 1.0)
    cache.put("new", Hop(url="http://a.example/new", header=Headers()), 1.0)
    assert cache.get(0, 1.0)
    assert cache.get(1, 1.0) is None
