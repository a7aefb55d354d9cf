"""One target host of a part: has its daemon do the work, and sees to it that the outcome is true.

A host has the content only when its daemon said so afterwards (Darner's, which verifies every byte), or, with upstream's, when the
stream named every byte as finished. Retryable failures are tried again here a few times, then left to the part.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from darner.core.errors import DarnerError, NotFoundError, PeerError, TimedOutError, UnavailableError
from darner.core.host import Host
from darner.core.ids import task_id
from darner.core.progress import DownloadEvent, DownloadStarted, PieceDone
from darner.core.work import HostResult, HostState, PartOrder, WorkKind
from darner.jobs.config import WorkerConfig
from darner.jobs.ports import DaemonDialer, HostDaemon
from darner.jobs.rules import may_help_to_retry
from darner.kit.clock import Clock
from darner.kit.log import get_logger

OWN_BUILD = "darner"
_log = get_logger("worker")


@dataclass(slots=True)
class HostRun:
    """How far one host is."""

    host: Host
    state: HostState = HostState.RUNNING
    content_length: int | None = None
    piece_count: int = 0
    pieces: dict[int, int] = field(default_factory=dict)
    bytes_done: int = 0
    verified: bool = False
    error: str = ""
    retryable: bool = False
    away: bool = False

    @property
    def is_own(self) -> bool:
        """Whether the daemon is Darner's, whose word on finished tasks is verified bytes."""
        return self.host.build_version.lower().startswith(OWN_BUILD)

    def add(self, number: int, length: int) -> None:
        """One more piece is there; the same one again counts once."""
        if number not in self.pieces:
            self.pieces[number] = length
            self.bytes_done += length

    def begin(self) -> None:
        """A new attempt starts from what its own stream tells."""
        self.pieces.clear()
        self.bytes_done = 0

    def result(self) -> HostResult:
        """As it is reported."""
        return HostResult(
            host_id=self.host.id,
            hostname=self.host.hostname,
            ip=self.host.ip,
            seed=self.host.is_seed,
            state=self.state,
            verified=self.verified,
            bytes_done=self.bytes_done,
            pieces_done=len(self.pieces),
            error=self.error,
            retryable=self.retryable,
            away=self.away,
            port=self.host.port,
            build_version=self.host.build_version,
        )


async def carry_out(run: HostRun, order: PartOrder, dial: DaemonDialer, config: WorkerConfig, clock: Clock) -> None:
    """Have the host do its share; afterwards `run` tells the outcome. Raises nothing but cancellation."""
    wait_s = config.host_retry_s
    for attempt in range(1, max(config.host_attempts, 1) + 1):
        try:
            await _attempt(run, order, dial, config)
        except DarnerError as error:
            run.error, run.retryable, run.away = error.message, may_help_to_retry(error), isinstance(error, UnavailableError)
        except Exception as error:  # noqa: BLE001  (a defect on one host must not end the part without a word)
            _log.exception("a host failed unexpectedly", host_id=run.host.id, job_id=order.job_id)
            run.error, run.retryable = f"failed unexpectedly ({type(error).__name__}: {error})"[:300], True
            run.away = False
        else:
            run.state, run.error, run.retryable, run.away = HostState.SUCCEEDED, "", False, False
            return
        if not run.retryable or attempt >= config.host_attempts:
            break
        _log.info("a host is asked again", host_id=run.host.id, job_id=order.job_id, reason=run.error, wait_s=wait_s)
        await clock.sleep(wait_s)
        wait_s *= 2
    run.state = HostState.FAILED


async def _attempt(run: HostRun, order: PartOrder, dial: DaemonDialer, config: WorkerConfig) -> None:
    daemon = dial(run.host.address)
    try:
        match order.kind:
            case WorkKind.FILL:
                await _fill(run, order, daemon, config)
            case WorkKind.DELETE:
                await _delete(order, daemon)
            case WorkKind.LOOK:
                await _look(run, order, daemon)
    finally:
        await daemon.close()


async def _fill(run: HostRun, order: PartOrder, daemon: HostDaemon, config: WorkerConfig) -> None:
    run.begin()
    named, complete = "", False
    async with aclosing(daemon.download_task(order.download, timeout_s=max(order.deadline_in_s, 1.0))) as events:
        async for event in _not_silent(events, config.silence_s, run.host):
            named = event.task_id or named
            complete = _note(run, event) or complete
    if run.is_own:
        await _confirm(run, named or task_id(order.download), daemon)
        return
    if run.content_length is None or (run.bytes_done != run.content_length and not complete):
        total = "an unknown number of" if run.content_length is None else str(run.content_length)
        raise PeerError(f"the daemon's stream ended after naming {run.bytes_done} of {total} bytes as finished")
    run.bytes_done = run.content_length


def _note(run: HostRun, event: DownloadEvent) -> bool:
    """Take one event in; True if it says that everything is there."""
    match event.what:
        case DownloadStarted(content_length=length, pieces=pieces, is_finished=finished):
            run.content_length = length
            run.piece_count = max(run.piece_count, len(pieces))
            return finished
        case PieceDone(piece=piece):
            run.add(piece.number, piece.length)
            run.piece_count = max(run.piece_count, len(run.pieces))
            return False


async def _confirm(run: HostRun, named: str, daemon: HostDaemon) -> None:
    """Ask the host itself whether it holds every byte, verified."""
    try:
        local = await daemon.stat_local_task(named)
    except NotFoundError:
        raise UnavailableError("the daemon said that it was done but does not hold the task") from None
    if local.finished_at is None:
        raise UnavailableError("the daemon said that it was done but its task is not finished")
    if run.content_length is not None and local.content_length not in {None, run.content_length}:
        raise PeerError(f"the daemon holds {local.content_length} bytes of a content of {run.content_length}")
    run.content_length = local.content_length if run.content_length is None else run.content_length
    run.bytes_done = run.content_length or 0
    run.verified = True


async def _delete(order: PartOrder, daemon: HostDaemon) -> None:
    try:
        await daemon.delete_task(task_id(order.download))
    except NotFoundError:
        return  # what is not there needs no deleting


async def _look(run: HostRun, order: PartOrder, daemon: HostDaemon) -> None:
    try:
        local = await daemon.stat_local_task(task_id(order.download))
    except NotFoundError:
        return
    run.verified = local.finished_at is not None
    run.content_length = local.content_length
    run.bytes_done = local.content_length or 0 if run.verified else 0


async def _not_silent(events: AsyncIterator[DownloadEvent], silence_s: float, host: Host) -> AsyncIterator[DownloadEvent]:
    while True:
        try:
            async with asyncio.timeout(silence_s):
                event = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TimedOutError(f"{host.hostname} said nothing for {silence_s:g} s") from None
        yield event
