"""Errors cross the wire as they are, and what others send becomes the nearest of ours."""

from typing import Any

import grpc
import grpc.aio
import pytest

from darner.client import status
from darner.core import errors
from darner.core.errors import DarnerError, OriginError

ALL = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DarnerError) and kind is not OriginError
]


def failed(code: grpc.StatusCode, details: str | None, trailers: tuple[tuple[str, str | bytes], ...] = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


def through_the_wire(error: DarnerError) -> DarnerError:
    return status.error_of(failed(status.status_of(error), status.message_of(error), status.trailers_of(error)))


@pytest.mark.parametrize("kind", ALL)
def test_every_error_arrives_as_it_left(kind: type[DarnerError]) -> None:
    arrived = through_the_wire(kind("what happened", field="a.b"))
    assert (type(arrived), arrived.message, arrived.field) == (kind, "what happened", "a.b")


def test_an_origins_error_arrives_with_what_it_answered() -> None:
    arrived = through_the_wire(OriginError("404 Not Found", status=404, header={"a": "b"}, retryable=True))
    assert isinstance(arrived, OriginError)
    assert (arrived.message, arrived.status, arrived.header, arrived.retryable) == ("404 Not Found", 404, {"a": "b"}, True)
    assert status.status_of(arrived) is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_of_others_becomes_an_error_with_a_message(code: grpc.StatusCode) -> None:
    for text in ("", "because", None):
        error = status.error_of(failed(code, text), address="10.0.0.1:8002")
        assert isinstance(error, DarnerError)
        assert error.message
        assert "because" in error.message or text != "because"


def test_an_unreachable_service_is_named() -> None:
    error = status.error_of(failed(grpc.StatusCode.UNAVAILABLE, "connection refused"), address="10.0.0.1:8002")
    assert isinstance(error, errors.UnavailableError)
    assert error.message == "10.0.0.1:8002 does not answer; is it running? (connection refused)"


@pytest.mark.parametrize(
    "trailers",
    [
        (("grpc-status-details-bin", b"\x08\x05"),),
        (("darner-error-kind", "of the future"),),
        (("darner-error-kind", "origin"),),
        (("darner-error-kind", b"\xff"), ("darner-error-field", b"\xff")),
    ],
)
def test_odd_trailers_never_raise(trailers: tuple[tuple[str, str | bytes], ...]) -> None:
    assert isinstance(status.error_of(failed(grpc.StatusCode.INTERNAL, "m", trailers)), DarnerError)


def test_an_error_that_tells_nothing_of_itself_is_still_an_error() -> None:
    assert isinstance(status.error_of(grpc.RpcError()), DarnerError)


def test_a_message_is_cut_to_what_a_trailer_holds() -> None:
    assert len(status.message_of(DarnerError("x" * 100_000))) == status.MAX_MESSAGE_LENGTH


def test_a_field_that_no_trailer_may_hold_stays_behind() -> None:
    trailers: Any = dict(status.trailers_of(DarnerError("m", field="ü\n")))
    assert trailers == {"darner-error-kind": "internal"}
