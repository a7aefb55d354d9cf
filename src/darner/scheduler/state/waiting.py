"""Who is served now, who waits, and in what order those that wait are released.

Waiting peers are looked at again when a parent becomes eligible (`release`, a bounded wave), when someone they may have waited for
is lost (`settle`), and when time runs out (`expire`); never per piece report.
"""

from itertools import islice

from darner.core.errors import UnavailableError
from darner.scheduler.policy.filter import find_parents
from darner.scheduler.policy.promote import may_visit_origin, promotion_order
from darner.scheduler.records import Hold, PeerRecord, TaskRecord, Wait
from darner.scheduler.state.answers import MAX_ANSWERS, give, hold, refuse, say_empty
from darner.scheduler.state.sources import awaited, can_use, give_up_trigger, has_started, send_to_source, start_source
from darner.scheduler.state.world import Turn

LOOKS_PER_RELEASE = 4


def serve(turn: Turn, peer: PeerRecord) -> None:
    """Answer a peer that asks for parents, or hold it."""
    if peer.answers >= MAX_ANSWERS:
        refuse(turn, peer, UnavailableError(f"{MAX_ANSWERS} sets of parents did not suffice"))
    elif is_empty(peer):
        say_empty(turn, peer)
    elif peer.answers >= turn.config.retry_back_to_source_limit and may_visit_origin(peer):
        reason = f"{peer.answers} sets of parents did not suffice"
        send_to_source(turn, peer, reason, alone=awaited(peer) is not None)
    else:
        _match(turn, peer)


def is_empty(peer: PeerRecord) -> bool:
    """Whether the content is known to have no bytes: by the peer itself, or by one that holds it."""
    task = peer.task
    return peer.download.actual_content_length == 0 or (task.content_length == 0 and len(task.eligible) > 0)


def _match(turn: Turn, peer: PeerRecord) -> None:
    found = find_parents(peer, turn.config, turn.now)
    if found.parents:
        give(turn, peer, found.parents)
        return
    reason = Wait.PARENT if found.busy else awaited(peer)
    if reason is not None:
        hold(turn, peer, reason)
    else:
        start_source(turn, peer)


def release(turn: Turn, task: TaskRecord, limit: int) -> None:
    """Give parents to at most `limit` waiting peers, oldest first. Those that cannot use any go to the end of the line."""
    given = 0
    for peer in list(islice(task.held, limit * LOOKS_PER_RELEASE)):
        found = find_parents(peer, turn.config, turn.now)
        if found.parents:
            give(turn, peer, found.parents)
            given += 1
            if given == limit:
                return
        else:
            del task.held[peer]
            task.held[peer] = None


def settle(turn: Turn, task: TaskRecord) -> None:
    """Make sure that every waiting peer has somebody to wait for; where there is nobody, one of them goes to the origin."""
    for peer in sorted(task.held, key=promotion_order):
        if peer.hold is None:
            continue
        found = find_parents(peer, turn.config, turn.now)
        reason = Wait.PARENT if found.parents or found.busy else awaited(peer)
        if reason is not None:
            hold(turn, peer, reason)
        else:
            start_source(turn, peer)


def expire(turn: Turn, peer: PeerRecord, waited: Hold) -> None:
    """A waiting peer's deadline has come: it goes on waiting only for someone who has shown progress since."""
    task = peer.task
    if waited.reason is Wait.SEED_CHECK:
        _match(turn, peer)
        return
    found = find_parents(peer, turn.config, turn.now)
    if found.parents:
        give(turn, peer, found.parents)
        return
    usable = [source for source in task.sources if can_use(peer, source)]
    pending = task.trigger if task.trigger is not None and task.trigger.peer is None else None
    signs = [source.progress_at for source in usable if not has_started(source)]
    if found.busy:
        signs.append(task.progress_at)
    if pending is not None:
        signs.append(pending.since)
    latest = max(signs, default=0.0) + turn.config.patience
    if latest >= turn.now:
        waited.deadline = latest
        return
    for source in usable:
        del task.sources[source]
    turn.unsettled[task] = None
    if pending is not None:
        give_up_trigger(turn, task, pending)
    if peer.hold is not None:
        start_source(turn, peer)


def finish(turn: Turn) -> None:
    """Before a turn ends: release waves for new parents, and settle those that may have lost theirs."""
    while turn.grown or turn.unsettled:
        while turn.grown:
            release(turn, turn.grown.pop(), turn.config.wave)
        if turn.unsettled:
            task, _ = turn.unsettled.popitem()
            settle(turn, task)
