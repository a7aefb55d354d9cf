"""Room of deleted rows given back to the file system: SQLite in small steps that nobody notices, servers by advice only.

The size of a step follows how long it held the write lock, and half of the time is rest (spec/retention.md, 4.3 and 5.8).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from darner.db import Database
from darner.kit.clock import Clock

_PASS_S = 30.0
_TARGET_S = 0.015
_LEAST_PAGES, _FIRST_PAGES, _MOST_PAGES = 16, 128, 2_000
_CHECKPOINT_EVERY = 4
# Fewer free pages than that stay: new rows will use them.
WORTH_PAGES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a pass did. `longest_s`: the longest step; `seconds`: of working, rests left away."""

    steps: int = 0
    pages: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0
    more: bool = False


async def give_back(
    db: Database,
    clock: Clock,
    *,
    least: int = WORTH_PAGES,
    seconds: float = _PASS_S,
    stopping: Callable[[], bool] = lambda: False,
) -> Returned:
    """Give back what is worth it, for `seconds` at most, and stop when a step gives nothing. Raises UnavailableError when busy."""
    pages, steps, given, worked, longest = _FIRST_PAGES, 0, 0, 0.0, 0.0
    began, left_before = clock.monotonic(), -1
    while clock.monotonic() - began < seconds and not stopping():
        started = time.monotonic()
        left = await db.return_space(pages=pages, least=least)
        took = time.monotonic() - started
        if left == left_before:
            break
        steps, given, worked, longest = steps + 1, given + pages, worked + took, max(longest, took)
        if not left:
            return Returned(steps=steps, pages=given, seconds=worked, longest_s=longest)
        left_before = left
        pages = max(pages // 2, _LEAST_PAGES) if took > _TARGET_S else min(pages + pages // 4, _MOST_PAGES)
        if steps % _CHECKPOINT_EVERY == 0:
            await db.checkpoint()
        await clock.sleep(took)
    return Returned(steps=steps, pages=given, seconds=worked, longest_s=longest, more=True)
