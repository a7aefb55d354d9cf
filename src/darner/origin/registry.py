"""Which origin serves which scheme."""

from collections.abc import Mapping

from darner.core.errors import InvalidInputError
from darner.core.progress import FetchedPiece
from darner.core.ranges import ByteRange
from darner.core.url import parse_url, redacted
from darner.origin.config import OriginConfig
from darner.origin.http import HttpOrigin
from darner.origin.ports import OnBytes, OnChunk, Origin, OriginRequest, OriginStat, ShouldStop


class OriginRegistry:
    """An Origin that hands each request to the one for its scheme."""

    def __init__(self, origins: Mapping[str, Origin]) -> None:
        """`origins` by scheme, without the colon."""
        self._origins = dict(origins)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The known schemes."""
        return tuple(sorted(self._origins))

    def find(self, url: str) -> Origin:
        """The origin for this URL. Raises InvalidInputError naming the known schemes."""
        scheme = parse_url(url).protocol.rstrip(":")
        origin = self._origins.get(scheme)
        if origin is None:
            message = f"unsupported scheme {scheme!r} in {redacted(url)}; expected one of {', '.join(self.schemes)}"
            raise InvalidInputError(message, field="url")
        return origin

    def stat(self, request: OriginRequest) -> OriginStat:
        """See Origin.stat."""
        return self.find(request.url).stat(request)

    def fetch_range(
        self,
        request: OriginRequest,
        span: ByteRange,
        fd: int,
        *,
        on_bytes: OnBytes | None = None,
        should_stop: ShouldStop | None = None,
    ) -> FetchedPiece:
        """See Origin.fetch_range."""
        return self.find(request.url).fetch_range(request, span, fd, on_bytes=on_bytes, should_stop=should_stop)

    def fetch_stream(self, request: OriginRequest, *, on_chunk: OnChunk, should_stop: ShouldStop | None = None) -> OriginStat:
        """See Origin.fetch_stream."""
        return self.find(request.url).fetch_stream(request, on_chunk=on_chunk, should_stop=should_stop)

    def close(self) -> None:
        """Close every origin once."""
        for origin in {id(each): each for each in self._origins.values()}.values():
            origin.close()


def http_origins(config: OriginConfig) -> OriginRegistry:
    """The registry for http and https, sharing one pool."""
    origin = HttpOrigin(config)
    return OriginRegistry({"http": origin, "https": origin})
