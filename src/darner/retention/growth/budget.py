"""How much room the history may take, as people write it. Plain values; refuses what cannot be kept to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from darner.core.errors import InvalidInputError
from darner.kit.units import format_size, parse_size
from darner.retention.parse import age_from_json
from darner.retention.policy import DAY_MS, MAX_AGE_MS, Age

_LEAST_BYTES = 64 * 1024**2
_MOST_PERCENT = 90
_LEAST_FLOOR_MS = DAY_MS
_SIZE = re.compile(r"(?:keep\s+)?(?:at\s+most\s+)?(\d+(?:\.\d+)?\s*[kmgtp]?i?b?)", re.IGNORECASE | re.ASCII)
_SHARE = re.compile(r"(?:keep\s+)?(\d+(?:\.\d+)?)\s*%\s*(?:of\s+the\s+disk\s+)?free", re.IGNORECASE | re.ASCII)
_ROOM = re.compile(r"(?:keep\s+)?(\d+(?:\.\d+)?\s*[kmgtp]?i?b?)\s+(?:of\s+the\s+disk\s+)?free", re.IGNORECASE | re.ASCII)
_NONE = frozenset({"", "none", "no budget", "off"})
_FORMS = "write it like `keep at most 20 GiB`, `keep 10 % of the disk free`, or `none`"
DEFAULT_FLOOR = Age(text="7d", ms=7 * DAY_MS)


class Kind(StrEnum):
    """What is limited: the history's own size, or how full its disk may become."""

    AT_MOST = "at_most"
    KEEP_FREE = "keep_free"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """`bytes` of the history, or of the disk that stay free; `percent` instead: of the disk.

    `shorten`: a person has opted in that history is removed earlier than its rules say when the disk is nearly full, but nothing
    younger than that age.
    """

    kind: Kind
    bytes: int = 0
    percent: float = 0.0
    shorten: Age | None = None

    @property
    def text(self) -> str:
        """As people write it."""
        amount = f"{self.percent:g} %" if self.percent else format_size(self.bytes)
        return f"keep at most {amount}" if self.kind == Kind.AT_MOST else f"keep {amount} of the disk free"

    def free_bytes(self, disk_bytes: int) -> int:
        """How much of a disk of that size stays free."""
        return int(disk_bytes * self.percent / 100) if self.percent else self.bytes


def parse_budget(text: str, *, shorten: Any = None) -> Budget | None:  # noqa: ANN401  (JSON)
    """A budget from words; None: `none`. `shorten`: an age like `7d`, or True for that. InvalidInputError names the field."""
    said = text.strip()
    floor = _floor(shorten)
    if said.lower() in _NONE:
        if floor is not None:
            raise InvalidInputError("Without a budget there is nothing to shorten for.", field="shorten")
        return None
    if found := _SHARE.fullmatch(said):
        percent = float(found[1])
        if not 1 <= percent <= _MOST_PERCENT:
            raise InvalidInputError(f"{said!r}: 1 to {_MOST_PERCENT} % of a disk can be kept free.", field="budget")
        return Budget(kind=Kind.KEEP_FREE, percent=percent, shorten=floor)
    for form, kind in ((_ROOM, Kind.KEEP_FREE), (_SIZE, Kind.AT_MOST)):
        if found := form.fullmatch(said):
            size = parse_size(found[1])
            if size < _LEAST_BYTES:
                raise InvalidInputError(f"{said!r} is too little: at least {format_size(_LEAST_BYTES)}.", field="budget")
            return Budget(kind=kind, bytes=size, shorten=floor)
    raise InvalidInputError(f"{said!r} is no budget; {_FORMS}.", field="budget")


def _floor(shorten: Any) -> Age | None:  # noqa: ANN401  (JSON)
    if shorten is None or shorten is False:
        return None
    if shorten is True:
        return DEFAULT_FLOOR
    age = age_from_json(shorten, "shorten")
    if age is None or not _LEAST_FLOOR_MS <= age.ms <= MAX_AGE_MS:
        raise InvalidInputError("Say the age below which nothing is removed early, at least 24h: like 7d.", field="shorten")
    return age


def budget_to_json(budget: Budget | None) -> dict[str, Any]:
    """As it is stored."""
    if budget is None:
        return {}
    shorten = budget.shorten.text if budget.shorten else None
    return {"kind": str(budget.kind), "bytes": budget.bytes, "percent": budget.percent, "shorten": shorten}


def budget_from_json(data: Mapping[str, Any]) -> Budget | None:
    """A stored one."""
    if not data.get("kind"):
        return None
    shorten = _floor(data.get("shorten"))
    return Budget(kind=Kind(data["kind"]), bytes=int(data["bytes"]), percent=float(data["percent"]), shorten=shorten)
