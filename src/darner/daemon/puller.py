"""Carries out what `state.Pull` decides: listens to parents, loads pieces in threads, judges them, and talks to the scheduler.

One mailbox takes in everything that happens; one loop reads it. It ends with an Outcome: everything is here, the scheduler sends
this peer to the source, or there is nobody left to ask.
"""

import asyncio
import threading
import zlib
from collections.abc import Callable
from enum import Enum
from functools import partial

from darner.core.announce import (
    CandidateParent,
    EmptyTask,
    MetadataOnly,
    NeedBackToSource,
    NormalTask,
    PieceFailed,
    PieceFinished,
    Reschedule,
    SchedulerAnswer,
    Started,
)
from darner.core.errors import DarnerError, DigestMismatchError, PeerError, StorageFullError
from darner.core.piece import Piece, TrafficType
from darner.core.progress import FetchedPiece
from darner.core.task import Headers
from darner.daemon.anchor import Anchor
from darner.daemon.board import Facts
from darner.daemon.events import (
    AllHere,
    CloseParent,
    Fetch,
    IdleChanged,
    NeedParents,
    OpenParent,
    ParentFailed,
    ParentsGiven,
    PieceArrived,
    PieceMissed,
    PiecesWanted,
    PullEvent,
    PullInstruction,
    ReportMiss,
    Stalled,
)
from darner.daemon.parents import FactsTold, Listeners
from darner.daemon.rules import idle_bandwidth
from darner.daemon.session import Session, SessionLost
from darner.daemon.state import Pull
from darner.daemon.work import Work
from darner.kit.log import get_logger
from darner.store import PieceRecord

PROBE_EVERY_S = 10.0
_log = get_logger("daemon")


class Outcome(Enum):
    """How a download from parents ended."""

    DONE = "everything is here"
    TO_SOURCE = "the scheduler sends this peer to the source"
    LENGTH_WANTED = "the scheduler takes a length that is not known for zero"
    LOST = "the scheduler is gone and the parents do not suffice"


Mail = PullEvent | FactsTold | SchedulerAnswer | SessionLost | DarnerError


class Puller:
    """One download from parents within one dialogue with a scheduler."""

    def __init__(self, work: Work, session: Session, anchor: Anchor, scheduler_alive: Callable[[], bool]) -> None:
        """`work` is the download; the answers of `session` come here from now on. `scheduler_alive`: by its health checks."""
        self._scheduler_alive = scheduler_alive
        self._work = work
        self._session = session
        self._anchor = anchor
        self._mail: asyncio.Queue[Mail] = asyncio.Queue()
        self._fetches: set[asyncio.Task[None]] = set()
        self._stop = threading.Event()
        self._given: dict[str, CandidateParent] = {}
        self._answers = 0
        self._probed_at = 0.0
        self._outcome: Outcome | None = None
        self.reason = ""
        parts, board = work.parts, work.board
        self._pull = Pull(
            limit=parts.config.download.concurrent_piece_count,
            draw=parts.chance.draw,
            ordered=work.ordered,
            rotation=zlib.crc32(work.ids.peer_id.encode()) % 1021,
        )
        self._listeners = Listeners(
            ids=work.ids,
            download=work.download,
            board=board,
            connect=parts.peers.at,
            post=self._mail.put_nowait,
            missing=work.missing,
        )
        session.redirect(self._mail.put_nowait)

    async def run(self) -> Outcome:
        """Load until an outcome is reached. Raises DarnerError for what no other parent could mend, such as a full disk."""
        try:
            await self._take_up()
            while self._outcome is None:
                await self._step()
            return self._outcome
        finally:
            self._stop.set()
            await self._listeners.close_all()
            await self._end_fetches()

    async def _take_up(self) -> None:
        """Go on with what is on disk, unless the swarm has another content by now."""
        facts = self._work.board.facts
        if facts is None:
            return
        await self._anchor.refresh()
        held = self._work.resumed.values()
        other = any(self._anchor.contradicts(piece.number, crc32=piece.crc32, blake3=piece.blake3) for piece in held)
        if other or self._anchor.content_length not in {None, facts.content_length}:
            _log.info("what is on disk is of an older content and is dropped", task=self._work.ids.task_id)
            await self._work.forget()
        else:
            self._want()

    def _want(self) -> None:
        """The facts are known: say what is missing."""
        self._carry_out(self._pull.apply(PiecesWanted(numbers=self._work.missing())))

    async def _end_fetches(self) -> None:
        """Wait for the threads to notice `_stop`: the file they write to is closed after this."""
        if self._fetches:
            await asyncio.wait(self._fetches)

    async def _step(self) -> None:
        try:
            async with asyncio.timeout(PROBE_EVERY_S):
                mail = await self._mail.get()
        except TimeoutError:
            await self._on_silence()
            return
        if isinstance(mail, IdleChanged):  # comes every second, also when nothing moves
            self._carry_out(self._pull.apply(mail))
            if self._work.idle_s() < PROBE_EVERY_S or self._work.parts.clock.monotonic() - self._probed_at < PROBE_EVERY_S:
                return
            await self._on_silence()
            return
        self._work.touch()
        match mail:
            case DarnerError():
                raise mail
            case SessionLost():
                self._on_lost(mail)
            case FactsTold():
                await self._on_told(mail)
            case EmptyTask() | NormalTask() | NeedBackToSource() | MetadataOnly():
                await self._on_answer(mail)
            case _:
                self._carry_out(self._pull.apply(mail))

    async def _on_silence(self) -> None:
        """Nothing happened for a while: look whether the scheduler and the parents are still there."""
        self._probed_at = self._work.parts.clock.monotonic()
        config = self._work.parts.config
        if self._answers == 0 or self._pull.starving:
            if not self._scheduler_alive() or self._work.idle_s() > config.scheduler.schedule_timeout:
                self._leave(Outcome.LOST, "the scheduler does not answer")
            return
        if not self._pull.parent_ids or self._pull.flying:
            return
        if self._work.idle_s() > config.download.collected_piece_timeout:
            self._work.touch()
            self._carry_out(self._pull.apply(Stalled()))
        else:
            await self._listeners.probe()

    async def _on_answer(self, answer: SchedulerAnswer) -> None:
        self._answers += 1
        if isinstance(answer, NeedBackToSource):
            self._leave(Outcome.TO_SOURCE, answer.description or "the scheduler said so")
        elif isinstance(answer, EmptyTask):
            if not answer.certain and self._work.told_length != 0:
                self._leave(Outcome.LENGTH_WANTED, "the scheduler says empty, but may only not know the length")
                return
            self._session.say(Started())
            piece_length = self._work.piece_length_for(0)
            await self._on_facts(Facts(content_length=0, piece_length=piece_length, header=Headers()))
        elif isinstance(answer, NormalTask):
            if self._answers > self._work.parts.config.scheduler.max_schedule_count:
                self._leave(Outcome.TO_SOURCE, "the parents of every round did not suffice")
                return
            self._session.say(Started())
            self._settle()
            self._given = {parent.id: parent for parent in answer.candidate_parents}
            weights = tuple(
                (parent.id, idle_bandwidth(parent.host.max_tx_bandwidth, parent.host.tx_bandwidth))
                for parent in answer.candidate_parents
            )
            self._carry_out(self._pull.apply(ParentsGiven(parents=weights)))
        else:
            raise PeerError("the scheduler answered a download with what belongs to a registration only")

    def _on_lost(self, lost: SessionLost) -> None:
        _log.info("the scheduler is gone", task=self._work.ids.task_id, reason=lost.error.message if lost.error else "stream ended")
        if not self._pull.parent_ids or self._pull.starving:
            self._leave(Outcome.LOST, lost.error.message if lost.error else "the scheduler ended the dialogue")

    async def _on_told(self, told: FactsTold) -> None:
        """Believe a parent about the content's length, unless the scheduler knows better."""
        if self._work.board.facts is not None:
            return
        await self._anchor.refresh()
        if self._anchor.content_length in {None, told.facts.content_length}:
            await self._on_facts(told.facts)
            return
        _log.warning("a parent lied about the length", parent=told.parent_id, task=self._work.ids.task_id)
        self._carry_out(self._pull.apply(ParentFailed(parent_id=told.parent_id, lied=True)))

    async def _on_facts(self, facts: Facts) -> None:
        await self._work.begin(facts)
        self._settle()
        self._want()

    def _settle(self) -> None:
        """There are parents, so what is on disk is the swarm's content, not an older one: askers may be told."""
        if self._work.board.facts is not None and not self._work.board.settled:
            self._work.board.settle()

    def _leave(self, outcome: Outcome, reason: str) -> None:
        self._outcome = self._outcome or outcome
        self.reason = self.reason or reason

    def _carry_out(self, instructions: list[PullInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Fetch():
                    task = asyncio.create_task(self._fetch(instruction))
                    self._fetches.add(task)
                    task.add_done_callback(self._fetches.discard)
                case OpenParent(parent_id=parent_id):
                    self._listeners.open(self._given[parent_id])
                case CloseParent(parent_id=parent_id):
                    self._listeners.close(parent_id)
                case ReportMiss(number=number, parent_id=parent_id):
                    self._session.say(PieceFailed(parent_id=parent_id, piece_number=number))
                case NeedParents(reason=reason):
                    self._ask_for_parents(reason)
                case AllHere():
                    self._leave(Outcome.DONE, "")

    def _ask_for_parents(self, reason: str) -> None:
        if not self._session.alive:
            self._leave(Outcome.LOST, reason)
            return
        if self._answers == 0:
            return  # the first answer to the registration is still to come
        _log.info("asking for other parents", task=self._work.ids.task_id, reason=reason)
        self._session.say(Reschedule(candidate_parents=tuple(self._given.values()), description=reason))

    async def _fetch(self, order: Fetch) -> None:
        number, parent_id = order.number, order.parent_id
        try:
            piece = await self._load(number, parent_id)
        except DigestMismatchError as error:
            self._work.parts.meters.bad_pieces.inc()
            _log.warning("a parent lied", parent=parent_id, task=self._work.ids.task_id, piece=number, reason=error.message)
            self._mail.put_nowait(PieceMissed(number=number, parent_id=parent_id, lied=True))
        except StorageFullError as error:
            self._mail.put_nowait(error)
        except DarnerError as error:
            if not self._stop.is_set():
                _log.info("a parent failed", parent=parent_id, task=self._work.ids.task_id, piece=number, reason=error.message)
            self._mail.put_nowait(PieceMissed(number=number, parent_id=parent_id))
        except Exception as error:  # noqa: BLE001  (a lost report would leave the download waiting for ever)
            self._mail.put_nowait(DarnerError(f"piece {number} cannot be stored: {error}"))
        else:
            self._session.say(PieceFinished(piece=piece))
            self._mail.put_nowait(PieceArrived(number=number))

    def _should_stop(self, deadline: float) -> bool:
        return self._stop.is_set() or self._work.parts.clock.monotonic() > deadline

    async def _load(self, number: int, parent_id: str) -> Piece:
        work = self._work
        facts = work.known_facts()
        span = facts.span(number)
        started = work.parts.clock.monotonic()
        fetch = partial(
            work.parts.pieces.fetch,
            self._listeners.places[parent_id, number],
            work.ids.task_id,
            number,
            span,
            work.fd,
            on_bytes=work.parts.pace.from_parent,
            should_stop=partial(self._should_stop, started + work.parts.config.download.piece_timeout),
        )
        fetched: FetchedPiece = await work.parts.move(fetch, self._stop)
        await self._anchor.judge(number, fetched)
        record = PieceRecord(
            number=number,
            offset=span.start,
            length=span.length,
            crc32=fetched.crc32,
            blake3=fetched.blake3,
            parent_id=parent_id,
            traffic_type=TrafficType.REMOTE_PEER,
            cost_s=work.parts.clock.monotonic() - started,
            created_at=work.parts.clock.now(),
        )
        await work.keep(record)
        return record.to_piece()
