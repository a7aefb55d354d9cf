"""The answers a peer can get, and what each does to its record."""

from collections.abc import Sequence

from darner.core.announce import CandidateParent, EmptyTask, MetadataOnly, NeedBackToSource, NormalTask
from darner.core.errors import DarnerError
from darner.scheduler.events import Refuse
from darner.scheduler.records import Hold, PeerRecord, PeerState, Wait
from darner.scheduler.state.links import drop_children, link, refresh, unlink_parents
from darner.scheduler.state.world import Turn

MAX_ANSWERS = 5
"""The sixth answer makes a client give up (scheduler.md, section 4.1)."""


def hold(turn: Turn, peer: PeerRecord, reason: Wait) -> None:
    """Answer later. The deadline runs anew when the reason changes."""
    task = peer.task
    if peer.hold is not None and peer.hold.reason is reason:
        return
    patience = turn.config.seed_grace if reason is Wait.SEED_CHECK else turn.config.patience
    peer.hold = Hold(reason, turn.now, turn.now + patience)
    task.held[peer] = None
    turn.watch(task)


def unhold(peer: PeerRecord) -> None:
    """The peer waits no more."""
    if peer.hold is not None:
        peer.hold = None
        del peer.task.held[peer]


def give(turn: Turn, peer: PeerRecord, parents: Sequence[PeerRecord]) -> None:
    """Tell a peer its parents."""
    unhold(peer)
    if peer.state is PeerState.PENDING:
        peer.state = PeerState.RECEIVED_NORMAL
    link(turn, peer, parents)
    offered = tuple(CandidateParent(id=parent.id, host=parent.host.host, state=parent.state.value) for parent in parents)
    turn.send(peer, NormalTask(candidate_parents=offered))


def say_empty(turn: Turn, peer: PeerRecord) -> None:
    """Tell a peer that there is nothing to load."""
    unhold(peer)
    peer.state = PeerState.RECEIVED_EMPTY
    turn.send(peer, EmptyTask())


def accept_holder(turn: Turn, peer: PeerRecord) -> None:
    """Record a peer that has everything it registers for."""
    peer.state = PeerState.SUCCEEDED
    refresh(turn, peer)
    turn.send(peer, MetadataOnly())


def send_to_source(turn: Turn, peer: PeerRecord, why: str, *, alone: bool) -> None:
    """Tell a peer to load from the origin. `alone`: the others need not wait for it, because they have somebody already."""
    task = peer.task
    unhold(peer)
    unlink_parents(turn, peer)
    if not any(other.finished or other.position >= 0 for other in task.peers.values() if other is not peer):
        _forget_content(peer)
    peer.sent = True
    peer.source_error = None
    peer.progress_at = turn.now
    if not alone:
        task.sources[peer] = None
        turn.watch(task)
    turn.send(peer, NeedBackToSource(description=why))


def refuse(turn: Turn, peer: PeerRecord, error: DarnerError) -> None:
    """End a peer's stream with an error; the peer has failed."""
    retire(turn, peer)
    peer.task.ever_failed = True
    turn.out.append(Refuse(task_id=peer.task.id, peer_id=peer.id, error=error))


def retire(turn: Turn, peer: PeerRecord) -> None:
    """The peer has failed: it waits for nothing and serves nobody."""
    unhold(peer)
    peer.state = PeerState.FAILED
    unlink_parents(turn, peer)
    drop_children(turn, peer)
    refresh(turn, peer)


def _forget_content(peer: PeerRecord) -> None:
    """Nobody has any of the content: what is known of an earlier one may no longer be true."""
    task = peer.task
    task.pieces.clear()
    task.content_length = peer.download.actual_content_length
    task.piece_length = peer.download.actual_piece_length or peer.download.piece_length
