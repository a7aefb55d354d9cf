"""How content comes into a swarm: whom a peer can wait for, who is asked to load from the origin, and what their failure means.

At most one source is awaited by any peer: another one is named only for a peer that cannot use those there are.
"""

from darner.core.announce import NeedBackToSource
from darner.core.errors import ConflictError, DarnerError, NotFoundError, OriginError, TimedOutError, UnavailableError
from darner.core.task import Download
from darner.scheduler.events import CancelTrigger, TriggerSeed
from darner.scheduler.policy.cover import covers
from darner.scheduler.policy.filter import MAX_STRIKES
from darner.scheduler.policy.priority import FirstStep, first_step
from darner.scheduler.policy.promote import may_visit_origin
from darner.scheduler.policy.seed import may_ask, seed_download
from darner.scheduler.policy.verdict import concerns, is_permanent
from darner.scheduler.records import ENDED, HostRecord, PeerRecord, PeerState, SeedFailure, SeedHealth, TaskRecord, Trigger, Wait
from darner.scheduler.state.answers import hold, refuse, retire, unhold
from darner.scheduler.state.links import unlink_parents
from darner.scheduler.state.world import Turn


def can_use(peer: PeerRecord, source: PeerRecord) -> bool:
    """Whether a peer could load from this source once it has started."""
    if source is peer or source.host is peer.host or source.host.host.disable_shared:
        return False
    return peer.strikes.get(source.host.id, 0) < MAX_STRIKES and covers(source, peer)


def awaited(peer: PeerRecord) -> Wait | None:
    """Whom a peer can wait for: a source, or a seed that was triggered and has not registered yet. None: nobody."""
    task = peer.task
    if any(can_use(peer, source) for source in task.sources):
        return Wait.SOURCE
    trigger = task.trigger
    if trigger is not None and trigger.peer is None and trigger.seed_id != peer.host.id:
        return Wait.SEED if peer.strikes.get(trigger.seed_id, 0) < MAX_STRIKES else None
    return None


def start_source(turn: Turn, peer: PeerRecord) -> None:
    """A peer has nobody to load from or wait for: a seed is asked, or it goes to the origin itself, or is told why not."""
    task, world = peer.task, turn.world
    if not (peer.host.host.is_seed or peer.download.need_back_to_source):
        step = first_step(peer.download, world.applications)
        if step is FirstStep.NOT_FOUND:
            refuse(turn, peer, NotFoundError("the priority of this download lets it take only what another peer holds already"))
            return
        if step is FirstStep.FORBIDDEN:
            refuse(turn, peer, ConflictError("the priority of this download forbids it"))
            return
        if step is FirstStep.SEED and task.trigger is None:
            seed = world.seeds.pick(task.id)
            if seed is not None and may_ask(seed, peer, turn.now):
                trigger_seed(turn, peer, seed)
                return
            if seed is None and seed_is_near(turn):
                hold(turn, peer, Wait.SEED_CHECK)
                return
    if may_visit_origin(peer):
        send_to_source(turn, peer, _why(task), alone=False)
    else:
        reason = "no peer holds this content, and the download must not go to the origin (back-to-source is off)"
        refuse(turn, peer, task.origin_error or NotFoundError(reason))


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
        expect(turn, peer)
    turn.send(peer, NeedBackToSource(description=why))


def expect(turn: Turn, peer: PeerRecord) -> None:
    """Others may wait for this peer from now on. What it could have waited for itself is noted: it should be nobody."""
    task = peer.task
    task.sources[peer] = tuple(source for source in task.sources if can_use(peer, source))
    turn.watch(task)


def _forget_content(peer: PeerRecord) -> None:
    """Nobody has any of the content: what is known of an earlier one may no longer be true."""
    task = peer.task
    task.pieces.clear()
    task.content_length = peer.download.actual_content_length
    task.piece_length = peer.download.actual_piece_length or peer.download.piece_length


def _why(task: TaskRecord) -> str:
    if task.origin_error is not None:
        return f"no peer holds this content; the origin told the one before: {task.origin_error.message}"
    return "no peer holds this content"


def trigger_seed(turn: Turn, peer: PeerRecord, seed: HostRecord) -> None:
    """Have a seed load the task, and let the peer wait."""
    task, world = peer.task, turn.world
    world.serial += 1
    task.trigger = Trigger(serial=world.serial, seed_id=seed.id, since=turn.now, download=peer.download)
    download = seed_download(peer.download, world.remote_ip)
    turn.out.append(TriggerSeed(task_id=task.id, serial=world.serial, seed=seed.host, download=download))
    hold(turn, peer, Wait.SEED)


def seed_is_near(turn: Turn) -> bool:
    """Whether a seed has announced itself so recently that its health is not known yet."""
    return any(
        host.host.is_seed
        and host.shares
        and host.health is SeedHealth.UNKNOWN
        and turn.now - host.known_since < turn.config.seed_grace
        for host in turn.world.hosts.values()
    )


def fail(turn: Turn, peer: PeerRecord) -> None:
    """A peer gives up, or is given up. If others waited for it, its origin's error, if any, decides what they are told."""
    task = peer.task
    was_awaited = peer in task.sources
    retire(turn, peer)
    trigger = task.trigger
    if trigger is not None and trigger.peer is peer:
        task.trigger = None
        seed_lost(turn, task, trigger, peer.source_error)
    elif was_awaited:
        _judge(turn, task, peer.source_error, peer.download)


def seed_lost(turn: Turn, task: TaskRecord, trigger: Trigger, error: DarnerError | None) -> None:
    """A seed that was triggered did not load the task. The trigger is no longer the task's."""
    origin_error = error if isinstance(error, OriginError) else None
    if origin_error is None or not is_permanent(origin_error):
        # When it was the origin's fault, the seed may be asked again soon.
        memory_s = turn.config.seed_failure_memory if origin_error is None else turn.config.patience
        task.seed_failed = SeedFailure(trigger.seed_id, turn.now, turn.now + memory_s)
    host = turn.world.hosts.get(trigger.seed_id)
    if host is not None and isinstance(error, UnavailableError) and trigger.peer is None:
        host.health = SeedHealth.BAD
    _judge(turn, task, origin_error, trigger.download)


def give_up_trigger(turn: Turn, task: TaskRecord, trigger: Trigger) -> None:
    """A triggered seed has shown no sign of life for too long."""
    task.trigger = None
    turn.out.append(CancelTrigger(serial=trigger.serial))
    seed_lost(turn, task, trigger, TimedOutError("the seed did not start in time"))


def has_started(source: PeerRecord) -> bool:
    """Whether a source has begun to load."""
    return source.state is PeerState.BACK_TO_SOURCE


def _judge(turn: Turn, task: TaskRecord, error: OriginError | None, asked: Download) -> None:
    """Tell those without content what the origin said, if it would say the same to them; else let the next one try."""
    turn.unsettled[task] = None
    if error is None:
        return
    task.origin_error = error
    if is_permanent(error):
        told = [peer for peer in _without_content(task) if concerns(error, asked, peer.download)]
    else:
        task.origin_failures += 1
        told = _without_content(task) if task.origin_failures >= turn.config.origin_attempts else []
    for peer in told:
        refuse(turn, peer, error)
    if told:
        task.origin_failures = 0


def _without_content(task: TaskRecord) -> list[PeerRecord]:
    """Those that wait; and those that load from each other, when nobody holds all of it or still loads it from the origin."""
    if task.sources or any(peer.state is PeerState.SUCCEEDED and not peer.ranged for peer in task.eligible):
        return list(task.held)
    return [peer for peer in task.peers.values() if peer.state not in ENDED and peer.state is not PeerState.BACK_TO_SOURCE]
