"""A small chart of sizes over time, in characters. Plain functions."""

import sys
from collections.abc import Sequence
from itertools import pairwise

from darner.app.cli.output import is_unicode, moment
from darner.kit.units import format_size

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN = " .#"
WIDTH, HEIGHT = 60, 5
_LEAST_POINTS = 2


def chart(points: Sequence[tuple[str, float]], *, width: int = WIDTH, height: int = HEIGHT, plain: bool | None = None) -> list[str]:
    """Lines of a chart from (RFC 3339, bytes), oldest first; none if there is too little to draw. `plain`: ASCII alone."""
    if len(points) < _LEAST_POINTS:
        return []
    blocks = _PLAIN if _is_plain(plain) else _BLOCKS
    values = _columns([value for _, value in points], width)
    most = max(values)
    top, label = format_size(most), len(format_size(most))
    fills = [round(value / most * height * (len(blocks) - 1)) if most else 0 for value in values]
    lines = []
    for row in range(height - 1, -1, -1):
        cells = "".join(blocks[min(max(fill - row * (len(blocks) - 1), 0), len(blocks) - 1)] for fill in fills)
        name = top if row == height - 1 else "0 B" if row == 0 else ""
        lines.append(f"{name:>{label}} |{cells}".rstrip())
    first, last = moment(points[0][0])[:10], moment(points[-1][0])[:10]
    lines.append(f"{'':>{label}}  {first}{last:>{max(len(values) - len(first), len(last) + 1)}}")
    return lines


def _columns(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: the largest of each stretch."""
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [max(values[start:end]) for start, end in pairwise(edges)]


def _is_plain(plain: bool | None) -> bool:
    if plain is not None:
        return plain
    return not is_unicode(sys.stdout)
