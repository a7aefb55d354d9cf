"""How peers and hosts are forgotten."""

from darner.core.errors import NotFoundError
from darner.scheduler.events import Refuse
from darner.scheduler.records import HostRecord, PeerRecord, PeerState
from darner.scheduler.state.sources import fail
from darner.scheduler.state.world import Turn


def forget_peer(turn: Turn, peer: PeerRecord) -> None:
    """Drop a peer. One that waits is told; one that loads may go on, and its later messages are ignored."""
    waits = peer.hold is not None
    if peer.state is not PeerState.FAILED:
        fail(turn, peer)
    del peer.task.peers[peer.id]
    peer.host.peers.pop((peer.task.id, peer.id), None)
    if waits:
        error = NotFoundError(f"peer {peer.id} was taken out of task {peer.task.id}")
        turn.out.append(Refuse(task_id=peer.task.id, peer_id=peer.id, error=error))


def forget_host(turn: Turn, host: HostRecord) -> None:
    """Drop a host with all its peers."""
    for peer in list(host.peers.values()):
        forget_peer(turn, peer)
    turn.world.hosts.pop(host.id, None)
