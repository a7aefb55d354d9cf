import pytest

from darner.core.errors import InvalidInputError
from darner.core.task import DEFAULT_PRIORITY, Headers
from darner.daemon.mirror_rules import blob_path, for_origin, forwarded, is_plain, priority_of, registry_base, returned

HUB = "https://index.docker.io"


@pytest.mark.parametrize(
    ("header", "namespace", "base"),
    [
        (None, None, HUB),
        (None, "ghcr.io", "https://ghcr.io"),
        (None, "docker.io", "https://registry-1.docker.io"),
        (None, "127.0.0.1:5000", "http://127.0.0.1:5000"),
        (None, "localhost:5000", "http://localhost:5000"),
        (None, "[::1]:5000", "http://[::1]:5000"),
        (None, "old.example:5000", "http://old.example:5000"),
        ("http://r.example/", "ghcr.io", "http://r.example"),
        ("https://r.example:8443", None, "https://r.example:8443"),
    ],
)
def test_the_registry_is_the_headers_else_the_namespaces_else_our_own(header: str | None, namespace: str | None, base: str) -> None:
    assert registry_base(header, namespace, HUB, ("old.example",)) == base


@pytest.mark.parametrize("named", ["ftp://x", "https://user:pw@x", "https://", "file:///etc/passwd", "a b"])
def test_what_is_no_registry_is_refused(named: str) -> None:
    with pytest.raises(InvalidInputError):
        registry_base(named, None, HUB, ())


def test_only_loopback_and_listed_registries_are_plain() -> None:
    assert is_plain("127.0.0.9", ())
    assert not is_plain("10.0.0.1:5000", ())
    assert is_plain("10.0.0.1:5000", ("10.0.0.1:5000",))


def test_blobs_are_told_by_path_and_a_digest_that_the_swarm_can_name() -> None:
    blob = blob_path("/v2/team/deep/app/blobs/sha256:" + "a" * 64)
    assert blob is not None
    assert (blob.name, blob.digest.value) == ("team/deep/app", "a" * 64)
    for other in ("/v2/x/manifests/v1", "/v2/x/blobs/sha512:" + "a" * 128, "/v2/x/blobs/sha256:zz", "/v2/x/blobs/uploads/"):
        assert blob_path(other) is None


def test_headers_of_the_connection_and_our_own_do_not_travel_on() -> None:
    given = [
        ("Host", "x"),
        ("Connection", "close"),
        ("X-Dragonfly-Tag", "t"),
        ("Authorization", "Bearer s"),
        ("Range", "bytes=0-1"),
    ]
    assert forwarded(given) == {"Authorization": "Bearer s", "Range": "bytes=0-1"}
    assert for_origin(Headers(given)) == {"Authorization": "Bearer s"}
    answer = [("WWW-Authenticate", "Basic"), ("Content-Length", "3"), ("Transfer-Encoding", "chunked")]
    assert returned(answer, keep_length=True) == [("WWW-Authenticate", "Basic"), ("Content-Length", "3")]


def test_a_priority_that_is_none_counts_as_the_default() -> None:
    assert [priority_of(text) for text in ("0", "6", "7", "-1", "x", None)] == [0, 6] + [DEFAULT_PRIORITY] * 4
