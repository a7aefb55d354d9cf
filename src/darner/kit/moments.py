"""Moments as people and files write them: RFC 3339, UTC with `Z`."""

from datetime import UTC, datetime
from typing import overload

from darner.kit.units import parse_duration


@overload
def rfc3339(unix_ms: int, timespec: str = ...) -> str: ...
@overload
def rfc3339(unix_ms: int | None, timespec: str = ...) -> str | None: ...
def rfc3339(unix_ms: int | None, timespec: str = "milliseconds") -> str | None:
    """Unix milliseconds as text; None stays None. `timespec` as `datetime.isoformat` takes it.

    ValueError, OverflowError or OSError for a moment that no calendar has.
    """
    if unix_ms is None:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def around(text: str, now_s: float, *, sign: int) -> float:
    """Unix seconds of a moment in RFC 3339 (without a zone: UTC), or of a duration before (`sign` -1) or after (1) `now_s`.

    ValueError for what is neither, or lies beyond all calendars.
    """
    try:
        return now_s + sign * parse_duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError(text) from error
