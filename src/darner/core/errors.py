"""What can go wrong, in the field's words. One base class, few subclasses; faces map them to status codes, nobody else does.

The docstring of a class is its default message. A message says what happened, to what, and what to do.
"""

from collections.abc import Mapping
from typing import ClassVar


class DarnerError(Exception):
    """Something failed."""

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        """`field` names the input field at fault (dotted path), when there is one."""
        super().__init__(message or self.__class__.__doc__ or "")
        self.field = field

    @property
    def message(self) -> str:
        """The sentence a person reads."""
        return str(self.args[0])


class InvalidInputError(DarnerError):
    """The input is not valid."""

    kind = "invalid"


class NotFoundError(DarnerError):
    """There is no such thing."""

    kind = "not_found"


class ConflictError(DarnerError):
    """It exists already, or its state forbids this."""

    kind = "conflict"


class DeniedError(DarnerError):
    """Not allowed."""

    kind = "denied"


class UnauthenticatedError(DarnerError):
    """No valid login or token was given."""

    kind = "unauthenticated"


class UnavailableError(DarnerError):
    """A service we need does not answer; trying again later may help."""

    kind = "unavailable"


class TimedOutError(DarnerError):
    """It took too long."""

    kind = "timed_out"


class DigestMismatchError(DarnerError):
    """The bytes do not match their digest."""

    kind = "digest_mismatch"


class StorageFullError(DarnerError):
    """There is no room left on the disk; free space or raise the quota."""

    kind = "storage_full"


class ForbiddenAddressError(DarnerError):
    """The address is one that must never be dialled (link-local, cloud metadata, or not allowed by configuration)."""

    kind = "forbidden_address"


class OriginError(DarnerError):
    """The origin did not deliver the content.

    `status` is the HTTP status, or None when no answer came; `header` is what may be shown to the asker.
    """

    kind = "origin"

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        header: Mapping[str, str] | None = None,
        retryable: bool = False,
    ) -> None:
        """`retryable`: trying again, without changing anything, may help."""
        super().__init__(message)
        self.status = status
        self.header = dict(header or {})
        self.retryable = retryable


class PeerError(DarnerError):
    """A peer broke the protocol, went away, or sent something other than what was asked."""

    kind = "peer"
