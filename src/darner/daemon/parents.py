"""The parents of one download as the network sees them: their facts, their offers and their bandwidth become events in a mailbox.

Each parent has one listener: it learns the facts if nobody has yet, then passes on offers until the parent ends or breaks the
stream. Refuses facts that cannot be, offers that point at another machine than the parent's own, and pieces of the wrong length.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from darner.core.announce import CandidateParent
from darner.core.errors import DarnerError, NotFoundError, PeerError
from darner.core.piece import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH
from darner.core.progress import PieceOffer
from darner.core.task import Download, LocalTask
from darner.daemon.board import Board, Facts
from darner.daemon.events import IdleChanged, OffersEnded, ParentFailed, PieceOffered, PullEvent
from darner.daemon.ports import ParentPort
from darner.daemon.rules import idle_bandwidth
from darner.daemon.session import Ids
from darner.kit.log import get_logger
from darner.kit.retry import backoff

FACTS_PATIENCE_S = 15.0
"""How long a parent that has only just been sent off may take to learn the facts itself."""
PROBE_TIMEOUT_S = 5.0
_log = get_logger("daemon")


class ContradictionError(PeerError):
    """A parent contradicts what is known, or itself; it is not asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsTold:
    """What a parent says of the content; not believed yet."""

    parent_id: str
    facts: Facts


def facts_of(task: LocalTask, download: Download) -> Facts:
    """The facts in what a parent says. Raises NotFoundError while it does not know them, ContradictionError for impossible ones."""
    if task.content_length is None or not task.piece_length:
        raise NotFoundError(f"the parent does not know the length of task {task.id} yet")
    asked = download.piece_length
    fits = task.piece_length == asked if asked else MIN_PIECE_LENGTH <= task.piece_length <= MAX_PIECE_LENGTH
    if task.content_length < 0 or task.content_length >= 1 << 60 or not fits:
        raise ContradictionError(f"the parent claims {task.content_length} bytes in pieces of {task.piece_length}")
    return Facts(content_length=task.content_length, piece_length=task.piece_length, header=task.response_header)


def check_offer(offer: PieceOffer, parent: CandidateParent, facts: Facts) -> None:
    """Refuse an offer that cannot be true, or that points at another machine. Raises ContradictionError."""
    if not 0 <= offer.number < facts.count:
        raise ContradictionError(f"a parent offers piece {offer.number} of a task that has {facts.count}")
    span = facts.span(offer.number)
    if offer.ip != parent.host.ip or not offer.tcp_port:
        raise ContradictionError(f"a parent at {parent.host.ip} points at {offer.ip}:{offer.tcp_port}")
    if (offer.offset, offer.length) != (span.start, span.length):
        raise ContradictionError(
            f"a parent offers piece {offer.number} as {offer.offset}+{offer.length}, not {span.start}+{span.length}"
        )


class Listeners:
    """One listener per parent in use. `post` takes events; `known` is asked whether facts that a parent claims may be believed."""

    def __init__(
        self,
        *,
        ids: Ids,
        download: Download,
        board: Board,
        connect: Callable[[str], ParentPort],
        post: Callable[[PullEvent | FactsTold], None],
        missing: Callable[[], Iterable[int]],
    ) -> None:
        """Nothing listens yet."""
        self._ids = ids
        self._download = download
        self._board = board
        self._connect = connect
        self._post = post
        self._missing = missing
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._parents: dict[str, CandidateParent] = {}
        self.places: dict[tuple[str, int], tuple[str, int]] = {}

    def open(self, parent: CandidateParent) -> None:
        """Listen to a parent, anew if it was listened to before."""
        self.close(parent.id)
        self._parents[parent.id] = parent
        self._tasks[parent.id] = [asyncio.create_task(self._listen(parent)), asyncio.create_task(self._watch(parent))]

    def close(self, parent_id: str) -> None:
        """Stop listening to a parent."""
        for task in self._tasks.pop(parent_id, []):
            task.cancel()
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close_all(self) -> None:
        """Stop listening and wait until every listener is gone."""
        tasks = [task for listeners in self._tasks.values() for task in listeners]
        for task in tasks:
            task.cancel()
        self._tasks.clear()
        await asyncio.gather(*tasks, *self._closing, return_exceptions=True)

    async def probe(self) -> None:
        """Ask every parent for a sign of life; those that give none have failed."""
        await asyncio.gather(*(self._probe(self._parents[parent_id]) for parent_id in list(self._tasks)))

    async def _probe(self, parent: CandidateParent) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._connect(parent.host.address).stat_local_task(self._ids.task_id)
        except (DarnerError, TimeoutError):
            _log.info("a silent parent is dropped", parent=parent.id, task=self._ids.task_id)
            self._post(ParentFailed(parent_id=parent.id))

    async def _listen(self, parent: CandidateParent) -> None:
        client = self._connect(parent.host.address)
        try:
            if self._board.facts is None:
                self._post(FactsTold(parent_id=parent.id, facts=await self._learn(client)))
            while self._board.facts is None:
                await self._board.changed(self._board.version)
            await self._offers(client, parent, self._board.facts)
            self._post(OffersEnded(parent_id=parent.id))
        except DarnerError as error:
            _log.info("a parent is dropped", parent=parent.id, task=self._ids.task_id, reason=error.message)
            self._post(ParentFailed(parent_id=parent.id, lied=isinstance(error, ContradictionError)))

    async def _learn(self, client: ParentPort) -> Facts:
        deadline = asyncio.get_running_loop().time() + FACTS_PATIENCE_S
        for wait in backoff(first_s=0.02, cap_s=0.5):
            if self._board.facts is not None:
                return self._board.facts
            try:
                return facts_of(await client.stat_local_task(self._ids.task_id), self._download)
            except NotFoundError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError

    async def _offers(self, client: ParentPort, parent: CandidateParent, facts: Facts) -> None:
        numbers = sorted(self._missing())
        wanted = frozenset(numbers)
        async with aclosing(client.sync_pieces(self._ids.host_id, self._ids.task_id, numbers)) as offers:
            async for offer in offers:
                check_offer(offer, parent, facts)
                if offer.number in wanted:
                    self.places[parent.id, offer.number] = (offer.ip, offer.tcp_port)
                    self._post(PieceOffered(parent_id=parent.id, number=offer.number))

    async def _watch(self, parent: CandidateParent) -> None:
        """Pass on a parent's bandwidth; one that does not tell keeps the weight it has."""
        client = self._connect(parent.host.address)
        try:
            async with aclosing(client.sync_host(self._ids.host_id, self._ids.peer_id)) as hosts:
                async for host in hosts:
                    idle = idle_bandwidth(host.max_tx_bandwidth, host.tx_bandwidth)
                    self._post(IdleChanged(parent_id=parent.id, idle=idle))
        except DarnerError:
            return
