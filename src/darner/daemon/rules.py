"""Small laws of loading: how a parent is weighed and picked, and which piece comes next."""

from collections.abc import Callable, Mapping

UNKNOWN_IDLE = 10_000_000_000
"""Bits per second of a parent that does not say (daemon.md, section 6.4)."""
MIN_SHARE = 10
"""A busy parent keeps at least a tenth of its bandwidth as weight."""


def idle_bandwidth(max_bits: int, used_bits: int) -> int:
    """What a parent has left, in bits per second: max(max - used, max / 10), or a default when it does not say."""
    if max_bits <= 0:
        return UNKNOWN_IDLE
    return max(max_bits - used_bits, max_bits // MIN_SHARE, 1)


def pick_parent(weights: Mapping[str, float], draw: float) -> str:
    """A parent, with a probability in proportion to its weight; `draw` lies in [0, 1). The mapping must not be empty."""
    point = draw * sum(weights.values())
    chosen = ""
    for parent_id, weight in weights.items():
        chosen = parent_id
        point -= weight
        if point < 0:
            break
    return chosen


def piece_order(*, ordered: bool, rotation: int, count: int) -> Callable[[int, int], tuple[int, int]]:
    """The sort key (holders, number) by which the next piece is chosen; the smallest comes first.

    Ordered (someone reads the content from its start): by number. Else the rarest first, and among equals from a start of each
    peer's own, so that peers that begin together have something to give each other.
    """
    if ordered or count <= 0:
        return lambda _holders, number: (0, number)
    return lambda holders, number: (holders, (number - rotation) % count)
