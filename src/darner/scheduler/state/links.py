"""Edges from parents to children, what they cost the parents' hosts, and the index of peers that may be offered."""

from collections.abc import Sequence

from darner.scheduler.policy.score import charge
from darner.scheduler.records import Charge, HostRecord, PeerRecord, PeerState
from darner.scheduler.state.world import Turn

FEW = 4
"""With more parents than that left, those that wait need not be looked at at once."""


def is_eligible(peer: PeerRecord) -> bool:
    """Whether a peer may be offered: its host shares, and it holds the content, loads it from the origin, or from parents."""
    state = peer.state
    if not peer.host.shares:
        return False
    return state is PeerState.SUCCEEDED or state is PeerState.BACK_TO_SOURCE or (state is PeerState.RUNNING and bool(peer.parents))


def refresh(turn: Turn, peer: PeerRecord) -> None:
    """Bring the index up to date after a change of this peer."""
    task = peer.task
    wanted = is_eligible(peer)
    if wanted == (peer.position >= 0):
        return
    if wanted:
        task.eligible.add(peer)
        if task.held:
            turn.grown.append(task)
    else:
        task.eligible.discard(peer)
        if task.held and len(task.eligible) < FEW:
            turn.unsettled[task] = None


def link(turn: Turn, child: PeerRecord, parents: Sequence[PeerRecord]) -> None:
    """Make these the child's parents. It must have none."""
    cost = charge(child, len(parents))
    for parent in parents:
        child.parents[parent] = cost
        parent.children[child] = None
        _load(parent.host, cost, 1)
    refresh(turn, child)


def unlink_parents(turn: Turn, child: PeerRecord) -> None:
    """The child loads from nobody any more."""
    for parent, cost in child.parents.items():
        del parent.children[child]
        _load(parent.host, cost, -1)
    child.parents.clear()
    refresh(turn, child)


def drop_children(turn: Turn, parent: PeerRecord) -> None:
    """Nobody loads from this peer any more."""
    for child in parent.children:
        _load(parent.host, child.parents.pop(parent), -1)
        refresh(turn, child)
    parent.children.clear()


def _load(host: HostRecord, cost: Charge, sign: int) -> None:
    host.uploads += sign
    if host.uploads:
        host.upload_pieces += sign * cost.pieces
        host.upload_bps += sign * cost.bps
        host.upload_bytes += sign * cost.bytes
    else:  # an idle host has no load; sums of fractions would leave a rest
        host.upload_pieces = host.upload_bps = host.upload_bytes = 0.0
