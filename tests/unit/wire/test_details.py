"""What an origin answered reaches the asker, whoever wrote it, and nothing else does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.errors import OriginError
from darner.wire.details import MAX_DETAILS_BYTES, backend_details, origin_error_from_details


def test_an_origins_answer_comes_back_as_it_went() -> None:
    error = OriginError("503 Service Unavailable", status=503, header={"Retry-After": "5"}, retryable=True)
    read = origin_error_from_details(backend_details(error))
    assert read is not None
    assert (read.message, read.status, read.header, read.retryable) == (error.message, 503, {"Retry-After": "5"}, True)


def test_it_is_json_of_upstreams_backend_message() -> None:
    data = backend_details(OriginError("gone", status=410, header={"a": "b"}))
    assert json.loads(data) == {"message": "gone", "header": {"a": "b"}, "status_code": 410}


def test_what_upstreams_daemon_writes_is_read() -> None:
    read = origin_error_from_details(b'{"message":"not found","header":{"server":"x"},"status_code":404}')
    assert read is not None
    assert (read.message, read.status, read.header, read.retryable) == ("not found", 404, {"server": "x"}, False)
    read = origin_error_from_details(b'{"message":"","header":{},"status_code":null}')
    assert read is not None
    assert read.status is None


def test_secret_headers_stay_behind() -> None:
    data = backend_details(
        OriginError("no", status=401, header={"Set-Cookie": "id=1", "WWW-Authenticate": "Basic", "X-Auth-Token": "t"})
    )
    assert json.loads(data)["header"] == {"WWW-Authenticate": "Basic"}


def test_it_always_fits_into_a_trailer() -> None:
    huge = OriginError("é" * 100_000, status=500, header={f"h{number}": "ü" * 500 for number in range(100)})
    data = backend_details(huge)
    assert len(data) <= MAX_DETAILS_BYTES
    assert json.loads(data)["status_code"] == 500


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"{}", b"\xff\xfe", b"\x08\x05\x12\x03abc", b'{"message":"m"}'])
def test_other_bytes_read_as_nothing(data: bytes) -> None:
    assert origin_error_from_details(data) is None


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.dictionaries(st.sampled_from(["message", "header", "status_code", "retryable"]), inner) | st.lists(inner, max_size=2)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_whatever_make_the_reader_fail(data: bytes) -> None:
    origin_error_from_details(data)
