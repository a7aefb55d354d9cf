"""The in-memory twin of an origin: same contract, no network. For tests and for programs that have the content already."""

import hashlib
import threading
from collections.abc import Mapping

from darner.core.errors import OriginError
from darner.core.progress import FetchedPiece
from darner.core.ranges import ByteRange
from darner.core.task import Headers
from darner.core.url import redacted
from darner.origin.body import BUFFER_BYTES, SpanSink
from darner.origin.errors import FetchStoppedError, OriginChangedError, status_error
from darner.origin.headers import Facts, expected_facts, stat_of
from darner.origin.ports import OnBytes, OnChunk, OriginRequest, OriginStat, ShouldStop


class MemoryOrigin:
    """Serves byte strings by URL; `put` changes them, `body_bytes` counts what was read."""

    def __init__(self, contents: Mapping[str, bytes] | None = None, *, supports_range: bool = True) -> None:
        """`supports_range` False makes it an origin that knows only whole contents."""
        self._lock = threading.Lock()
        self._contents = dict(contents or {})
        self._supports_range = supports_range
        self.body_bytes = 0

    def put(self, url: str, content: bytes) -> None:
        """Serve these bytes at the URL from now on."""
        with self._lock:
            self._contents[url] = content

    def close(self) -> None:
        """Nothing to close."""

    def stat(self, request: OriginRequest) -> OriginStat:
        """See Origin.stat."""
        return self._stat(request, self._content(request))

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
        content = self._content(request)
        self._stat(request, content)
        if span.end > len(content):
            raise status_error(request.url, 416, {})
        if not self._supports_range and span.length != len(content):
            raise OriginError(f"the origin ignores ranges: {redacted(request.url)}", status=200)
        sink = SpanSink(span, fd, on_bytes)
        for chunk in self._chunks(request, content[span.start : span.end], should_stop):
            sink.write(chunk)
        return sink.fetched()

    def fetch_stream(self, request: OriginRequest, *, on_chunk: OnChunk, should_stop: ShouldStop | None = None) -> OriginStat:
        """See Origin.fetch_stream."""
        content = self._content(request)
        stat = self._stat(request, content)
        for chunk in self._chunks(request, content, should_stop):
            on_chunk(chunk)
        return stat

    def _content(self, request: OriginRequest) -> bytes:
        with self._lock:
            content = self._contents.get(request.url)
        if content is None:
            raise status_error(request.url, 404, {})
        return content

    def _stat(self, request: OriginRequest, content: bytes) -> OriginStat:
        header = Headers({"ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'})
        ranges = self._supports_range and bool(content)
        stat = stat_of(header, request.url, length=len(content), supports_range=ranges)
        difference = expected_facts(request).difference(Facts(etag=stat.etag, total=len(content)))
        if difference:
            raise OriginChangedError(f"the content of {redacted(request.url)} changed at the origin: {difference}")
        return stat

    def _chunks(self, request: OriginRequest, content: bytes, should_stop: ShouldStop | None) -> list[memoryview]:
        if should_stop is not None and should_stop():
            raise FetchStoppedError(f"reading {redacted(request.url)} was stopped by the asker")
        with self._lock:
            self.body_bytes += len(content)
        view = memoryview(content)
        return [view[start : start + BUFFER_BYTES] for start in range(0, len(view), BUFFER_BYTES)]
