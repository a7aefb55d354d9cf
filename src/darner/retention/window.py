"""The maintenance window: when a sweep may remove. Plain functions of a moment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from darner.core.errors import InvalidInputError

_SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_LAST_HOUR, _LAST_MINUTE = 23, 59


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From `start` to `end`, each day, on the clock of a zone; past midnight when `end` is the earlier one.

    On a machine that does not know the zone it is closed; another manager's machine may know it.
    """

    start: time
    end: time
    zone: str = "UTC"

    @property
    def text(self) -> str:
        """As it is written: `22:00-06:00`."""
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def is_open(self, now_ms: int) -> bool:
        """Whether it is open at a moment (unix ms)."""
        if not is_zone(self.zone):
            return False
        here = self._local(now_ms).time()
        if self.start < self.end:
            return self.start <= here < self.end
        return here >= self.start or here < self.end

    def opens_at(self, now_ms: int) -> int | None:
        """When it opens next (unix ms), or now if it is open; None: not by what this machine knows."""
        if self.is_open(now_ms):
            return now_ms
        if not is_zone(self.zone):
            return None
        here = self._local(now_ms)
        first = here.replace(hour=self.start.hour, minute=self.start.minute, second=0, microsecond=0)
        following = first if first > here else first + timedelta(days=1)
        return int(following.timestamp() * 1000)

    def _local(self, now_ms: int) -> datetime:
        return datetime.fromtimestamp(now_ms / 1000, tz=_zone(self.zone))


def parse_window(span: str, zone: str = "UTC") -> Window:
    """`22:00-06:00` and the name of a time zone. InvalidInputError names the field."""
    window = _parsed(span, zone)
    if not is_zone(zone):
        raise InvalidInputError(f"{zone!r} is no time zone; write UTC or a name like Europe/Berlin.", field="zone")
    return window


def stored_window(body: Mapping[str, Any]) -> Window | None:
    """The window that was set; None: there is none."""
    return _parsed(body["window"], body["zone"]) if body.get("window") else None


def _parsed(span: str, zone: str) -> Window:
    found = _SPAN.fullmatch(span.strip())
    numbers = [int(part) for part in found.groups()] if found else []
    if not numbers or any(h > _LAST_HOUR or m > _LAST_MINUTE for h, m in (numbers[:2], numbers[2:])):
        raise InvalidInputError(f"{span!r} is no span of a day; write it like 22:00-06:00.", field="window")
    start, end = time(numbers[0], numbers[1]), time(numbers[2], numbers[3])
    if start == end:
        raise InvalidInputError(f"{span!r} is empty; leave the window away to remove at any time.", field="window")
    return Window(start=start, end=end, zone=zone)


def is_zone(name: str) -> bool:
    """Whether this machine knows a time zone."""
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _zone(name: str) -> tzinfo:
    """UTC is there also where the machine has no table of zones."""
    return UTC if name == "UTC" else ZoneInfo(name)
