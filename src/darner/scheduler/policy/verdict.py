"""What an origin's error means for those who wait for the same content."""

from darner.core.errors import OriginError
from darner.core.task import Download

UNAUTHORISED = frozenset({401, 403, 407})
_LATER = frozenset({408, 416, 425, 429})
_CLIENT_ERRORS = range(400, 500)


def is_permanent(error: OriginError) -> bool:
    """Whether asking the origin again for the same would give the same answer.

    Statuses 4xx are, but for those that ask for patience, and 416, which is about one peer's range.
    """
    return error.status is not None and error.status in _CLIENT_ERRORS and error.status not in _LATER


def concerns(error: OriginError, asked: Download, other: Download) -> bool:
    """Whether the answer that `asked` got holds for `other` too: a refusal of credentials holds for the same credentials only."""
    if error.status not in UNAUTHORISED:
        return True
    return asked.url == other.url and asked.request_header == other.request_header
