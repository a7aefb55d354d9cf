"""Serves one blob through the swarm, while it loads: pieces leave in order, the last one only after the whole blob was verified.

A failure after the first byte breaks the connection, so that no client takes a part, or wrong bytes, for the blob.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from darner.core import ids
from darner.core.errors import DarnerError
from darner.core.progress import DownloadEvent, DownloadStarted
from darner.core.ranges import ByteRange
from darner.core.task import Download
from darner.daemon.engine import DaemonEngine
from darner.kit.log import get_logger

CHUNK_BYTES = 512 * 1024
_log = get_logger("daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRequest:
    """A blob as a client asked for it. `wanted` None: all of it."""

    download: Download
    wanted: ByteRange | None
    content_type: str
    digest: str


class BlobServer:
    """Turns progress of a download into an HTTP response."""

    def __init__(self, engine: DaemonEngine) -> None:
        """The engine loads."""
        self._engine = engine

    async def serve(self, request: web.Request, blob: BlobRequest) -> web.StreamResponse:
        """The response. Raises DarnerError before its first byte; breaks the connection after it."""
        task_id = ids.task_id(blob.download)
        async with aclosing(self._engine.download(blob.download, ordered=True)) as events:
            first = await anext(events)
            if not isinstance(first.what, DownloadStarted):
                raise DarnerError("a download began without saying how long it is")
            response = _begin(task_id, blob, first.what)
            await response.prepare(request)
            try:
                await self._stream(response, task_id, blob, first.what, events)
            except DarnerError as error:
                _log.warning("a blob broke off", task=task_id, reason=error.message)
                if request.transport is not None:
                    request.transport.abort()
                return response
        await response.write_eof()
        return response

    async def _stream(
        self,
        response: web.StreamResponse,
        task_id: str,
        blob: BlobRequest,
        started: DownloadStarted,
        events: AsyncGenerator[DownloadEvent, None],
    ) -> None:
        """Write pieces in the order of the content, however they arrive."""
        wanted = blob.wanted or ByteRange(start=0, length=started.content_length)
        arrived: dict[int, ByteRange] = {}
        at = wanted.start
        file = None
        try:
            async for event in events:
                if isinstance(event.what, DownloadStarted):
                    continue
                piece = event.what.piece
                arrived[piece.offset] = ByteRange(start=piece.offset, length=piece.length)
                file = file or self._engine.parts.store.open_file(task_id)
                while (span := _span_at(arrived, at)) is not None and at < wanted.end:
                    stop = min(span.end, wanted.end)
                    await self._send(response, file.fd, at, stop)
                    at = stop
        finally:
            if file is not None:
                file.close()
        if at < wanted.end:
            raise DarnerError(f"the download ended {wanted.end - at} bytes early")

    async def _send(self, response: web.StreamResponse, fd: int, at: int, stop: int) -> None:
        while at < stop:
            data = await self._engine.parts.on_disk(partial(os.pread, fd, min(CHUNK_BYTES, stop - at), at))
            if not data:
                raise DarnerError("the stored file is shorter than its pieces")
            await response.write(data)
            at += len(data)


def _span_at(arrived: dict[int, ByteRange], at: int) -> ByteRange | None:
    """The piece that byte `at` lies in, forgetting those before it."""
    for offset, span in arrived.items():
        if span.start <= at < span.end:
            return arrived.pop(offset) if at + 1 == span.end else span
    return None


def _begin(task_id: str, blob: BlobRequest, started: DownloadStarted) -> web.StreamResponse:
    header = {
        "Content-Type": blob.content_type,
        "Docker-Content-Digest": blob.digest,
        "Accept-Ranges": "bytes",
        "X-Dragonfly-Task-ID": task_id,
    }
    if started.is_finished:
        header["X-Dragonfly-Task-Download-Finished"] = "true"
    if blob.wanted is not None:
        header["Content-Range"] = blob.wanted.content_range(started.content_length)
    response = web.StreamResponse(status=206 if blob.wanted else 200, headers=header)
    response.content_length = blob.wanted.length if blob.wanted else started.content_length
    return response
