"""What all codecs share: times, and how fields are set without losing the difference between absent, empty and 0.

Flows in: seconds, or a message and a field's name. Flows out: Timestamp, Duration, or the changed message. Refuses nothing:
what a type cannot hold becomes the nearest that it can.
"""

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

MAX_DURATION_S = 315_576_000_000
MIN_TIMESTAMP_S = -62_135_596_800
MAX_TIMESTAMP_S = 253_402_300_799
NANOS = 1_000_000_000

_EnumT = TypeVar("_EnumT", bound=IntEnum)


class StringMap(Protocol):
    """A map<string,string> field."""

    def clear(self) -> None:
        """Drop all entries."""

    def update(self, other: Mapping[str, str], /) -> None:
        """Add entries."""


def to_timestamp(unix_s: float) -> Timestamp:
    """Unix seconds as Timestamp; kept to the nanosecond that the float holds, and within what the type may hold."""
    seconds, nanos = _split(unix_s, MIN_TIMESTAMP_S, MAX_TIMESTAMP_S)
    return Timestamp(seconds=seconds, nanos=nanos)


def from_timestamp(timestamp: Timestamp) -> float:
    """Unix seconds of a Timestamp; 0.0 for an absent one."""
    return _joined(timestamp.seconds, timestamp.nanos)


def to_duration(seconds: float) -> Duration:
    """Seconds, 0 or more, as Duration. Longer than the type may hold becomes the longest."""
    whole, nanos = _split(seconds, 0, MAX_DURATION_S)
    return Duration(seconds=whole, nanos=nanos)


def from_duration(duration: Duration) -> float:
    """Seconds of a Duration; 0.0 for an absent one."""
    return _joined(duration.seconds, duration.nanos)


def _joined(seconds: int, nanos: int) -> float:
    # One division of whole numbers rounds once; adding a rounded fraction would round twice and miss by a digit.
    return (seconds * NANOS + nanos) / NANOS


def _split(seconds: float, lowest: int, highest: int) -> tuple[int, int]:
    if not seconds < highest:  # NaN as well: "no end" is what is meant
        return highest, 0
    if seconds <= lowest:
        return lowest, 0
    whole = math.floor(seconds)
    nanos = round((seconds - whole) * NANOS)
    return (whole + 1, 0) if nanos == NANOS else (whole, nanos)


def put_plain(message: Message, name: str, value: object) -> None:
    """Set a field unless it reads like that already, so that "present and 0" of a carried message stays present."""
    if getattr(message, name) != value:
        setattr(message, name, value)


def put_optional(message: Message, name: str, value: object | None) -> None:
    """Set a field with presence; None clears it."""
    if value is None:
        message.ClearField(name)
    else:
        setattr(message, name, value)


def get_optional(message: Message, name: str) -> object | None:
    """The value of a field with presence, None if it is absent."""
    return getattr(message, name) if message.HasField(name) else None


def enum_of(kind: type[_EnumT], value: int, otherwise: _EnumT) -> _EnumT:
    """The member with that value, or `otherwise` for a value that this version does not know."""
    try:
        return kind(value)
    except ValueError:
        return otherwise


def put_header(target: StringMap, header: Mapping[str, str]) -> None:
    """Make a map field hold exactly this header."""
    target.clear()
    target.update(header)
