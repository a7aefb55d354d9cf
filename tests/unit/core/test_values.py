"""Ranges, URLs, headers, secrets and states: the small laws that everything stands on."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.errors import DarnerError, InvalidInputError, OriginError
from darner.core.job import END_STATES, DetailState, State, state_of
from darner.core.piece import MIN_PIECE_LENGTH, interested_pieces, piece_count, piece_length_for, piece_span
from darner.core.ranges import ByteRange, parse_range_flag, parse_range_header
from darner.core.secret import MASK, Secret, is_secret_header
from darner.core.task import Headers
from darner.core.url import masked, origin_of, parse_url, redacted


@pytest.mark.parametrize(
    ("text", "start", "length"),
    [("bytes=0-0", 0, 1), ("bytes=10-", 10, 90), ("bytes=-5", 95, 5), ("bytes=90-200", 90, 10), ("bytes=0-1,5-6", 0, 2)],
)
def test_a_range_header_is_read_against_the_content(text: str, start: int, length: int) -> None:
    assert parse_range_header(text, 100) == ByteRange(start=start, length=length)


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=5-4", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=", "bytes=-0"])
def test_a_range_that_cannot_be_satisfied_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_range_header(text, 100)


def test_a_range_flag_is_two_numbers_or_open() -> None:
    assert parse_range_flag("5-9") == (5, 9)
    assert parse_range_flag("5-") == (5, None)
    for wrong in ("9-5", "-5", "5", "a-b"):
        with pytest.raises(InvalidInputError):
            parse_range_flag(wrong)


@given(st.integers(1, 1 << 45))
def test_pieces_cover_the_content_without_gap_or_overlap(content_length: int) -> None:
    length = piece_length_for(content_length)
    count = piece_count(content_length, length)
    first, last = piece_span(0, content_length, length), piece_span(count - 1, content_length, length)
    assert length >= MIN_PIECE_LENGTH
    assert (first.start, last.end) == (0, content_length)
    assert last.start == (count - 1) * length


@given(st.integers(1, 1 << 32), st.data())
def test_interested_pieces_are_those_that_overlap(content_length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, content_length - 1))
    length = data.draw(st.integers(1, content_length - start))
    numbers = interested_pieces(content_length, MIN_PIECE_LENGTH, ByteRange(start=start, length=length))
    assert numbers[0] * MIN_PIECE_LENGTH <= start < (numbers[0] + 1) * MIN_PIECE_LENGTH
    assert numbers[-1] * MIN_PIECE_LENGTH < start + length <= (numbers[-1] + 1) * MIN_PIECE_LENGTH


def test_a_url_for_a_log_has_no_user_and_no_query_values() -> None:
    shown = redacted("https://user:pass@host.example/path?X-Amz-Signature=abc&part=1")
    assert shown == "https://host.example/path?X-Amz-Signature=&part="
    assert redacted("https://host.example/a?bare-token&b=1#access_token=x") == "https://host.example/a?b="
    assert redacted("file:///etc/hosts") == "file:///etc/hosts"


@pytest.mark.parametrize(
    "text", ["http://user:s3cret@ho st/a", "//user:s3cret@host/a", "no url?X-Amz-Signature=s3cret", "http://[::1?s3cret"]
)
def test_what_is_no_url_is_refused_without_showing_what_may_be_secret_in_it(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_url(text)
    assert "s3cret" not in refused.value.message


def test_the_origin_of_a_url_is_what_credentials_must_not_leave() -> None:
    assert origin_of("https://host.example/a") == origin_of("https://host.example:443/b")
    assert origin_of("https://host.example/a") != origin_of("http://host.example/a")


def test_headers_print_secrets_masked_and_are_found_ignoring_case() -> None:
    headers = Headers({"Authorization": "Bearer x", "X-Auth-Token": "y", "Accept": "z"})
    assert str(headers) == repr({"Authorization": MASK, "X-Auth-Token": MASK, "Accept": "z"})
    assert headers.find("authorization") == "Bearer x"
    assert headers.without("AUTHORIZATION", "x-auth-token") == {"Accept": "z"}


def test_a_secret_is_not_printed_and_not_pickled() -> None:
    secret = Secret("hush")
    assert f"{secret} {secret!r} {[secret]}" == f"{MASK} {MASK} [{MASK}]"
    assert secret.reveal() == "hush"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_upstreams_word_follows_from_the_stored_state() -> None:
    words = {state: state_of(state) for state in DetailState}
    assert [state for state, word in words.items() if word == State.SUCCESS] == [DetailState.SUCCEEDED]
    assert {state for state, word in words.items() if word == State.PENDING} == set(DetailState) - END_STATES


def test_an_errors_docstring_is_its_default_message() -> None:
    assert DarnerError().message == "Something failed."
    assert OriginError(status=404).status == 404


@pytest.mark.parametrize(
    "name", ["Authorization", "X-Api-Key", "Private-Token", "X-Amz-Signature", "Cookie", "Proxy-Authorization", "x_auth_token"]
)
def test_headers_that_log_in_are_secret(name: str) -> None:
    assert is_secret_header(name)


@pytest.mark.parametrize("name", ["Accept", "Content-Type", "ETag", "WWW-Authenticate", "Range", "Docker-Content-Digest"])
def test_other_headers_are_not(name: str) -> None:
    assert not is_secret_header(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user:pass@host/x?sig=1", "host/x"),
        ("https//u:p@h/y#z", "https//h/y"),
        ("h/app@sha256:ab", "h/app@sha256:ab"),
        ("ftp://u:p@h/z?q", "ftp://h/z"),
        ("plain", "plain"),
    ],
)
def test_what_was_meant_as_a_url_is_shown_without_what_may_be_secret(text: str, shown: str) -> None:
    assert masked(text) == shown
