"""How good a parent is for a child: upstream's default evaluation (scheduler.md, section 10.4) with Darner's rules.

total = 0.6 load + 0.2 idc + 0.1 location + 0.1 host type, minus 0.1 per failure in a row (at most five). Darner's rules: the
bandwidth a host announced counts beside the scheduler's own estimate, an unknown bandwidth counts as 10 Gbit/s, and a child charges
each of its parents with its share only.
"""

from darner.scheduler.records import Charge, HostRecord, PeerRecord, PeerState

UNKNOWN_BANDWIDTH = 10_000_000_000
DURATION_S = 60.0
BITS_PER_SLOT = 16 * 1024 * 1024 * 8
MAX_LOCATION_PARTS = 5
FAILURE_WEIGHT = 0.1
MAX_FAILURES = 5


def score(parent: PeerRecord, child_host: HostRecord) -> float:
    """The higher the better; about 0 … 1, less for hosts that failed lately."""
    host = parent.host
    rest = 0.2 * same_idc(host, child_host) + 0.1 * near(host, child_host) + 0.1 * type_part(parent)
    return 0.6 * load_part(host) + rest - FAILURE_WEIGHT * min(host.failures, MAX_FAILURES)


def load_part(host: HostRecord) -> float:
    """1 for an idle host, falling with the bandwidth, the bytes and the pieces that it is to upload."""
    limit = host.host.max_tx_bandwidth or UNKNOWN_BANDWIDTH
    used = max(host.host.tx_bandwidth, host.upload_bps)
    peak = max(0.0, 1.0 - used / limit)
    duration = max(0.0, 1.0 - host.upload_bytes * 8 / limit / DURATION_S)
    slots = limit / BITS_PER_SLOT
    pieces = host.upload_pieces
    if pieces <= 0:
        concurrency = 1.0
    elif slots <= 1:
        concurrency = 0.0
    else:
        concurrency = min(1.0, slots / pieces)
    return 0.5 * peak + 0.3 * duration + 0.2 * concurrency


def same_idc(one: HostRecord, other: HostRecord) -> float:
    """1 if both say their data centre and it is the same, ignoring case."""
    return float(bool(one.host.idc) and one.host.idc.lower() == other.host.idc.lower())


def near(one: HostRecord, other: HostRecord) -> float:
    """The share of leading parts that two places have in common, out of five; 1 if they are equal."""
    here, there = one.host.location.lower(), other.host.location.lower()
    if not here or not there:
        return 0.0
    if here == there:
        return 1.0
    same = 0
    for mine, yours in zip(here.split("|"), there.split("|"), strict=False):
        if mine != yours or same == MAX_LOCATION_PARTS:
            break
        same += 1
    return same / MAX_LOCATION_PARTS


def type_part(parent: PeerRecord) -> float:
    """A seed that still loads is preferred, any other seed is spared."""
    if parent.host.host.is_seed:
        return 1.0 if parent.state is PeerState.RUNNING else 0.0
    return 0.5


def charge(child: PeerRecord, parent_count: int) -> Charge:
    """What a child costs each of its parents."""
    share = 1.0 / parent_count
    pieces = child.concurrency * share
    span = child.span.length if child.span is not None else None
    length = span if span is not None else child.task.content_length or 0
    return Charge(pieces=pieces, bps=pieces * child.task.charge_length() * 8, bytes=length * share)
