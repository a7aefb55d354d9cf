"""The daemon's engine: which runs there are, who waits for them, what is asked about tasks. Faces call it; it knows no protocol.

One run per task, shared by all askers; the last one to leave stops it after a short grace, unless a scheduler triggered it.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Coroutine
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from darner.core import ids
from darner.core.digest import Digest
from darner.core.errors import (
    ConflictError,
    DarnerError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from darner.core.host import Host
from darner.core.piece import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH
from darner.core.progress import DownloadEvent, PieceOffer
from darner.core.ranges import ByteRange
from darner.core.task import Download, LocalTask, TaskInfo
from darner.core.url import redacted
from darner.daemon import offers, output, wholes
from darner.daemon.asker import Asker
from darner.daemon.loading import Parts
from darner.daemon.retell import Retell
from darner.daemon.run import Run
from darner.daemon.work import wanted_range, whole_digest
from darner.kit.log import get_logger

MAX_TASK_ID = 128
MAX_RUNS_PER_ASK = 4
VERIFIED_KEPT = 4096
_log = get_logger("daemon")


class DaemonEngine:
    """Everything a face may ask for."""

    def __init__(self, parts: Parts) -> None:
        """Nothing runs yet."""
        self.parts = parts
        self.retell = Retell(parts)
        self._runs: dict[str, Run] = {}
        self._askers: dict[Run, int] = {}
        self._graces: dict[Run, asyncio.TimerHandle] = {}
        self._verified: dict[tuple[str, float, Digest], None] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def download(
        self, download: Download, *, triggered: bool = False, ordered: bool = False
    ) -> AsyncGenerator[DownloadEvent, None]:
        """Have the content here; yields progress, its end is success. `triggered`: asked by a scheduler, no output is made.

        Raises DarnerError: what the origin said, a wrong digest, no room. Closing the generator leaves the download.
        """
        self.parts.meters.downloads.inc()
        if triggered:
            download = replace(download, output_path=None, overwrite=False, force_hard_link=False)
        output.check_output(download)
        _check(download)
        task_id = ids.task_id(download)
        asker = Asker(download, partial(self._verify, download))
        for _ in range(MAX_RUNS_PER_ASK):
            run, mine = self._join(task_id, download, triggered=triggered, ordered=ordered)
            try:
                async with aclosing(asker.follow(run)) as events:
                    async for event in events:
                        yield event
            except DarnerError as error:
                if mine or error is not run.board.error or not _asks_otherwise(run.download, download):
                    raise
            finally:
                self._leave(run)
            if asker.satisfied:
                await self._settle(run, download)
                return
        raise UnavailableError(f"the download of {redacted(download.url)} was overtaken by others again and again; try once more")

    async def stat_local_task(self, task_id: str) -> LocalTask:
        """What is here of a task: finished only if every byte is as it was checked. Raises NotFoundError."""
        parts, store = self.parts, self.parts.store
        record = await parts.on_disk(partial(store.task, _checked(task_id)))
        if record is not None and await parts.on_disk(partial(store.is_changed, record)):
            record = await parts.on_whole_file(partial(store.checked_task, task_id))
        if record is None:
            raise NotFoundError(f"task {task_id} is not here")
        return record.to_local_task()

    def list_local_tasks(self) -> list[LocalTask]:
        """Everything that is here."""
        return [record.to_local_task() for record in self.parts.store.tasks()]

    async def stat_task(self, task_id: str) -> TaskInfo:
        """What the task's scheduler knows. Raises NotFoundError, UnavailableError."""
        self.parts.meters.stats.inc()
        failure: DarnerError = UnavailableError("no scheduler answers; check their addresses and health")
        for address in self.parts.directory.in_order(_checked(task_id)):
            try:
                return await self.parts.directory.client(address).stat_task(self.parts.host().id, task_id)
            except NotFoundError:
                raise
            except DarnerError as error:
                failure = error
        raise failure

    async def delete_local_task(self, task_id: str) -> None:
        """Stop its download and remove what is here. Raises NotFoundError."""
        self.parts.meters.deletes.inc()
        run = self._runs.pop(_checked(task_id), None)
        if run is not None:
            await run.cancel()
        if not await self.parts.on_disk(partial(self.parts.store.delete, task_id)) and run is None:
            raise NotFoundError(f"task {task_id} is not here")

    async def delete_task(self, task_id: str) -> None:
        """Remove what is here and tell the scheduler. Raises NotFoundError."""
        await self.delete_local_task(task_id)
        await self.retell.gone(task_id)

    async def delete_host(self) -> None:
        """Tell every scheduler that this host leaves."""
        await self.parts.directory.leave()

    def sync_pieces(self, task_id: str, numbers: Collection[int]) -> AsyncGenerator[PieceOffer, None]:
        """Offers for a child."""
        return offers.sync_pieces(self.parts, self._runs, _checked(task_id), numbers)

    def sync_host(self) -> AsyncGenerator[Host, None]:
        """The numbers of this host, for a child."""
        return offers.sync_host(self.parts, self.parts.host)

    async def meet(self, address: str) -> None:
        """A scheduler is new, or new again: tell it what is here, while other things go on."""
        self._spawn(self.retell.all_held(address))

    def evicted(self, task_id: str) -> None:
        """The store has made room: the task's scheduler must not send children here for it any more."""
        self._spawn(self.retell.gone(task_id))

    @property
    def running(self) -> int:
        """How many downloads run."""
        return len(self._runs)

    async def close(self) -> None:
        """Stop every run and wait until their files are closed."""
        runs = list(self._runs.values())
        await asyncio.gather(*(run.cancel() for run in runs))
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _join(self, task_id: str, download: Download, *, triggered: bool, ordered: bool) -> tuple[Run, bool]:
        """The run of the task and whether it was begun for this asker."""
        run = self._runs.get(task_id)
        mine = run is None or run.board.ended
        if run is None or mine:
            run = Run(self.parts, task_id, download, triggered=triggered, ordered=ordered)
            self._runs[task_id] = run
            begun = run
            run.start().add_done_callback(lambda _task: self._ended(begun))
        run.triggered = run.triggered or triggered
        self._askers[run] = self._askers.get(run, 0) + 1
        grace = self._graces.pop(run, None)
        if grace is not None:
            grace.cancel()
        return run, mine

    def _leave(self, run: Run) -> None:
        left = self._askers.get(run, 0) - 1
        if left > 0:
            self._askers[run] = left
            return
        self._askers.pop(run, None)
        if not run.board.ended and not run.triggered:
            grace_s = self.parts.config.download.last_asker_grace
            self._graces[run] = asyncio.get_running_loop().call_later(grace_s, self._abandon, run)

    def _abandon(self, run: Run) -> None:
        self._graces.pop(run, None)
        if run not in self._askers and not run.board.ended and not run.triggered:
            _log.info("the last asker has left; the download is stopped", task=run.ids.task_id)
            self._spawn(run.cancel())

    async def _prefetch(self, download: Download) -> None:
        """Load the rest of a content of which a part was asked for."""
        whole = replace(download, range=None, prefetch=False, is_prefetch=True, need_piece_content=False)
        whole = replace(whole, request_header=whole.request_header.without("range"))
        try:
            async with aclosing(self.download(whole, triggered=True)) as events:
                async for _ in events:
                    pass
            await self.parts.on_disk(partial(self.parts.store.set_prefetched, ids.task_id(whole)))
        except DarnerError as error:
            _log.info("the rest of a content was not loaded", url=redacted(download.url), reason=error.message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _ended(self, run: Run) -> None:
        if self._runs.get(run.ids.task_id) is run:
            del self._runs[run.ids.task_id]
        grace = self._graces.pop(run, None)
        if grace is not None:
            grace.cancel()

    async def _settle(self, run: Run, download: Download) -> None:
        """What this asker wants beyond the bytes: the output made, the scheduler reminded."""
        facts = run.work.board.facts
        wanted = wanted_range(download, facts.content_length) if facts else None
        if wanted is not None and download.prefetch:
            self._spawn(self._prefetch(download))
        if download.output_path:
            await self._put_out(run.ids.task_id, download, wanted)
        if run.from_disk and run.triggered and run.board.holds(None):
            await self.retell.held(run.ids.task_id, download)

    async def _put_out(self, task_id: str, download: Download, wanted: ByteRange | None) -> None:
        try:
            await self.parts.on_whole_file(partial(output.put, self.parts.store, task_id, download, wanted))
        except OSError as error:
            raise ConflictError(f"cannot write {download.output_path}: {error.strerror}", field="output_path") from error

    async def _verify(self, download: Download, run: Run) -> None:
        """Check the digest that this asker expects; once per stored content and digest. Raises DigestMismatchError."""
        digest, task_id = whole_digest(download), run.ids.task_id
        record = self.parts.store.task(task_id)
        if digest is None or record is None or digest == run.work.verified:
            return
        known = (task_id, record.created_at, digest)
        if known in self._verified:
            return
        actual = await wholes.digest_of(self.parts, record, digest.algorithm)
        if actual != digest:
            kept = await wholes.is_sound(self.parts, record, download.url)
            if not kept:
                with suppress(ConflictError):
                    await self.parts.on_disk(partial(self.parts.store.delete, task_id))
                await self.retell.gone(task_id)
            raise wholes.mismatch(download.url, actual, digest, kept=kept)
        self._verified[known] = None
        while len(self._verified) > VERIFIED_KEPT:
            del self._verified[next(iter(self._verified))]


def _asks_otherwise(theirs: Download, mine: Download) -> bool:
    """Whether a download that failed for somebody else may succeed the way this asker wants it."""
    return (
        theirs.request_header != mine.request_header
        or theirs.disable_back_to_source != mine.disable_back_to_source
        or theirs.digest != mine.digest
        or theirs.range != mine.range
        or theirs.insecure_skip_verify != mine.insecure_skip_verify
    )


def _check(download: Download) -> None:
    """Refuse a piece length that would give pieces without number, or too large to be held in memory."""
    length = download.piece_length
    if length is not None and not MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH:
        message = f"piece length {length}: expected {MIN_PIECE_LENGTH} to {MAX_PIECE_LENGTH} bytes"
        raise InvalidInputError(message, field="piece_length")


def _checked(task_id: str) -> str:
    """A task id as it may be asked about. Raises NotFoundError for what cannot be one."""
    if not 0 < len(task_id) <= MAX_TASK_ID or not task_id.isascii() or not task_id.isalnum():
        raise NotFoundError(f"{task_id[:MAX_TASK_ID]!r} is not the id of a task here")
    return task_id
