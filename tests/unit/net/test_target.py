import pytest

from darner.core.errors import InvalidInputError
from darner.core.task import Headers
from darner.net.target import Target, without_userinfo


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "host_header"),
    [
        ("http://Example.com", "example.com", 80, "/", "example.com"),
        ("https://example.com:443/a?b=c#d", "example.com", 443, "/a?b=c", "example.com"),
        ("http://example.com:8080/a b", "example.com", 8080, "/a%20b", "example.com:8080"),
        ("http://[::1]:81/", "::1", 81, "/", "[::1]:81"),
        ("http://0x7f.1/", "127.0.0.1", 80, "/", "127.0.0.1"),
        ("http://2852039166/", "169.254.169.254", 80, "/", "169.254.169.254"),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"),
    ],
)
def test_guard_tls_and_host_header_see_the_same_host(url: str, host: str, port: int, path: str, host_header: str) -> None:
    target = Target.parse(url)
    assert (target.host, target.port, target.path, target.host_header) == (host, port, path, host_header)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "no url", "http://", "memory:/x"])
def test_only_http_and_https_are_targets(url: str) -> None:
    with pytest.raises(InvalidInputError):
        Target.parse(url)


def test_a_user_in_the_url_becomes_a_header_and_leaves_the_url() -> None:
    assert without_userinfo("http://us%20er:p%40ss@h.example/x#f", Headers()) == (
        "http://h.example/x",
        {"Authorization": "Basic dXMgZXI6cEBzcw=="},
    )
    kept = Headers({"authorization": "Bearer x"})
    assert without_userinfo("http://user:pass@h.example/x", kept) == ("http://h.example/x", kept)
