"""What is sent to an origin and what its answers say: plain functions over headers, no I/O."""

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from darner import __version__
from darner.core.task import Headers
from darner.origin.config import OriginConfig
from darner.origin.errors import end_to_end
from darner.origin.ports import OriginRequest, OriginStat

USER_AGENT = f"darner/{__version__}"
SKIP_VERIFY = "x-darner-insecure-skip-verify"
_OURS = ("x-darner-", "x-dragonfly-")
# Conditions would turn the content into a 304, the others are ours to set or belong to one connection only
_REPLACED = frozenset(
    {
        "host", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "accept-encoding",
        "content-length", "content-type", "expect", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRange:
    """First and last byte, and the total if the origin says it."""

    first: int
    last: int
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What identifies one state of a content: two answers with different facts belong to different contents."""

    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    def difference(self, other: "Facts") -> str | None:
        """What differs, in words, or None. A tag that both have decides over the date."""
        if self.total is not None and other.total is not None and self.total != other.total:
            return f"its length went from {self.total} to {other.total} bytes"
        if self.etag and other.etag:
            same = self.etag.removeprefix("W/") == other.etag.removeprefix("W/")
            return None if same else f"its ETag went from {self.etag} to {other.etag}"
        if self.last_modified and other.last_modified and self.last_modified != other.last_modified:
            return f"its Last-Modified went from {self.last_modified} to {other.last_modified}"
        return None

    def joined(self, other: "Facts") -> "Facts":
        """Ours, completed by the other's."""
        return Facts(
            etag=self.etag or other.etag,
            last_modified=self.last_modified or other.last_modified,
            total=other.total if self.total is None else self.total,
        )


def facts_of(header: Headers, total: int | None) -> Facts:
    """The facts that an answer states."""
    return Facts(etag=header.find("etag"), last_modified=header.find("last-modified"), total=total)


def expected_facts(request: OriginRequest) -> Facts:
    """The facts that the asker knows already."""
    return Facts(etag=request.expected_etag, last_modified=request.expected_last_modified, total=request.expected_length)


def is_insecure(request: OriginRequest, config: OriginConfig) -> bool:
    """Whether the certificate check is skipped: by the request, its X-Darner header, or the configuration."""
    marked = (request.header.find(SKIP_VERIFY) or "").strip().lower() == "true"
    return request.insecure or marked or config.insecure_skip_verify


def outgoing(header: Headers, config: OriginConfig) -> Headers:
    """The headers to send, before Range: Darner's own and those of the connection are stripped, configured ones are added."""
    kept = Headers(
        {name: value for name, value in header.items() if name.lower() not in _REPLACED and not name.lower().startswith(_OURS)}
    )
    for name, value in {**config.request_header, "User-Agent": USER_AGENT, "Accept": "*/*"}.items():
        if kept.find(name) is None:
            kept[name] = value
    return Headers({**kept, "Accept-Encoding": "identity"})


def if_range(facts: Facts) -> dict[str, str]:
    """If-Range, for a strong tag only (RFC 9110 §13.1.5)."""
    return {"If-Range": facts.etag} if facts.etag and facts.etag.startswith('"') else {}


def parse_content_range(header: Headers) -> ContentRange | None:
    """The Content-Range of an answer, or None if there is none that can be read."""
    found = _CONTENT_RANGE.fullmatch((header.find("content-range") or "").strip())
    if not found:
        return None
    total = None if found[3] == "*" else int(found[3])
    return ContentRange(first=int(found[1]), last=int(found[2]), total=total)


def stat_of(header: Headers, url: str, *, length: int | None, supports_range: bool) -> OriginStat:
    """The stat that an answer gives; its headers are made to read like those of a full answer."""
    shown = end_to_end(header).without("content-range", "content-length")
    if length is not None:
        shown["Content-Length"] = str(length)
    return OriginStat(
        content_length=length,
        supports_range=supports_range,
        header=shown,
        url=url,
        etag=header.find("etag"),
        last_modified=header.find("last-modified"),
    )


def retry_after_s(header: Headers, now: float) -> float:
    """The wait that Retry-After asks for in seconds (number or date, RFC 9110 §10.2.3); 0 if there is none."""
    text = (header.find("retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
