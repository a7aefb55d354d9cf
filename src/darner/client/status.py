"""The border between gRPC's status codes and the errors of core, in both directions.

Flows in: a DarnerError, or the error of a call. Flows out: code, message and trailers, or the DarnerError they tell. Between
our own services the trailers name the exact error, so that it arrives as it left; from others the code decides.
"""

from typing import NoReturn

import grpc
import grpc.aio

from darner.core.errors import (
    ConflictError,
    DarnerError,
    DeniedError,
    DigestMismatchError,
    ForbiddenAddressError,
    InvalidInputError,
    NotFoundError,
    OriginError,
    PeerError,
    StorageFullError,
    TimedOutError,
    UnauthenticatedError,
    UnavailableError,
)
from darner.wire.details import backend_details, origin_error_from_details

DETAILS_KEY = "grpc-status-details-bin"
KIND_KEY = "darner-error-kind"
FIELD_KEY = "darner-error-field"
MAX_MESSAGE_LENGTH = 1024

_Code = grpc.StatusCode
_CODE_OF_KIND: dict[str, grpc.StatusCode] = {
    InvalidInputError.kind: _Code.INVALID_ARGUMENT,
    NotFoundError.kind: _Code.NOT_FOUND,
    ConflictError.kind: _Code.FAILED_PRECONDITION,
    DeniedError.kind: _Code.PERMISSION_DENIED,
    UnauthenticatedError.kind: _Code.UNAUTHENTICATED,
    UnavailableError.kind: _Code.UNAVAILABLE,
    TimedOutError.kind: _Code.DEADLINE_EXCEEDED,
    DigestMismatchError.kind: _Code.DATA_LOSS,
    StorageFullError.kind: _Code.RESOURCE_EXHAUSTED,
    ForbiddenAddressError.kind: _Code.PERMISSION_DENIED,
    OriginError.kind: _Code.INTERNAL,
    PeerError.kind: _Code.ABORTED,
}
_ERROR_OF_KIND: dict[str, type[DarnerError]] = {
    error.kind: error
    for error in (
        InvalidInputError,
        NotFoundError,
        ConflictError,
        DeniedError,
        UnauthenticatedError,
        UnavailableError,
        TimedOutError,
        DigestMismatchError,
        StorageFullError,
        ForbiddenAddressError,
        PeerError,
    )
}
# Overload upstream is RESOURCE_EXHAUSTED (daemon.md, section 3.1): trying again later helps, as with UNAVAILABLE.
_ERROR_OF_CODE: dict[grpc.StatusCode, type[DarnerError]] = {
    _Code.INVALID_ARGUMENT: InvalidInputError,
    _Code.OUT_OF_RANGE: InvalidInputError,
    _Code.NOT_FOUND: NotFoundError,
    _Code.ALREADY_EXISTS: ConflictError,
    _Code.FAILED_PRECONDITION: ConflictError,
    _Code.PERMISSION_DENIED: DeniedError,
    _Code.UNAUTHENTICATED: UnauthenticatedError,
    _Code.UNAVAILABLE: UnavailableError,
    _Code.RESOURCE_EXHAUSTED: UnavailableError,
    _Code.CANCELLED: UnavailableError,
    _Code.DEADLINE_EXCEEDED: TimedOutError,
    _Code.DATA_LOSS: DigestMismatchError,
    _Code.ABORTED: PeerError,
}


def status_of(error: DarnerError) -> grpc.StatusCode:
    """The status code for an error; INTERNAL for the base class and origin failures, as upstream does it."""
    return _CODE_OF_KIND.get(error.kind, _Code.INTERNAL)


def message_of(error: DarnerError) -> str:
    """The message as it fits into a trailer."""
    return error.message[:MAX_MESSAGE_LENGTH]


def trailers_of(error: DarnerError) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata that lets the other side rebuild the error: its kind, its field, what the origin answered."""
    trailers: list[tuple[str, str | bytes]] = [(KIND_KEY, error.kind)]
    if error.field and error.field.isascii() and error.field.isprintable():
        trailers.append((FIELD_KEY, error.field[:MAX_MESSAGE_LENGTH]))
    if isinstance(error, OriginError):
        trailers.append((DETAILS_KEY, backend_details(error)))
    return tuple(trailers)


def error_of(failure: grpc.RpcError, *, address: str = "the other side") -> DarnerError:
    """The DarnerError that a failed call to `address` tells. Never raises, whatever the other side put into its trailers."""
    code = failure.code() if hasattr(failure, "code") else _Code.UNKNOWN
    text = (failure.details() if hasattr(failure, "details") else None) or ""
    trailers = {str(key): value for key, value in (_trailing(failure) or ())}
    details = trailers.get(DETAILS_KEY)
    origin = origin_error_from_details(details) if isinstance(details, bytes) else None
    if origin is not None:
        return origin
    kind = trailers.get(KIND_KEY)
    if kind == OriginError.kind:
        return OriginError(text)
    field = trailers.get(FIELD_KEY)
    if kind is not None:
        return _ERROR_OF_KIND.get(str(kind), DarnerError)(text, field=str(field) if field else None)
    return _ERROR_OF_CODE.get(code, DarnerError)(_explained(code, text, address))


def _explained(code: grpc.StatusCode, text: str, address: str) -> str:
    """What grpc says of itself names neither whom it called nor what to do."""
    if code is _Code.UNAVAILABLE:
        return f"{address} does not answer; is it running? ({text})"
    if code is _Code.DEADLINE_EXCEEDED:
        return f"{address} did not answer in time ({text})"
    if code is _Code.UNIMPLEMENTED:
        return f"{address} does not know this call ({text})"
    return text or f"the call to {address} failed with {code.name}"


def _trailing(failure: grpc.RpcError) -> tuple[tuple[str, str | bytes], ...] | None:
    return failure.trailing_metadata() if hasattr(failure, "trailing_metadata") else None


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: DarnerError) -> NoReturn:
    """End a call of a grpc.aio server with this error. Raises what grpc raises to unwind the handler."""
    await context.abort(status_of(error), message_of(error), trailers_of(error))
    raise AssertionError("abort returned")  # pragma: no cover
