"""One run: the single flight that loads a task, whoever asked for it. Disk first, then parents as told, then the origin.

Every way a run can end is an end of its board: success, or the one error that its askers see.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial

from darner.core.announce import (
    BackToSourceFailed,
    BackToSourceFinished,
    Failed,
    Finished,
    Register,
)
from darner.core.errors import DarnerError, NotFoundError, OriginError, UnavailableError
from darner.core.task import Download
from darner.daemon.anchor import Anchor
from darner.daemon.loading import Parts
from darner.daemon.puller import Outcome, Puller
from darner.daemon.session import Ids, Session
from darner.daemon.source import SourceLoader
from darner.daemon.work import Work, registration
from darner.kit.log import get_logger
from darner.origin import OriginStat

SMALL_BYTES = 4 * 1024 * 1024
"""Up to here upstream's daemons never ask a scheduler (daemon.md, section 6.2); ours do as they do under an upstream scheduler."""
_log = get_logger("daemon")


class Run:
    """Loads one task. `triggered`: it goes on even if nobody listens."""

    def __init__(self, parts: Parts, task_id: str, download: Download, *, triggered: bool, ordered: bool) -> None:
        """Nothing happens before `start`."""
        self.parts = parts
        self.download = download
        self.triggered = triggered
        ids = Ids(host_id=parts.host().id, task_id=task_id, peer_id=parts.new_peer_id())
        self.work = Work(parts, ids, download, ordered=ordered)
        self.board = self.work.board
        self.from_disk = False
        self._stat: OriginStat | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def ids(self) -> Ids:
        """Host, task and peer."""
        return self.work.ids

    def start(self) -> "asyncio.Task[None]":
        """Begin; the task ends when the run does and never raises."""
        self._task = asyncio.create_task(self._guarded())
        return self._task

    async def cancel(self) -> None:
        """Stop and wait until the files are closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _guarded(self) -> None:
        error: DarnerError | None = DarnerError("the download was stopped")
        started = self.parts.clock.monotonic()
        self.parts.meters.running.inc()
        try:
            await self._run()
            error = None
        except DarnerError as failure:
            error = failure
            self.parts.meters.download_failures.inc()
            _log.warning("a download failed", task=self.ids.task_id, reason=failure.message)
            with suppress(DarnerError):  # nothing of it may be here
                await self.parts.on_disk(partial(self.parts.store.fail, self.ids.task_id))
        except Exception as failure:  # noqa: BLE001  (whoever waits on the board must hear of every end)
            error = DarnerError(f"the download failed unexpectedly: {failure}")
            _log.exception("a download failed unexpectedly", task=self.ids.task_id)
        finally:
            self.work.close()
            self.parts.meters.running.dec()
            self.parts.meters.duration.observe((self.parts.clock.monotonic() - started) * 1000)
            self.board.end(error)

    async def _run(self) -> None:
        await self.work.resume()
        if self.board.facts is not None and not self.work.missing():
            await self.work.complete()
            self.from_disk = True
            self.board.settle()
            return
        if self.triggered and self.download.need_back_to_source and not self.download.disable_back_to_source:
            # A triggered seed asks the origin before it registers, so that the scheduler learns the length from it.
            self._stat = await self._loader(None).stat()
        if await self._through_schedulers():
            return
        if self.download.disable_back_to_source:
            raise UnavailableError("no scheduler and no parent has the content, and going back to source is disabled")
        _log.info("no scheduler can be asked; going to the origin unannounced", task=self.ids.task_id)
        await self._from_source(None)

    async def _through_schedulers(self) -> bool:
        """Try the schedulers around the ring; False if none could be talked to until the end."""
        for address in self.parts.directory.in_order(self.ids.task_id):
            if await self._with_scheduler(address):
                return True
        return False

    async def _with_scheduler(self, address: str) -> bool:
        for attempt in range(2):
            client = self.parts.directory.client(address)
            if address in self.parts.directory.wanting_lengths:
                await self._learn_length()
                if self._is_small():
                    await self._from_source(None)
                    return True
            session = Session(client, self.ids, lambda _answer: None)
            anchor = Anchor(partial(client.stat_task, self.ids.host_id, self.ids.task_id), self.parts.clock)
            puller = Puller(self.work, session, anchor, partial(self.parts.directory.answers, address))
            async with session:
                session.say(Register(download=self._registration()))
                outcome = await self._pull(puller, session)
                if outcome is Outcome.LENGTH_WANTED:
                    await session.finish(Failed(description=puller.reason))
                    self.parts.directory.wanting_lengths.add(address)
                    self.work.ids = replace(self.ids, peer_id=self.parts.new_peer_id())
                    continue
                if outcome is not Outcome.LOST:
                    await self._conclude(outcome, session, puller.reason)
                    return True
            _log.info("a scheduler was lost", task=self.ids.task_id, scheduler=address, reason=puller.reason)
            if isinstance(session.error, OriginError):
                raise session.error  # another peer asked the origin already; asking it again would give the same
            unknown_here = isinstance(session.error, NotFoundError)
            if attempt or not unknown_here or not await self.parts.directory.announce(address):
                break
        return False

    async def _learn_length(self) -> None:
        """Ask the origin before registering, as upstream's daemons always do. Raises OriginError."""
        if self.board.facts is None and self._stat is None:
            self._stat = await self._loader(None).stat()

    def _is_small(self) -> bool:
        """Whether upstream's daemons would fetch it straight from the origin, so that nobody there waits for it as a parent."""
        wanted, stat = self.download.range, self._stat
        if self.download.disable_back_to_source or stat is None or stat.content_length is None:
            return False
        return min(stat.content_length, wanted.length if wanted else stat.content_length) <= SMALL_BYTES

    async def _pull(self, puller: Puller, session: Session) -> Outcome:
        try:
            return await puller.run()
        except DarnerError as error:
            await session.finish(Failed(description=error.message))
            raise

    async def _conclude(self, outcome: Outcome, session: Session, reason: str) -> None:
        if outcome is Outcome.TO_SOURCE:
            if self.download.disable_back_to_source:
                message = f"the content can only be had from its source, and going back to source is disabled ({reason})"
                await session.finish(Failed(description=message))
                raise UnavailableError(message)
            await self._from_source(session)
            return
        try:
            await self.work.complete()
        except DarnerError as error:
            await session.finish(Failed(description=error.message))
            raise
        facts = self.work.known_facts()
        await session.finish(Finished(content_length=facts.content_length, piece_count=facts.count))

    async def _from_source(self, session: Session | None) -> None:
        try:
            await self._loader(session).run(self._stat)
            await self.work.complete()
        except DarnerError as error:
            if session is not None:
                await session.finish(BackToSourceFailed(description=error.message))
            raise
        if session is not None:
            facts = self.work.known_facts()
            await session.finish(BackToSourceFinished(content_length=facts.content_length, piece_count=facts.count))

    def _loader(self, session: Session | None) -> SourceLoader:
        return SourceLoader(self.work, session.say if session else lambda _message: None)

    def _registration(self) -> Download:
        """The download as the scheduler hears of it: with the facts as far as they are known."""
        facts, stat = self.board.facts, self._stat
        content_length = facts.content_length if facts else stat.content_length if stat else None
        piece_length = facts.piece_length if facts else None
        if content_length is not None and piece_length is None:
            piece_length = self.work.piece_length_for(content_length)
        self.work.told_length = content_length
        return registration(
            self.download,
            content_length=content_length,
            piece_length=piece_length,
            concurrent=self.parts.config.download.concurrent_piece_count,
        )
