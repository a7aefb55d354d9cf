"""The maintenance window: when a sweep may remove. Plain functions of a moment."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from darner.core.errors import InvalidInputError

_SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_LAST_HOUR, _LAST_MINUTE = 23, 59


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From `start` to `end`, each day, on the clock of a zone; past midnight when `end` is the earlier one."""

    start: time
    end: time
    zone: str = "UTC"

    @property
    def text(self) -> str:
        """As it is written: `22:00-06:00`."""
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def is_open(self, now_ms: int) -> bool:
        """Whether it is open at a moment (unix ms)."""
        here = self._local(now_ms).time()
        if self.start < self.end:
            return self.start <= here < self.end
        return here >= self.start or here < self.end

    def opens_at(self, now_ms: int) -> int:
        """When it opens next (unix ms), or now if it is open."""
        if self.is_open(now_ms):
            return now_ms
        here = self._local(now_ms)
        first = here.replace(hour=self.start.hour, minute=self.start.minute, second=0, microsecond=0)
        following = first if first > here else first + timedelta(days=1)
        return int(following.timestamp() * 1000)

    def _local(self, now_ms: int) -> datetime:
        return datetime.fromtimestamp(now_ms / 1000, tz=_zone(self.zone))


def parse_window(span: str, zone: str = "UTC") -> Window:
    """`22:00-06:00` and the name of a time zone. InvalidInputError names the field."""
    found = _SPAN.fullmatch(span.strip())
    numbers = [int(part) for part in found.groups()] if found else []
    if not numbers or any(h > _LAST_HOUR or m > _LAST_MINUTE for h, m in (numbers[:2], numbers[2:])):
        raise InvalidInputError(f"{span!r} is no span of a day; write it like 22:00-06:00.", field="window")
    start, end = time(numbers[0], numbers[1]), time(numbers[2], numbers[3])
    if start == end:
        raise InvalidInputError(f"{span!r} is empty; leave the window away to remove at any time.", field="window")
    try:
        _zone(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInputError(f"{zone!r} is no time zone; write UTC or a name like Europe/Berlin.", field="zone") from error
    return Window(start=start, end=end, zone=zone)


def _zone(name: str) -> tzinfo:
    """UTC is there also where the machine has no table of zones."""
    return UTC if name == "UTC" else ZoneInfo(name)
