"""How much at once, and how long to rest: the size of batches follows the time that they hold locks (spec/retention.md, 5.4)."""

from dataclasses import dataclass

from darner.retention.config import SweepConfig

_TROUBLE_LIMIT = 3
_RESTS_S = (0.1, 0.5, 2.0)
_SLOW_FACTOR = 2.0
# Waiting less than that is no sign of anything.
_NEVER_SLOW_S = 0.005
# The weight of the newest of several measurements.
_NEW = 0.2


class Pace:
    """The pace of one work. Slowly up, quickly down; after trouble small batches, which grow again."""

    def __init__(self, config: SweepConfig, *, target_hold_s: float, cap: int | None = None) -> None:
        """`target_hold_s`: how long a batch should hold locks; `cap`: the most rows a batch may have, if that is less."""
        self._config = config
        self._target_s = target_hold_s
        self._most = min(config.max_batch, cap or config.max_batch)
        self._least = min(config.min_batch, self._most)
        self._trouble = 0
        self.limit = min(config.first_batch, self._most)

    def went_well(self, held_s: float) -> None:
        """A batch held locks for so long."""
        self._trouble = 0
        more = self._least if held_s > self._target_s / 2 else max(self.limit // 4, self._least)
        wanted = self.limit // 2 if held_s > self._target_s else self.limit + more
        self.limit = min(max(wanted, self._least), self._most)

    def had_trouble(self) -> float | None:
        """The database was busy or away: seconds to rest before a smaller batch; None: give up until the next sweep."""
        self._trouble += 1
        self.limit = max(self.limit // 4, self._least)
        return None if self._trouble > _TROUBLE_LIMIT else _RESTS_S[self._trouble - 1]


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
        if not slow:
            self.usual_s = now_s if self.usual_s is None else min(now_s, self.usual_s * 0.9 + now_s * 0.1)
        return held_s * (3 if slow else 1)
