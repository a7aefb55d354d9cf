"""Loads a task from its origin: only the peer that was sent there does. Ranges in parallel; else one pass, cut as it flows.

Content of unknown length is spooled first. Refuses to mix two versions: what is on disk of another ETag or length is dropped.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from darner.core.announce import BackToSourcePieceFailed, BackToSourcePieceFinished, BackToSourceStarted, PeerMessage
from darner.core.errors import DarnerError, OriginError
from darner.core.piece import Piece, TrafficType
from darner.core.progress import FetchedPiece
from darner.core.url import redacted
from darner.daemon.board import Facts
from darner.daemon.cutter import CutPiece, Cutter
from darner.daemon.work import Work, whole_digest
from darner.kit.log import get_logger
from darner.origin import OriginRequest, OriginStat
from darner.store import NewTask, PieceRecord, SpoolFile

_log = get_logger("daemon")


class SourceLoader:
    """One download from the origin. `say` reports to the scheduler, or nowhere."""

    def __init__(self, work: Work, say: Callable[[PeerMessage], None]) -> None:
        """Nothing is asked yet."""
        self._work = work
        self._say = say
        self._stop = threading.Event()
        download = work.download
        self._request = OriginRequest(
            url=download.url,
            header=download.request_header.without("range"),
            insecure=download.insecure_skip_verify,
        )

    async def stat(self) -> OriginStat:
        """Ask the origin for length and headers. Raises OriginError."""
        return await self._work.parts.move(partial(self._work.parts.origins.stat, self._request))

    async def run(self, stat: OriginStat | None = None) -> None:
        """Load what is missing; `stat` if the origin was asked already. Raises OriginError, StorageFullError."""
        self._say(BackToSourceStarted())
        try:
            known = stat or await self.stat()
            self._request = self._request.expecting(known)
            await self._load(known)
        except OriginError as error:
            self._say(BackToSourcePieceFailed(message=error.message, status_code=error.status))
            raise
        finally:
            self._stop.set()

    async def _load(self, stat: OriginStat) -> None:
        work = self._work
        if stat.content_length is None:
            await self._spool()
            return
        await self._begin(stat, stat.content_length)
        facts = work.known_facts()
        work.board.settle()
        if stat.supports_range or facts.count <= 1:
            await self._ranges()
        else:
            await self._one_pass(facts)

    async def _begin(self, stat: OriginStat, content_length: int) -> None:
        """Fix the facts by what the origin says now; keep what is on disk if it is of this version."""
        work, held = self._work, self._work.board.facts
        if held is not None and held.content_length == content_length:
            old = held.header.find("etag")
            if old is None or stat.etag is None or old == stat.etag:
                return
        if held is not None:
            _log.info("the origin has another content than the disk, which is dropped", task=work.ids.task_id)
            await work.forget()
        piece_length = work.piece_length_for(content_length)
        await work.begin(Facts(content_length=content_length, piece_length=piece_length, header=stat.header))

    async def _ranges(self) -> None:
        numbers = deque(sorted(self._work.missing()))

        async def worker() -> None:
            while numbers:
                await self._piece(numbers.popleft())

        workers = [asyncio.create_task(worker()) for _ in range(self._work.parts.config.download.concurrent_piece_count)]
        try:
            await asyncio.gather(*workers)
        finally:
            self._stop.set()
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _piece(self, number: int) -> None:
        work = self._work
        span = work.known_facts().span(number)
        started = work.parts.clock.monotonic()
        fetch = partial(
            work.parts.origins.fetch_range,
            self._request,
            span,
            work.fd,
            on_bytes=work.parts.pace.from_origin,
            should_stop=self._stop.is_set,
        )
        fetched = await work.parts.move(fetch, self._stop)
        await self._keep(number, fetched, work.parts.clock.monotonic() - started)

    async def _keep(self, number: int, fetched: FetchedPiece, cost_s: float) -> None:
        work = self._work
        record = PieceRecord(
            number=number,
            offset=work.known_facts().span(number).start,
            length=fetched.length,
            crc32=fetched.crc32,
            blake3=fetched.blake3,
            traffic_type=TrafficType.BACK_TO_SOURCE,
            cost_s=cost_s,
            created_at=work.parts.clock.now(),
        )
        await work.keep(record)
        self._report(record)

    def _report(self, record: PieceRecord) -> None:
        """Vouch for a piece: the digest reported is BLAKE3, which cannot be forged."""
        piece = Piece(
            number=record.number,
            offset=record.offset,
            length=record.length,
            digest=f"blake3:{record.blake3.hex()}",
            traffic_type=TrafficType.BACK_TO_SOURCE,
            cost_s=record.cost_s,
            created_at=record.created_at,
        )
        self._say(BackToSourcePieceFinished(piece=piece))

    async def _one_pass(self, facts: Facts) -> None:
        """An origin of known length without ranges: pieces are cut from the stream and shown as they fill."""
        work, loop = self._work, asyncio.get_running_loop()
        cut: asyncio.Queue[CutPiece | None] = asyncio.Queue()
        cutter = Cutter(work.fd, facts, lambda piece: loop.call_soon_threadsafe(cut.put_nowait, piece))
        read = partial(
            work.parts.origins.fetch_stream, self._request, on_chunk=self._paced(cutter.write), should_stop=self._stop.is_set
        )
        running = asyncio.ensure_future(work.parts.move(read, self._stop))
        running.add_done_callback(lambda _: cut.put_nowait(None))
        try:
            while (piece := await cut.get()) is not None:
                await self._keep(piece.number, piece.fetched, piece.cost_s)
        finally:
            self._stop.set()
            await asyncio.gather(running, return_exceptions=True)
        running.result()
        if work.missing():
            raise OriginError(
                f"{redacted(work.download.url)} ended before its {facts.content_length} bytes were sent", retryable=True
            )

    async def _spool(self) -> None:
        """An origin that does not say how long the content is: read it to the end, then it is a task."""
        work = self._work
        started = work.parts.clock.monotonic()
        if work.board.facts is not None:
            await work.forget()
        owned = ExitStack()  # from the spool's first instant: we may be cancelled while the thread makes it
        try:
            spool = await work.parts.on_disk(lambda: owned.enter_context(work.parts.store.spool(work.ids.task_id)))
            final = await work.parts.move(partial(self._fill, spool), self._stop)
            cost_s = work.parts.clock.monotonic() - started
            await work.parts.on_whole_file(partial(self._adopt, spool, final, cost_s, work.piece_length_for(spool.size)))
        finally:
            await work.parts.on_disk(owned.close)
        await work.resume()
        work.board.settle()
        for number in sorted(work.resumed):
            self._report(work.resumed[number])

    def _paced(self, write: Callable[[memoryview], None]) -> Callable[[memoryview], None]:
        def take(chunk: memoryview) -> None:
            self._work.parts.pace.from_origin(len(chunk))
            write(chunk)

        return take

    def _fill(self, spool: SpoolFile) -> OriginStat:
        return self._work.parts.origins.fetch_stream(
            self._request, on_chunk=self._paced(spool.write), should_stop=self._stop.is_set
        )

    def _adopt(self, spool: SpoolFile, final: OriginStat, cost_s: float, piece_length: int) -> None:
        work = self._work
        if final.content_length not in {None, spool.size}:
            raise DarnerError(f"{spool.size} bytes were spooled of {final.content_length}")
        new = NewTask(
            id=work.ids.task_id,
            url=work.download.url,
            content_length=spool.size,
            piece_length=piece_length,
            response_header=final.header,
            digest=whole_digest(work.download),
        )
        work.parts.store.adopt_spool(spool, new, cost_s=cost_s)
