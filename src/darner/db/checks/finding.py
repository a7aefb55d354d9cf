"""One thing that was looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`name` is stable, for programs; `value` what was found; `hint` empty or what to do."""

    name: str
    value: str
    level: Level = Level.OK
    hint: str = ""


def judged(name: str, value: object, *, good: bool, otherwise: Level, hint: str) -> Finding:
    """A finding that is fine, or else of a level and with a hint."""
    return Finding(name=name, value=str(value), level=Level.OK if good else otherwise, hint="" if good else hint)
