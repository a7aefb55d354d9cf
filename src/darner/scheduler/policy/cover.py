"""Whether a parent has, or will have, what a child still wants.

A peer without a range will have everything. Of a peer with a range only that range and the pieces it has reported count.
"""

from darner.scheduler.records import PeerRecord


def covers(parent: PeerRecord, child: PeerRecord) -> bool:
    """Whether the child can get all it still misses from this parent, sooner or later."""
    if not parent.ranged:
        return True
    theirs, ours = parent.span, child.span
    if child.ranged and theirs is not None and ours is not None and theirs.start <= ours.start and ours.end <= theirs.end:
        return True
    missing = child.missing()
    return missing is not None and missing & ~parent.finished == 0
