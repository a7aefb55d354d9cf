import json

import pytest

from darner.core.errors import OriginError
from darner.registry.auth import Challenge, parse_challenges, parse_token, token_url


def test_challenges_are_read_with_quotes_commas_and_several_in_one_line() -> None:
    text = 'Bearer realm="https://auth.example/t?x=a,b",service="s \\"q\\"",scope="repository:a/b:pull,push"'
    text += ', Basic realm="r", Negotiate'
    assert parse_challenges(text) == [
        Challenge(
            scheme="bearer",
            parameters={"realm": "https://auth.example/t?x=a,b", "service": 's "q"', "scope": "repository:a/b:pull,push"},
        ),
        Challenge(scheme="basic", parameters={"realm": "r"}),
        Challenge(scheme="negotiate", parameters={}),
    ]


@pytest.mark.parametrize("text", ["", "=", '"', ", ,", 'realm="x"', "Bearer realm=", "\x00"])
def test_nonsense_is_no_challenge_and_no_crash(text: str) -> None:
    assert all(not challenge.parameters for challenge in parse_challenges(text))


def url_for(realm: str, *, registry_scheme: str = "https", has_credentials: bool = True, **more: str) -> str:
    challenge = Challenge(scheme="bearer", parameters={"realm": realm, **more})
    return token_url(challenge, registry_scheme=registry_scheme, repository="a/b", has_credentials=has_credentials)


def test_the_token_service_is_asked_for_pulling_from_the_repository() -> None:
    assert url_for("https://auth.example/token?p=1", service="reg istry") == (
        "https://auth.example/token?p=1&service=reg%20istry&scope=repository%3Aa%2Fb%3Apull"
    )
    assert (
        url_for("https://auth.example/token", scope="repository:x:pull") == "https://auth.example/token?scope=repository%3Ax%3Apull"
    )


def test_a_password_is_not_sent_to_a_plain_token_service_of_a_tls_registry() -> None:
    with pytest.raises(OriginError, match="not sent"):
        url_for("http://auth.example/token")
    assert url_for("http://auth.example/token", has_credentials=False)
    assert url_for("http://auth.example/token", registry_scheme="http")


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "auth.example/token", "ftp://x/"])
def test_a_realm_that_is_no_http_url_is_refused(realm: str) -> None:
    with pytest.raises(OriginError, match="no usable token service"):
        url_for(realm)


def test_a_token_is_a_secret_with_an_end() -> None:
    grant = parse_token(json.dumps({"access_token": "canary", "expires_in": 300}).encode(), "https://auth.example/")
    assert (grant.authorization.reveal(), grant.expires_s) == ("Bearer canary", 300.0)
    assert "canary" not in repr(grant)
    assert parse_token(b'{"token": "x"}', "https://auth.example/").expires_s == 60.0


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: b"}', b'{"token": ""}', b"null", b"[" * 100_000]
)
def test_an_answer_without_a_token_is_a_clear_error(answer: bytes) -> None:
    with pytest.raises(OriginError, match="gave no token"):
        parse_token(answer, "https://auth.example/")
