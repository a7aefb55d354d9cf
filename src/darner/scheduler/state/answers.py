"""The answers a peer can get, and what each does to its record."""

from collections.abc import Sequence

from darner.core.announce import CandidateParent, EmptyTask, MetadataOnly, NormalTask
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


def refuse(turn: Turn, peer: PeerRecord, error: DarnerError) -> None:
    """End a peer's stream with an error; the peer has failed."""
    retire(turn, peer)
    peer.task.ever_failed = True
    turn.out.append(Refuse(task_id=peer.task.id, peer_id=peer.id, error=error))


def withdraw(turn: Turn, peer: PeerRecord) -> None:
    """The peer is no source any more; those that waited for it must find another."""
    if peer in peer.task.sources:
        del peer.task.sources[peer]
        turn.unsettled[peer.task] = None


def retire(turn: Turn, peer: PeerRecord) -> None:
    """The peer has failed: it waits for nothing and serves nobody."""
    withdraw(turn, peer)
    unhold(peer)
    peer.state = PeerState.FAILED
    unlink_parents(turn, peer)
    drop_children(turn, peer)
    refresh(turn, peer)
