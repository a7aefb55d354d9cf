"""How commands print: JSON for programs, tables and bars for people. Progress goes to stderr, and only to a terminal."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from darner.kit.units import format_duration

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What terminals that know few characters get instead.
_PLAIN = str.maketrans({"→": "->", "…": "...", "–": "-"})


def print_json(value: object) -> None:
    """One JSON document on one line."""
    print(json.dumps(value, ensure_ascii=not is_unicode(sys.stdout)), flush=True)  # noqa: T201


def say(text: str = "") -> None:
    """One line of the answer."""
    print(_shown(text, sys.stdout), flush=True)  # noqa: T201


def note(text: str, *, end: str = "\n") -> None:
    """One line beside the answer, on stderr."""
    print(_shown(text, sys.stderr), file=sys.stderr, flush=True, end=end)  # noqa: T201


def is_unicode(stream: TextIO) -> bool:
    """Whether it takes every character."""
    return "utf" in (stream.encoding or "utf-8").lower()


def _shown(text: str, stream: TextIO) -> str:
    """The text as the stream can take it: a line with a question mark in it is better than none.

    What others typed (reasons, labels, URLs) must not steer this terminal.
    """
    text = _CONTROL.sub("?", text)
    if is_unicode(stream):
        return text
    encoding = stream.encoding or "ascii"
    return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their content; the last one may run on. Plain text, so that it pipes well."""
    texts = [[str(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headings), *texts]) for column in range(len(headings))]
    for line in [list(headings), *texts]:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def moment(value: object) -> str:
    """A time for people, from RFC 3339 or unix seconds: `2026-01-01 00:00:00Z`; `-` for none."""
    if value in (None, "", 0):
        return "-"
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return str(value).replace("T", " ").split(".")[0].removesuffix("Z") + "Z"


def ago(value: object, now: float) -> str:
    """How long ago an RFC 3339 time was, or how far it lies ahead."""
    if not isinstance(value, str) or not value:
        return "-"
    seconds = now - datetime.fromisoformat(value).timestamp()
    return f"{format_duration(seconds)} ago" if seconds >= 0 else f"in {format_duration(-seconds)}"


def get_path(value: Mapping[str, Any], *keys: str, default: object = "-") -> Any:  # noqa: ANN401
    """A nested value, or the default where something on the way is missing."""
    found: Any = value
    for key in keys:
        if not isinstance(found, Mapping) or found.get(key) is None:
            return default
        found = found[key]
    return found
