"""The origin behind http and https: one GET per stat or range, pooled connections, retries, resuming inside a range.

Stat is a GET with `Range: bytes=0-0`, because signed URLs are bound to the method (daemon.md §6.1). The place that redirects
lead to is kept for a short time and asked directly; a refusal there (an expired signature) makes us ask the original URL again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from darner.core.errors import OriginError
from darner.core.progress import FetchedPiece
from darner.core.ranges import ByteRange
from darner.core.task import Headers
from darner.core.url import redacted
from darner.kit.log import get_logger
from darner.kit.retry import backoff
from darner.net.errors import NetError, StoppedError
from darner.net.http import HttpPool, Pace, PoolSettings, Reply
from darner.origin.body import SpanSink, buffer, has_more, read_span
from darner.origin.config import OriginConfig
from darner.origin.errors import FetchStoppedError, OriginChangedError, status_error
from darner.origin.headers import (
    Facts,
    expected_facts,
    facts_of,
    if_range,
    is_insecure,
    outgoing,
    parse_content_range,
    retry_after_s,
    stat_of,
)
from darner.origin.hops import Hop, HopCache, hop_key
from darner.origin.ports import OnBytes, OnChunk, OriginRequest, OriginStat, ShouldStop

OK, PARTIAL, RANGE_NOT_SATISFIABLE, TOO_MANY = 200, 206, 416, 429
CLIENT_ERRORS = range(400, 500)
FIRST_BYTE = {"Range": "bytes=0-0"}
PAUSE_S = 0.1

T = TypeVar("T")
_log = get_logger("origin")


class HttpOrigin:
    """Implements Origin for http and https. Safe to use from many threads."""

    def __init__(self, config: OriginConfig) -> None:
        """Raises InvalidInputError for a CA file or proxy that cannot be used."""
        self._config = config
        self._hops = HopCache(config.redirect_cache_s)
        self._pool = HttpPool(
            PoolSettings(
                policy=config.policy,
                ca_file=config.ca_file,
                connect_timeout_s=config.connect_timeout_s,
                pace=Pace(read_timeout_s=config.read_timeout_s, min_bytes_per_s=config.min_bytes_per_s),
                max_idle_per_origin=config.max_idle_per_origin,
                proxies=config.proxies,
            )
        )

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    def stat(self, request: OriginRequest) -> OriginStat:
        """See Origin.stat."""
        return self._retrying(request.url, lambda: self._stat_once(request), None)

    def fetch_range(
        self,
        request: OriginRequest,
        span: ByteRange,
        fd: int,
        *,
        on_bytes: OnBytes | None = None,
        should_stop: ShouldStop | None = None,
    ) -> FetchedPiece:
        """See Origin.fetch_range. A retry goes on where the last attempt broke off."""
        sink = SpanSink(span, fd, on_bytes)
        reading = _RangeReading(request.url, sink, expected_facts(request))

        def attempt() -> FetchedPiece:
            if sink.rest.length:
                extra = {"Range": sink.rest.header(), **if_range(reading.facts)}
                with self._open(request, extra, should_stop) as reply:
                    reading.accept(reply)
                    reading.read(reply, deadline=time.monotonic() + self._config.range_timeout_s)
            return sink.fetched()

        return self._retrying(request.url, attempt, should_stop)

    def fetch_stream(self, request: OriginRequest, *, on_chunk: OnChunk, should_stop: ShouldStop | None = None) -> OriginStat:
        """See Origin.fetch_stream. Retried only as long as no chunk has been handed out."""
        handed_out = 0

        def attempt() -> OriginStat:
            nonlocal handed_out
            with self._open(request, {}, should_stop) as reply:
                if reply.status != OK:
                    raise status_error(request.url, reply.status, reply.header)
                _refuse_change(request.url, expected_facts(request), facts_of(reply.header, reply.length))
                view = buffer()
                while count := reply.readinto(view):
                    handed_out += count
                    on_chunk(view[:count])
                _refuse_change(request.url, Facts(total=request.expected_length), Facts(total=handed_out))
                return stat_of(reply.header, reply.url, length=handed_out, supports_range=False)

        return self._retrying(request.url, attempt, should_stop, may_retry=lambda: not handed_out)

    def _stat_once(self, request: OriginRequest) -> OriginStat:
        with self._open(request, FIRST_BYTE, None) as reply:
            if reply.status == PARTIAL:
                found = parse_content_range(reply.header)
                if found is None or found.first != 0 or found.last != 0:
                    raise _wrong_range(request.url, reply, ByteRange(start=0, length=1))
                stat = stat_of(reply.header, reply.url, length=found.total, supports_range=True)
            elif reply.status == RANGE_NOT_SATISFIABLE:
                stat = None
            else:
                stat = self._stat_of_full(request, reply)
        if stat is None:
            # an empty file has no byte 0
            with self._open(request, {}, None) as reply:
                stat = self._stat_of_full(request, reply)
        _refuse_change(request.url, expected_facts(request), facts_of(stat.header, stat.content_length))
        return stat

    def _stat_of_full(self, request: OriginRequest, reply: Reply) -> OriginStat:
        if reply.status != OK:
            raise status_error(request.url, reply.status, reply.header)
        return stat_of(reply.header, reply.url, length=reply.length, supports_range=False)

    def _open(self, request: OriginRequest, extra: dict[str, str], should_stop: ShouldStop | None) -> Reply:
        """Ask the place where redirects led last time, or the original URL."""
        insecure = is_insecure(request, self._config)
        header = outgoing(request.header, self._config)
        key = hop_key(request.url, header, insecure)
        hop = self._hops.get(key, time.monotonic())
        if hop is not None:
            try:
                reply = self._pool.get(hop.url, Headers({**hop.header, **extra}), insecure=insecure, should_stop=should_stop)
            except NetError:
                self._hops.forget(key)
                raise
            if reply.status not in CLIENT_ERRORS or reply.status in {RANGE_NOT_SATISFIABLE, TOO_MANY}:
                return reply
            reply.close()
            self._hops.forget(key)
        reply = self._pool.get(request.url, Headers({**header, **extra}), insecure=insecure, should_stop=should_stop)
        if reply.redirected and reply.status in {OK, PARTIAL}:
            self._hops.put(key, Hop(url=reply.url, header=reply.hop_header.without(*extra)), time.monotonic())
        return reply

    def _retrying(
        self, url: str, attempt: Callable[[], T], should_stop: ShouldStop | None, *, may_retry: Callable[[], bool] = lambda: True
    ) -> T:
        waits = backoff(first_s=self._config.retry_first_s, cap_s=self._config.retry_cap_s)
        for left in range(self._config.max_retries, -1, -1):
            try:
                with _origin_errors(url):
                    return attempt()
            except OriginError as error:
                if not (error.retryable and left and may_retry()):
                    raise
                asked = min(retry_after_s(Headers(error.header), time.time()), self._config.retry_after_cap_s)
                wait = max(next(waits), asked)
                _log.info(
                    "an attempt at the origin failed, trying again", url=redacted(url), reason=error.message, wait_s=round(wait, 2)
                )
                _pause(wait, url, should_stop)
        raise AssertionError  # the last attempt returns or raises


class _RangeReading:
    """One range over all its attempts: what its answers must agree on, and the sink that they fill."""

    def __init__(self, url: str, sink: SpanSink, facts: Facts) -> None:
        self._url, self._sink = url, sink
        self.facts = facts

    def accept(self, reply: Reply) -> None:
        """Refuse an answer that is not exactly the rest of the range."""
        rest = self._sink.rest
        if reply.status == PARTIAL:
            found = parse_content_range(reply.header)
            if found is None or (found.first, found.last) != (rest.start, rest.last):
                raise _wrong_range(self._url, reply, rest)
            facts = facts_of(reply.header, found.total)
        elif reply.status == OK:
            facts = facts_of(reply.header, reply.length)
        elif reply.status == RANGE_NOT_SATISFIABLE and self.facts.total is not None and rest.end <= self.facts.total:
            raise OriginChangedError(_changed(self._url, f"it has no bytes {rest.start}-{rest.last} any more"), status=reply.status)
        else:
            raise status_error(self._url, reply.status, reply.header)
        _refuse_change(self._url, self.facts, facts)
        if reply.status == OK and (rest.start or reply.length not in {None, rest.length}):
            message = (
                f"the origin ignores ranges: it answered 200 instead of bytes {rest.start}-{rest.last} of {redacted(self._url)}"
            )
            raise OriginError(message, status=reply.status)
        if reply.length not in {None, rest.length}:
            message = f"the origin announced {reply.length} bytes instead of {rest.length} for a range of {redacted(self._url)}"
            raise OriginError(message, status=reply.status)
        self.facts = self.facts.joined(facts)

    def read(self, reply: Reply, *, deadline: float) -> None:
        """Fill the sink from the body, and make sure that it ends there."""
        read_span(reply, self._sink, deadline=deadline)
        if reply.length is None and has_more(reply):
            raise OriginError(f"the origin sent more bytes than asked for of {redacted(self._url)}", status=reply.status)


def _wrong_range(url: str, reply: Reply, wanted: ByteRange) -> OriginError:
    said = reply.header.find("content-range") or "no Content-Range"
    message = f"the origin answered with {said} instead of bytes {wanted.start}-{wanted.last} for {redacted(url)}"
    return OriginError(message, status=reply.status)


def _changed(url: str, what: str) -> str:
    return f"the content of {redacted(url)} changed at the origin while it was being read: {what}; start the download again"


def _refuse_change(url: str, before: Facts, after: Facts) -> None:
    difference = before.difference(after)
    if difference:
        raise OriginChangedError(_changed(url, difference))


@contextmanager
def _origin_errors(url: str) -> Iterator[None]:
    """The border where the network's errors become the origin's."""
    try:
        yield
    except StoppedError as error:
        raise FetchStoppedError(f"reading {redacted(url)} was stopped by the asker") from error
    except NetError as error:
        raise OriginError(f"cannot read {redacted(url)}: {error.message}", retryable=error.retryable) from error


def _pause(seconds: float, url: str, should_stop: ShouldStop | None) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if should_stop is not None and should_stop():
            raise FetchStoppedError(f"reading {redacted(url)} was stopped by the asker")
        time.sleep(min(left, PAUSE_S))
