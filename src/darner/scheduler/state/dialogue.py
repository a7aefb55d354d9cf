"""What a peer says on its stream, message by message (scheduler.md, section 4).

Repeated and late messages are taken as they come: a second Started, Finished without Started, reports of peers that are forgotten.
"""

from collections.abc import Callable
from typing import Any

from darner.core.announce import (
    TERMINAL,
    Announced,
    BackToSourceFailed,
    BackToSourceFinished,
    BackToSourcePieceFailed,
    BackToSourcePieceFinished,
    BackToSourceStarted,
    Failed,
    Finished,
    PieceFailed,
    PieceFinished,
    Register,
    Reschedule,
    Started,
)
from darner.core.errors import NotFoundError, OriginError
from darner.core.piece import Piece
from darner.scheduler.events import End, Refuse
from darner.scheduler.records import ENDED, PeerRecord, PeerState
from darner.scheduler.state.answers import unhold, withdraw
from darner.scheduler.state.links import refresh, unlink_parents
from darner.scheduler.state.register import register
from darner.scheduler.state.sources import awaited, expect, fail
from darner.scheduler.state.waiting import serve
from darner.scheduler.state.world import Turn

MAX_PIECES = 1 << 20
"""Higher piece numbers are not believed: they would only cost memory."""
_RECEIVED = frozenset({PeerState.RECEIVED_NORMAL, PeerState.RECEIVED_EMPTY})


def said(turn: Turn, event: Announced) -> None:
    """Take in one message."""
    message = event.message
    if type(message) is Register:
        register(turn, event, message.download)
        return
    task = turn.world.tasks.get(event.task_id)
    peer = task.peers.get(event.peer_id) if task is not None else None
    if peer is None or (peer.state is PeerState.FAILED and type(message) is not Failed):
        _from_nobody(turn, event)
        return
    peer.updated_at = turn.now
    _HANDLERS[type(message)](turn, peer, message)
    if isinstance(message, TERMINAL):
        turn.out.append(End(task_id=event.task_id, peer_id=event.peer_id))


def _from_nobody(turn: Turn, event: Announced) -> None:
    """A peer that is forgotten, or has failed, may still end its dialogue; it gets no parents any more."""
    if isinstance(event.message, TERMINAL):
        turn.out.append(End(task_id=event.task_id, peer_id=event.peer_id))
    elif isinstance(event.message, Reschedule):
        error = NotFoundError(f"peer {event.peer_id} is not registered for task {event.task_id}")
        turn.out.append(Refuse(task_id=event.task_id, peer_id=event.peer_id, error=error))


def _started(turn: Turn, peer: PeerRecord, _: Started) -> None:
    peer.progress_at = turn.now
    if peer.state in _RECEIVED:
        peer.state = PeerState.RUNNING
        refresh(turn, peer)


def _back_to_source_started(turn: Turn, peer: PeerRecord, _: BackToSourceStarted) -> None:
    """Also from Running, and uninvited: what a peer does is true (scheduler.md, section 21, row 6)."""
    if peer.state in ENDED:
        return
    unhold(peer)
    peer.progress_at = turn.now
    if not peer.sent and awaited(peer) is None:
        expect(turn, peer)
    peer.state = PeerState.BACK_TO_SOURCE
    unlink_parents(turn, peer)


def _reschedule(turn: Turn, peer: PeerRecord, message: Reschedule) -> None:
    if peer.state in ENDED or peer.state is PeerState.BACK_TO_SOURCE:
        return
    for parent in message.candidate_parents:
        _strike(peer, parent.id, parent.host.id)
    withdraw(turn, peer)
    unlink_parents(turn, peer)
    if peer.hold is None:
        serve(turn, peer)


def _strike(peer: PeerRecord, parent_id: str, host_id: str = "") -> None:
    """A parent failed this peer; counted once per answer."""
    parent = peer.task.peers.get(parent_id)
    host_id = parent.host.id if parent is not None else host_id
    if not host_id or host_id in peer.struck:
        return
    peer.struck.add(host_id)
    peer.strikes[host_id] = peer.strikes.get(host_id, 0) + 1
    if parent is not None:
        parent.host.failures += 1


def _piece_finished(turn: Turn, peer: PeerRecord, message: PieceFinished) -> None:
    piece = message.piece
    _progress(turn, peer, piece)
    parent = peer.task.peers.get(piece.parent_id)
    if parent is not None:
        parent.updated_at = parent.host.updated_at = turn.now
        parent.host.failures = 0


def _progress(turn: Turn, peer: PeerRecord, piece: Piece) -> None:
    now, task = turn.now, peer.task
    peer.progress_at = peer.host.updated_at = task.progress_at = task.updated_at = now
    if 0 <= piece.number < MAX_PIECES:
        peer.finished |= 1 << piece.number
    peer.costs.add(piece.cost_s)


def _source_piece_finished(turn: Turn, peer: PeerRecord, message: BackToSourcePieceFinished) -> None:
    """A piece from the origin. Only a peer that was sent there vouches for pieces and teaches lengths."""
    piece = message.piece
    _progress(turn, peer, piece)
    task = peer.task
    task.origin_failures = 0
    task.origin_error = peer.source_error = None
    if peer.sent and 0 <= piece.number < MAX_PIECES:
        task.pieces[piece.number] = piece
        if task.piece_length is None and piece.number:
            task.piece_length = piece.offset // piece.number


def _piece_failed(_: Turn, peer: PeerRecord, message: PieceFailed) -> None:
    _strike(peer, message.parent_id)


def _source_piece_failed(_: Turn, peer: PeerRecord, message: BackToSourcePieceFailed) -> None:
    text = message.message or "the origin did not deliver the content"
    peer.source_error = OriginError(text, status=message.status_code)


def _finished(turn: Turn, peer: PeerRecord, _: Finished | BackToSourceFinished) -> None:
    if peer.state in ENDED:
        return
    unhold(peer)
    if peer.sent and not peer.ranged:
        _learn_lengths(peer)
    peer.state = PeerState.SUCCEEDED
    withdraw(turn, peer)
    unlink_parents(turn, peer)


def _learn_lengths(peer: PeerRecord) -> None:
    """A peer has fetched the whole content: if it told every piece, their sum is its length."""
    task, total = peer.task, 0
    for number in range(len(task.pieces)):
        piece = task.pieces.get(number)
        if piece is None or piece.offset != total:
            return
        total += piece.length
    if task.content_length is None and total:
        task.content_length = total
        task.piece_length = task.pieces[0].length


def _failed(turn: Turn, peer: PeerRecord, _: Failed | BackToSourceFailed) -> None:
    if peer.state is not PeerState.FAILED:
        peer.task.ever_failed = True
        fail(turn, peer)


_HANDLERS: dict[type, Callable[[Turn, PeerRecord, Any], None]] = {
    Started: _started,
    BackToSourceStarted: _back_to_source_started,
    Reschedule: _reschedule,
    Finished: _finished,
    BackToSourceFinished: _finished,
    Failed: _failed,
    BackToSourceFailed: _failed,
    PieceFinished: _piece_finished,
    BackToSourcePieceFinished: _source_piece_finished,
    PieceFailed: _piece_failed,
    BackToSourcePieceFailed: _source_piece_failed,
}
