"""Which of the waiting peers should go to the origin first."""

from darner.scheduler.records import PeerRecord


def may_visit_origin(peer: PeerRecord) -> bool:
    """Whether the peer's user lets it."""
    return not peer.download.disable_back_to_source


def promotion_order(peer: PeerRecord) -> tuple[bool, bool, bool, bool]:
    """Sort key, smallest first: who may go, wants everything, wants to give, and is known to be reachable."""
    return (not may_visit_origin(peer), peer.ranged, peer.host.host.disable_shared, not peer.host.announced)
