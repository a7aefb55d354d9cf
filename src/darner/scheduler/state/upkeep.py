"""What happens by itself as time passes: waiting ends, silent sources are no longer awaited, and what is old is forgotten.

Rules and defaults: scheduler.md, section 9. A host with a live stream is alive, whatever its announcements say.
"""

from darner.scheduler.policy.seed import Seeds
from darner.scheduler.records import ENDED, HostRecord, PeerRecord, PeerState, TaskRecord
from darner.scheduler.state.removal import forget_host, forget_peer
from darner.scheduler.state.sources import give_up_trigger, has_started
from darner.scheduler.state.waiting import expire, release
from darner.scheduler.state.world import Turn

MAX_RELEASE = 256
"""Peers that one tick releases at most, per task."""


def tick(turn: Turn) -> None:
    """Look at every task in which someone waits or is awaited."""
    watched = turn.world.watched
    for task in list(watched.values()):
        if task.held and len(task.eligible):
            release(turn, task, min(turn.config.wave * len(task.eligible), MAX_RELEASE))
        _drop_silent(turn, task)
        for peer in list(task.held):
            if peer.hold is not None and peer.hold.deadline < turn.now:
                expire(turn, peer, peer.hold)
        if not (task.held or task.sources or task.trigger):
            del watched[task.id]


def _drop_silent(turn: Turn, task: TaskRecord) -> None:
    """Await no longer who shows no progress. It may still start, and is a parent then like any other."""
    for source in list(task.sources):
        limit = turn.config.parent_patience if has_started(source) else turn.config.patience
        if turn.now - source.progress_at > limit:
            del task.sources[source]
            turn.unsettled[task] = None
            trigger = task.trigger
            if trigger is not None and trigger.peer is source:
                give_up_trigger(turn, task, trigger)
    trigger = task.trigger
    if trigger is not None and trigger.peer is None and turn.now - trigger.since > turn.config.patience:
        give_up_trigger(turn, task, trigger)


def sweep_peers(turn: Turn) -> None:
    """Forget failed, stuck, old and superfluous peers."""
    for task in turn.world.tasks.values():
        crowded = len(task.peers) > turn.config.peers_per_task
        for peer in list(task.peers.values()):
            if _is_over(turn, peer) or (crowded and peer.state is PeerState.SUCCEEDED and not peer.children):
                forget_peer(turn, peer)


def _is_over(turn: Turn, peer: PeerRecord) -> bool:
    gc, now = turn.config.gc, turn.now
    if peer.state is PeerState.FAILED:
        return True
    if peer.state in ENDED:
        return now - peer.updated_at > gc.peerTTL or now - peer.host.updated_at > gc.hostTTL
    if peer.hold is not None or peer.state is PeerState.PENDING:
        return False
    return now - max(peer.progress_at, peer.updated_at) > gc.piece_download_timeout


def sweep_tasks(turn: Turn) -> None:
    """Forget tasks without peers."""
    tasks = turn.world.tasks
    for task in [task for task in tasks.values() if not task.peers and task.trigger is None]:
        del tasks[task.id]
        turn.world.watched.pop(task.id, None)


def sweep_hosts(turn: Turn) -> None:
    """Forget hosts that have missed two announcements, and those that never announced themselves and have no peers."""
    gone = [host for host in turn.world.hosts.values() if _is_gone(turn, host)]
    for host in gone:
        forget_host(turn, host)
    if gone:
        turn.world.seeds = Seeds(turn.world.hosts.values())


def _is_gone(turn: Turn, host: HostRecord) -> bool:
    if any(peer.state not in ENDED for peer in host.peers.values()):
        return False
    silent = turn.now - host.updated_at
    return silent > (2 * host.interval_s if host.interval_s else turn.config.gc.hostTTL)
