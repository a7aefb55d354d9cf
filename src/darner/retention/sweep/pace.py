"""How much at once, and how long to rest: the size of batches follows the time that they hold locks (spec/retention.md, 5.4)."""

from collections import deque
from dataclasses import dataclass
from statistics import median

from darner.retention.config import SweepConfig

_TROUBLE_LIMIT = 3
_RESTS_S = (0.1, 0.5, 2.0)
_SLOW_FACTOR = 2.0
# Waiting less than that is no sign of anything.
_NEVER_SLOW_S = 0.005
# The weight of the newest of several measurements.
_NEW = 0.2
# Others' writes that stay slow for long are what is usual now.
_GROWN_USED = 0.02
# How much larger and smaller batches are by turns, how fast they grow and shrink, and how they shrink where rows held locks many
# times longer than they should (`_FAR`).
_SWING = 0.35
_UP, _DOWN, _FAR_DOWN = 1.25, 0.75, 0.5
_FAR = 4
# What the larger batches aim at, as a part of the target, so that those that take a little longer stay within it; and what rows
# have of that at least, however long a batch of none would take.
_AIM = 0.75
_ROOM = 0.5
# The line: what is kept of the weight of earlier batches, how much of a new finding about what is fixed is believed, how different
# in size (standard deviation over mean) batches must be to find out, and the most that one counts in medians.
_KEPT = 0.9
_LEARNED = 0.3
_SPREAD = 0.1
_CLIPPED = 1.5
_MEDIAN_OF = 7
# After so many batches in a row that took so many times longer than the line tells, it is another line.
_OFF, _OFF_TIMES, _KEPT_WHEN_OFF = 2.0, 3, 0.2


class Pace:
    """The pace of one work. Up by a quarter at most, quickly down; after trouble small batches, which grow again.

    What counts is the time that rows take; what every batch takes however small it is (statements, a commit, a busy machine) makes
    batches smaller by half at most: one that is smaller still would hold up others no less, and the work would never be done. To
    tell the two apart, batches are larger and smaller by turns.
    """

    def __init__(self, config: SweepConfig, *, target_hold_s: float, cap: int | None = None) -> None:
        """`target_hold_s`: how long batches may hold locks; `cap`: the most rows a batch may have, if less."""
        self._config = config
        self._target_s = target_hold_s
        self._most = min(config.max_batch, cap or config.max_batch)
        self._least = min(config.min_batch, self._most)
        self._trouble = 0
        self._line = Line()
        self._size = float(min(config.first_batch, self._most))
        self._is_larger = False
        self.limit = int(self._size)

    def went_well(self, held_s: float, rows: int) -> None:
        """A batch of so many rows held locks for so long."""
        self._trouble = 0
        if rows < 1:
            return
        self._line.add(rows, held_s)
        per_row_s, rows_s = self._line.per_row_s, held_s - self._line.fixed_s
        wanted, down = self._most / (1 - _SWING), _DOWN
        aim_s = self._target_s * _AIM
        room_s = max(aim_s - self._line.fixed_s, aim_s * _ROOM)
        if per_row_s * self._most > room_s:
            wanted = room_s / per_row_s / (1 + _SWING)
        if rows_s > max(self._target_s * _FAR, held_s / 2):
            wanted, down = self._size * _FAR_DOWN, _FAR_DOWN
        self._resize(max(min(self._size * _UP + 1, wanted), self._size * down))
        self._is_larger = not self._is_larger

    def had_trouble(self) -> float | None:
        """The database was busy or away: seconds to rest before a smaller batch; None: give up until the next sweep."""
        self._trouble += 1
        self._resize(self._size / 4)
        return None if self._trouble > _TROUBLE_LIMIT else _RESTS_S[self._trouble - 1]

    def _resize(self, size: float) -> None:
        # The smallest and the next larger size, or the largest and the next smaller one, are by turns too.
        self._size = min(max(size, self._least / (1 - _SWING)), self._most / (1 - _SWING))
        swung = self._size * (1 + _SWING if self._is_larger else 1 - _SWING)
        self.limit = min(max(int(swung), self._least), self._most)


class Line:
    """held = `fixed_s` + rows * `per_row_s`, fitted to the latest batches; older ones count less and less.

    While batches are about as large as each other they do not tell the two apart; then `fixed_s` stays as it is. A single batch
    that took very long (others had the processor) counts as one that took a little longer than usual.
    """

    def __init__(self) -> None:
        """Nothing is fixed as far as is known."""
        self.fixed_s = 0.0
        self.per_row_s = 0.0
        self._latest: deque[float] = deque(maxlen=_MEDIAN_OF)
        # Weighted sums: of ones, rows, seconds, rows squared, rows times seconds.
        self._sums = [0.0] * 5
        self._off = 0

    def add(self, rows: int, held_s: float) -> None:
        """One more batch."""
        self._latest.append(held_s)
        self._off = self._off + 1 if held_s > _OFF * (self.fixed_s + rows * self.per_row_s) else 0
        if self._off >= _OFF_TIMES:
            self._sums = [one * _KEPT_WHEN_OFF for one in self._sums]
        seconds = min(held_s, _CLIPPED * median(self._latest))
        new = (1.0, rows, seconds, rows * rows, rows * seconds)
        self._sums = [before * _KEPT + now for before, now in zip(self._sums, new, strict=True)]
        mean_rows, mean_s, rows_rows, rows_s = (one / self._sums[0] for one in self._sums[1:])
        spread = rows_rows - mean_rows**2
        if spread > (_SPREAD * mean_rows) ** 2:
            slope = max(0.0, (rows_s - mean_rows * mean_s) / spread)
            self.fixed_s += (max(0.0, mean_s - slope * mean_rows) - self.fixed_s) * _LEARNED
        self.fixed_s = min(self.fixed_s, mean_s)
        self.per_row_s = (mean_s - self.fixed_s) / mean_rows


@dataclass(slots=True)
class Duty:
    """The share of time spent working: half, or a quarter while writes take twice as long as they used to.

    Without a measure of others' writes (`latency_s`) it goes by how long the sweeper's own batches wait for their locks.
    """

    usual_s: float | None = None
    waits_s: float = 0.0

    def rest_s(self, held_s: float, waited_s: float, latency_s: float | None = None) -> float:
        """How long to rest after a batch that waited for its locks and held them for so long."""
        self.waits_s = self.waits_s * (1 - _NEW) + waited_s * _NEW
        now_s = self.waits_s if latency_s is None else latency_s
        slow = self.usual_s is not None and now_s > max(self.usual_s * _SLOW_FACTOR, _NEVER_SLOW_S)
        if self.usual_s is None:
            self.usual_s = now_s
        elif not slow:
            self.usual_s = min(now_s, self.usual_s * 0.9 + now_s * 0.1)
        else:
            self.usual_s += (now_s - self.usual_s) * _GROWN_USED
        return held_s * (3 if slow else 1)
