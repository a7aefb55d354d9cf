"""Hosts that come and go, the health of seeds, and the ends of triggers."""

from darner.core.errors import OriginError, UnavailableError
from darner.scheduler.events import HostAnnounced, HostLeft, PeerLeft, SeedChecked, StreamBroken, TaskLeft, TriggerEnded
from darner.scheduler.policy.seed import Seeds
from darner.scheduler.records import ENDED, HostRecord, SeedHealth, Wait
from darner.scheduler.state.links import refresh
from darner.scheduler.state.removal import forget_host, forget_peer
from darner.scheduler.state.sources import fail, seed_lost
from darner.scheduler.state.world import Turn


def host_announced(turn: Turn, event: HostAnnounced) -> None:
    """A host is here. Its peers may be offered from now on, if it shares."""
    world, now = turn.world, turn.now
    record = world.hosts.get(event.host.id)
    is_new = record is None or not record.announced
    if record is None:
        record = HostRecord(host=event.host, announced=True, updated_at=now)
        world.hosts[event.host.id] = record
    moved = is_new or (record.host.address, record.host.type) != (event.host.address, event.host.type)
    shares = not event.host.disable_shared
    changed = moved or shares != record.shares
    record.host, record.announced, record.shares = event.host, True, shares
    record.updated_at, record.interval_s = now, event.interval_s
    if moved or (event.host.is_seed and record.health is SeedHealth.BAD):
        record.health, record.known_since = SeedHealth.UNKNOWN, now
    if changed:
        world.seeds = Seeds(world.hosts.values())
        for peer in record.peers.values():
            refresh(turn, peer)


def host_left(turn: Turn, event: HostLeft) -> None:
    """A host says goodbye."""
    record = turn.world.hosts.get(event.host_id)
    if record is not None:
        forget_host(turn, record)
        turn.world.seeds = Seeds(turn.world.hosts.values())
        for task in turn.world.watched.values():
            _seed_gone(turn, task.id, event.host_id)


def _seed_gone(turn: Turn, task_id: str, host_id: str) -> None:
    task = turn.world.tasks[task_id]
    trigger = task.trigger
    if trigger is not None and trigger.peer is None and trigger.seed_id == host_id:
        task.trigger = None
        seed_lost(turn, task, trigger, None)


def seed_checked(turn: Turn, event: SeedChecked) -> None:
    """A seed answers, or does not. One that has only just announced itself may still be starting: it is asked again first."""
    record = turn.world.hosts.get(event.host_id)
    if record is None or not record.host.is_seed:
        return
    before = record.health
    if event.healthy:
        record.health = SeedHealth.GOOD
        record.updated_at = turn.now
    elif before is not SeedHealth.UNKNOWN or turn.now - record.known_since >= turn.config.seed_grace:
        record.health = SeedHealth.BAD
    if record.health is before:
        return
    if record.health is SeedHealth.GOOD:
        record.good_since = turn.now
    turn.world.seeds = Seeds(turn.world.hosts.values())
    for task in turn.world.watched.values():
        if any(peer.hold is not None and peer.hold.reason is Wait.SEED_CHECK for peer in task.held):
            turn.unsettled[task] = None


def trigger_ended(turn: Turn, event: TriggerEnded) -> None:
    """The seed's answer ended. Without a usable peer of that seed the trigger has failed, even if the answer ended well."""
    task = turn.world.tasks.get(event.task_id)
    trigger = task.trigger if task is not None else None
    if task is None or trigger is None or trigger.serial != event.serial:
        return
    peer = trigger.peer
    if peer is None:
        task.trigger = None
        unavailable = isinstance(event.error, UnavailableError)
        seed_lost(turn, task, trigger, event.error)
        if unavailable:
            turn.world.seeds = Seeds(turn.world.hosts.values())
    elif peer.state in ENDED or event.error is None:
        task.trigger = None
    elif isinstance(event.error, OriginError) and peer.source_error is None:
        peer.source_error = event.error  # the peer's own stream will tell that it failed


def stream_broken(turn: Turn, event: StreamBroken) -> None:
    """A stream ended without a last word: its peer has failed, at once."""
    task = turn.world.tasks.get(event.task_id)
    peer = task.peers.get(event.peer_id) if task is not None else None
    if peer is not None and peer.state not in ENDED:
        peer.task.ever_failed = True
        fail(turn, peer)


def peer_left(turn: Turn, event: PeerLeft) -> None:
    """One peer is taken out."""
    task = turn.world.tasks.get(event.task_id)
    peer = task.peers.get(event.peer_id) if task is not None else None
    if peer is not None:
        forget_peer(turn, peer)


def task_left(turn: Turn, event: TaskLeft) -> None:
    """A host no longer holds a task."""
    record = turn.world.hosts.get(event.host_id)
    for peer in [peer for peer in record.peers.values() if peer.task.id == event.task_id] if record is not None else []:
        forget_peer(turn, peer)
