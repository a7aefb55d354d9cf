import pytest

from darner.core.task import Headers
from darner.net.errors import NetError
from darner.net.redirect import next_hop

SECRETS = {
    "Authorization": "Bearer canary",
    "cookie": "canary",
    "Proxy-Authorization": "canary",
    "X-Amz-Security-Token": "canary",
    "X-Auth-Token": "canary",
    "Private-Token": "canary",
    "X-Api-Key": "canary",
}
PLAIN = {"Accept": "*/*", "Range": "bytes=0-0"}
BOTH = Headers({**SECRETS, **PLAIN})


@pytest.mark.parametrize(
    "location",
    ["https://b.example/x", "https://a.example:8443/x", "//b.example/x", "https://sub.a.example/x"],
)
def test_no_credential_crosses_an_origin(location: str) -> None:
    _, header = next_hop("https://a.example/file", location, BOTH)
    assert header == PLAIN


@pytest.mark.parametrize("location", ["/other", "other?x=1", "https://a.example/x", "https://a.example:443/x", "//A.example/x"])
def test_within_an_origin_everything_is_kept(location: str) -> None:
    url, header = next_hop("https://a.example/file", location, BOTH)
    assert url.startswith("https://a.example/")
    assert header == BOTH


def test_from_http_to_https_of_the_same_host_is_another_origin() -> None:
    assert next_hop("http://a.example/", "https://a.example/", BOTH) == ("https://a.example/", PLAIN)


def test_from_https_to_http_is_refused_only_while_credentials_are_in_play() -> None:
    with pytest.raises(NetError, match="from https to http"):
        next_hop("https://a.example/", "http://a.example/", BOTH)
    assert next_hop("https://a.example/", "http://b.example/", Headers(PLAIN)) == ("http://b.example/", PLAIN)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a.example/x", "javascript:alert(1)", "gopher://a.example/", "data:,x"]
)
def test_other_schemes_are_not_followed(location: str) -> None:
    with pytest.raises(NetError, match="not followed"):
        next_hop("https://a.example/", location, Headers())


@pytest.mark.parametrize("location", [None, "", "https://a.example:99999/"])
def test_a_redirect_to_nowhere_is_an_error(location: str | None) -> None:
    with pytest.raises(NetError):
        next_hop("https://a.example/", location, Headers())


def test_credentials_and_fragment_in_a_location_are_dropped() -> None:
    assert next_hop("https://a.example/", "https://u:p@b.example/x#y", Headers())[0] == "https://b.example/x"


def test_a_signature_in_the_url_is_not_shown_in_errors() -> None:
    with pytest.raises(NetError) as caught:
        next_hop("https://a.example/?sig=canary", "ftp://x/", Headers())
    assert "canary" not in caught.value.message
