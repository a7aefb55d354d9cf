"""When a limit is reached: a robust trend through the daily growth of four weeks, with the days of the week. Plain functions.

The trend is that of Theil and Sen (the median of the slopes between all pairs of days), so a day on which much was deleted bends
nothing (spec/retention.md, 5.7). A slope counts as far as chance does not explain it (Kendall's test), and is not carried on for
longer than it was seen. Where the daily growth stepped from one level to another, only the days since then count.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

DAY_MS = 86_400_000
DAYS = 28
WEEK = 7
MAX_DAYS = 3_650
# A day's end has a value if there was a sample that near to it.
_NEAR_MS = 3 * 3_600_000
_LEAST_DAYS = 7
_LEAST_FOR_WEEK = 14
_LEAST_SEGMENT = 7
_STEP_SHARE = 0.6  # a step explains the days if it leaves less than this share of what a trend leaves
_Z90 = 2.2  # 1.28 for a spread that is known; this one is drawn from few days
_MAD_TO_SD = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Bytes per day: `level` now, `slope` of it per day, `week` what the days of the week add (index 0: the day that ended now).

    `spread`: standard deviation of a day; `days`: how many it was drawn from.
    """

    level: float
    slope: float
    week: tuple[float, ...]
    spread: float
    days: int

    def grows(self, days: int) -> float:
        """Bytes that the next `days` days add, most likely."""
        seen = min(days, DAYS)
        ramp = seen * (seen + 1) / 2 + (days - seen) * DAYS
        weeks, more = divmod(days, WEEK)
        return self.level * days + self.slope * ramp + weeks * sum(self.week) + sum(self.week[1 : more + 1])

    def grows_at_most(self, days: int) -> float:
        """Bytes that they do not exceed, nine times of ten."""
        count, middle = self.days, (self.days + min(days, DAYS)) / 2
        of_trend = days * math.sqrt(1 / count + middle**2 * 12 / count**3)
        return self.grows(days) + _Z90 * self.spread * math.sqrt(days + of_trend**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Days until the limit: `p50` as likely before as after, `p90` nine times of ten not before. None: not within ten years.

    `reason`: why there are no figures; empty if there are. Sizes in bytes; `week_p50` and `week_p90`: what the next seven days add.
    """

    reason: str = ""
    days_seen: int = 0
    per_day: float | None = None
    week_p50: float | None = None
    week_p90: float | None = None
    p50: float | None = None
    p90: float | None = None


def forecast(points: Sequence[tuple[int, float]], *, limit: float | None, now_ms: int) -> Forecast:
    """From points (unix ms, bytes in use) in the order of time; `limit` in bytes, None: there is none."""
    deltas = daily_deltas(points, now_ms=now_ms)
    seen = sum(1 for delta in deltas if delta is not None)
    trend = trend_of(deltas)
    if trend is None:
        return Forecast(reason=f"A forecast needs {_LEAST_DAYS} whole days of samples; there are {seen}.", days_seen=seen)
    room = None if limit is None else limit - points[-1][1]
    return Forecast(
        days_seen=seen,
        per_day=trend.grows(WEEK) / WEEK,
        week_p50=trend.grows(WEEK),
        week_p90=trend.grows_at_most(WEEK),
        p50=None if room is None else _days_until(room, trend.grows),
        p90=None if room is None else _days_until(room, trend.grows_at_most),
    )


def daily_deltas(points: Sequence[tuple[int, float]], *, now_ms: int) -> list[float | None]:
    """What each of the last days added, oldest first; None for days whose begin or end nobody saw. They end at `now`."""
    times = [at for at, _ in points]
    ends = [_value_at(points, times, now_ms - DAY_MS * back) for back in range(DAYS, -1, -1)]
    return [None if before is None or after is None else after - before for before, after in pairwise(ends)]


def trend_of(deltas: Sequence[float | None]) -> Trend | None:
    """The trend of daily growth, oldest first, the last one today's; None when there is too little to draw one from."""
    last = len(deltas) - 1
    days = [(index - last, delta) for index, delta in enumerate(deltas) if delta is not None]
    if len(days) < _LEAST_DAYS:
        return None
    return _fit(_since_step(days))


def _fit(days: Sequence[tuple[int, float]]) -> Trend:
    slope, week = 0.0, (0.0,) * WEEK
    if len(days) >= _LEAST_FOR_WEEK:
        slope = _slope(days, every=WEEK)
        for _ in range(2):  # the days of the week and the trend are each seen better without the other
            week = _week(days, slope)
            slope = _slope([(day, delta - week[day % WEEK]) for day, delta in days])
    else:
        slope = _slope(days)
    level = median(delta - week[day % WEEK] - slope * day for day, delta in days)
    left = [delta - week[day % WEEK] - slope * day - level for day, delta in days]
    parameters = 2 + (WEEK - 1 if any(week) else 0)
    trend = [level + slope * day for day, _ in days]
    spread = _spread(left)
    if min(trend) > 0:  # the noise of a load that rises rises with it
        spread = max(spread, _spread([one / at * (level + slope * WEEK) for one, at in zip(left, trend, strict=True)]))
    spread *= math.sqrt(len(days) / max(len(days) - parameters, 1))
    return Trend(level=level, slope=slope, week=week, spread=spread, days=len(days))


def _since_step(days: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """The days since daily growth stepped to another level, if it did."""
    week = _week(days, _slope(days, every=WEEK)) if len(days) >= _LEAST_FOR_WEEK else (0.0,) * WEEK
    plain = [(day, delta - week[day % WEEK]) for day, delta in days]
    slope = _slope(plain)
    as_trend = _cost([delta - slope * day for day, delta in plain])
    best, cost = 0, as_trend * _STEP_SHARE
    for cut in range(_LEAST_SEGMENT, len(plain) - _LEAST_SEGMENT + 1):
        parts = [delta for _, delta in plain[:cut]], [delta for _, delta in plain[cut:]]
        as_step = _cost(parts[0]) + _cost(parts[1])
        if as_step < cost:
            best, cost = cut, as_step
    return days[best:]


def _cost(values: Sequence[float]) -> float:
    middle = median(values)
    return sum(abs(value - middle) for value in values)


def _slope(days: Sequence[tuple[int, float]], *, every: int = 1) -> float:
    """Theil and Sen's, drawn towards none as far as chance explains it. `every` WEEK compares only the same days of the week."""
    slopes, order = [], 0
    for index, (day, delta) in enumerate(days):
        for later, grown in days[index + 1 :]:
            if (later - day) % every == 0:
                slopes.append((grown - delta) / (later - day))
                order += (grown > delta) - (grown < delta)
    if not order:
        return 0.0
    count = len(days) / every
    chance = every * count * (count - 1) * (2 * count + 5) / 18  # the variance of Kendall's order
    return median(slopes) * max(0.0, 1 - chance / 2 / order**2)


def _week(days: Sequence[tuple[int, float]], slope: float) -> tuple[float, ...]:
    """What each day of the week adds to the others, drawn towards nothing where few were seen."""
    level = median(delta - slope * day for day, delta in days)
    left: list[list[float]] = [[] for _ in range(WEEK)]
    for day, delta in days:
        left[day % WEEK].append(delta - slope * day - level)
    raw = [median(values) if values else 0.0 for values in left]
    middle = fmean(raw)
    return tuple((value - middle) * len(values) / (len(values) + 0.5) for value, values in zip(raw, left, strict=True))


def _spread(left: Sequence[float]) -> float:
    """Of most days: one on which much was deleted says nothing about the others."""
    sizes = sorted(abs(value) for value in left)
    usual = median(sizes)
    return max(usual * _MAD_TO_SD, fmean(min(size, 4 * usual) for size in sizes)) or fmean(sizes[: len(sizes) * 9 // 10])


def _value_at(points: Sequence[tuple[int, float]], times: Sequence[int], at: int) -> float | None:
    """The value at a moment, between the samples next to it; None if there is none near."""
    after = bisect.bisect_left(times, at)
    near = [index for index in (after - 1, after) if 0 <= index < len(times) and abs(times[index] - at) <= _NEAR_MS]
    if not near:
        return None
    (first, low), (second, high) = points[near[0]], points[near[-1]]
    return low if second == first else low + (high - low) * (at - first) / (second - first)


def _days_until(room: float, grown: Callable[[int], float]) -> float | None:
    if room <= 0:
        return 0.0
    before = 0.0
    for day in range(1, MAX_DAYS + 1):
        amount = grown(day)
        if amount >= room:
            return day - 1 + (room - before) / (amount - before)
        before = amount
    return None
