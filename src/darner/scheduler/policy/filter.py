"""Which peers may be a child's parents (scheduler.md, sections 10.2 and 10.3, with Darner's rules).

Only peers of the task's index of eligible ones are looked at. Dropped are: the child's own host, hosts that failed the child in two
answers, peers that will not have what it misses, peers without progress, full hosts, the child's own descendants. Peers that failed
it once, or whose pieces have become much slower, are kept as second choice.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from darner.scheduler.config import SchedulingConfig
from darner.scheduler.policy.cover import covers
from darner.scheduler.policy.score import score
from darner.scheduler.records import Costs, HostRecord, PeerRecord, PeerState

MAX_STRIKES = 2
MIN_COSTS = 2
FULL_WINDOW = 2000
OUTLIER_FACTOR = 20.0
OUTLIER_SIGMAS = 3.0
_NOBODY: AbstractSet[PeerRecord] = frozenset()


@dataclass(slots=True)
class Found:
    """Parents for a child, best first; `busy`: there are others that fit, but they serve as many as they may."""

    parents: list[PeerRecord]
    busy: bool = False


def find_parents(child: PeerRecord, config: SchedulingConfig, now: float) -> Found:
    """At most `candidate_parent_limit` parents, one per host, chosen from at most `filter_parent_limit` that fit."""
    fit: dict[str, PeerRecord] = {}
    second: dict[str, PeerRecord] = {}
    busy = False
    below = descendants(child) if child.children else _NOBODY
    for parent in child.task.eligible.walk():
        host = parent.host
        strikes = child.strikes.get(host.host.id, 0)
        if (
            host is child.host
            or strikes >= MAX_STRIKES
            or parent in below
            or is_stale(parent, config, now)
            or not covers(parent, child)
        ):
            continue
        if host.uploads >= upload_limit(host, config):
            busy = True
            continue
        chosen = second if strikes or is_slow(parent.costs) else fit
        chosen[host.host.id] = parent
        if len(fit) >= config.filter_parent_limit:
            break
    pool = list((fit or second).values())
    if len(pool) > 1:
        pool.sort(key=lambda parent: score(parent, child.host), reverse=True)
    return Found(pool[: config.candidate_parent_limit], busy)


def descendants(peer: PeerRecord) -> set[PeerRecord]:
    """All peers that load from this one, directly or through others: as its parents they would close a cycle."""
    found: set[PeerRecord] = set()
    todo = [peer]
    while todo:
        for child in todo.pop().children:
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def is_stale(peer: PeerRecord, config: SchedulingConfig, now: float) -> bool:
    """Whether a peer that still loads has shown no progress for too long."""
    return peer.state is not PeerState.SUCCEEDED and now - peer.progress_at > config.parent_patience


def upload_limit(host: HostRecord, config: SchedulingConfig) -> int:
    """How many children a host serves at the same time."""
    return config.seed_load_limit if host.host.is_seed else config.load_limit


def is_slow(costs: Costs) -> bool:
    """Whether the last piece took much longer than those before (section 10.3)."""
    if costs.count + 1 < MIN_COSTS:
        return False
    if costs.count + 1 < FULL_WINDOW:
        return costs.last > OUTLIER_FACTOR * costs.mean
    return costs.last > costs.mean + OUTLIER_SIGMAS * float((costs.spread / costs.count) ** 0.5)
