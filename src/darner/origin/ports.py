"""The port to an origin, and the values that go through it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from darner.core.progress import FetchedPiece
from darner.core.ranges import ByteRange
from darner.core.task import Headers

OnBytes = Callable[[int], None]
OnChunk = Callable[[memoryview], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginStat:
    """What an origin says of a content. `content_length` in bytes, None if it does not say.

    `header` reads like the one of a full answer, without those of the connection. `url` is the final one after redirects and may
    carry a signature: show it only redacted.
    """

    content_length: int | None
    supports_range: bool
    header: Headers = field(default_factory=Headers)
    url: str = ""
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRequest:
    """What to read. The `expected_*` are what an earlier answer said; content that differs from them has changed."""

    url: str
    header: Headers = field(default_factory=Headers)
    insecure: bool = False
    expected_length: int | None = None
    expected_etag: str | None = None
    expected_last_modified: str | None = None

    def expecting(self, stat: OriginStat) -> "OriginRequest":
        """The same request, holding the origin to what it said."""
        return replace(
            self,
            expected_length=stat.content_length,
            expected_etag=stat.etag,
            expected_last_modified=stat.last_modified,
        )


class Origin(Protocol):
    """Where bytes come from; blocking, safe to use from many threads.

    All raise OriginError (OriginChangedError, FetchStoppedError), ForbiddenAddressError, InvalidInputError.
    """

    def stat(self, request: OriginRequest) -> OriginStat:
        """Length, headers, and whether ranges can be asked for."""

    def fetch_range(
        self,
        request: OriginRequest,
        span: ByteRange,
        fd: int,
        *,
        on_bytes: OnBytes | None = None,
        should_stop: ShouldStop | None = None,
    ) -> FetchedPiece:
        """Read exactly `span` and write it to the file at the same offset. `on_bytes` gets each increment once."""

    def fetch_stream(self, request: OriginRequest, *, on_chunk: OnChunk, should_stop: ShouldStop | None = None) -> OriginStat:
        """Read all of it in one pass; a chunk is valid only during the call. The stat returned has the true length."""

    def close(self) -> None:
        """Close connections."""
