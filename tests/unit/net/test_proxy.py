import pytest

from darner.core.errors import InvalidInputError
from darner.net.proxy import Proxy, ProxySettings

BOTH = {"http_proxy": "http://plain.example:3128", "HTTPS_PROXY": "secure.example:3129"}


def test_each_scheme_has_its_own_variable_in_either_case() -> None:
    settings = ProxySettings.from_environment(BOTH)
    assert settings.find("http", "a.example", 80) == Proxy(host="plain.example", port=3128)
    assert settings.find("https", "a.example", 443) == Proxy(host="secure.example", port=3129)


def test_lower_case_wins_and_all_proxy_fills_the_gap() -> None:
    settings = ProxySettings.from_environment({"all_proxy": "c.example", "http_proxy": "a.example:1", "HTTP_PROXY": "b.example:2"})
    assert settings.http == Proxy(host="a.example", port=1)
    assert settings.https == Proxy(host="c.example", port=80)


def test_http_proxy_in_capitals_is_not_believed_where_a_client_could_set_it() -> None:
    assert ProxySettings.from_environment({"HTTP_PROXY": "evil.example:1", "REQUEST_METHOD": "GET"}).http is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "x.localhost"])
def test_loopback_is_never_asked_through_a_proxy(host: str) -> None:
    assert ProxySettings.from_environment(BOTH).find("http", host, 80) is None


@pytest.mark.parametrize(
    ("entry", "host", "port", "direct"),
    [
        ("*", "a.example", 80, True),
        ("example.com", "example.com", 80, True),
        ("example.com", "a.example.com", 80, True),
        (".example.com", "A.Example.com.", 80, True),
        ("*.example.com", "a.example.com", 80, True),
        ("example.com", "badexample.com", 80, False),
        ("example.com:8080", "example.com", 8080, True),
        ("example.com:8080", "example.com", 80, False),
        ("10.0.0.0/8", "10.2.3.4", 80, True),
        ("10.0.0.0/8", "11.2.3.4", 80, False),
        ("192.168.1.7", "192.168.1.7", 80, True),
        ("fd00::/8", "fd12::1", 80, True),
        ("other.example, example.com", "example.com", 443, True),
        ("", "example.com", 443, False),
    ],
)
def test_no_proxy_names_suffixes_addresses_networks_and_ports(entry: str, host: str, port: int, direct: bool) -> None:
    settings = ProxySettings.from_environment({**BOTH, "no_proxy": entry})
    assert (settings.find("http", host, port) is None) is direct


def test_user_and_password_of_a_proxy_become_a_secret() -> None:
    proxy = Proxy.parse("http://us%40er:pass@proxy.example:8")
    assert proxy.authorization is not None
    assert proxy.authorization.reveal() == "Basic dXNAZXI6cGFzcw=="
    assert "pass" not in repr(proxy)


@pytest.mark.parametrize("text", ["socks5://proxy.example:1080", "https://proxy.example"])
def test_other_kinds_of_proxy_are_refused_with_a_clear_error(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not supported"):
        Proxy.parse(text)
