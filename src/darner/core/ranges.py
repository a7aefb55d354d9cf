"""Byte ranges: `{start, length}` inside, `bytes=a-b` in HTTP headers (first range only, rs:dragonfly-client-util/http)."""

import re
from dataclasses import dataclass

from darner.core.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """`length` bytes from `start`; both in bytes, `length` is at least 1 unless the upstream peer says otherwise."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after the range."""
        return self.start + self.length

    @property
    def last(self) -> int:
        """The last byte of the range, as HTTP counts."""
        return self.start + self.length - 1

    def header(self) -> str:
        """The value of a `Range` header."""
        return f"bytes={self.start}-{self.last}"

    def content_range(self, total: int) -> str:
        """The value of a `Content-Range` header."""
        return f"bytes {self.start}-{self.last}/{total}"


_NUMBER = re.compile(r"[0-9]{1,19}")


def parse_range_header(text: str, total: int) -> ByteRange:
    """The first range of a `Range` header against a content of `total` bytes. Raises InvalidInputError if it is not satisfiable."""
    unit, _, specs = text.partition("=")
    first, dash, last = specs.split(",")[0].strip().partition("-")
    valid = unit.strip() == "bytes" and dash and all(part == "" or _NUMBER.fullmatch(part) for part in (first, last))
    if not valid or not (first or last):
        message = f"range {text!r}: expected bytes=A-B, bytes=A- or bytes=-N"
        raise InvalidInputError(message, field="range")
    if first:
        start = int(first)
        stop = min(int(last) + 1, total) if last else total
    else:
        start, stop = max(total - int(last), 0), total
    if start >= total or stop <= start:
        message = f"range {text!r} lies outside the content of {total} bytes"
        raise InvalidInputError(message, field="range")
    return ByteRange(start=start, length=stop - start)


def parse_range_flag(text: str) -> tuple[int, int | None]:
    """`A-B` or `A-` of the command line as (first, last or None). Raises InvalidInputError."""
    first, dash, last = text.partition("-")
    if not dash or not first.isdigit() or (last and (not last.isdigit() or int(last) < int(first))):
        message = f"range {text!r}: expected A-B with A <= B, or A-"
        raise InvalidInputError(message, field="range")
    return int(first), int(last) if last else None
