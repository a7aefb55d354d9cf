import random
from statistics import fmean

import pytest

from darner.retention.growth.forecast import DAY_MS, forecast, trend_of

HOUR_MS = DAY_MS // 24
GIB = 2**30
# Monday to Sunday, as a busy registry sees them.
WEEKLY = (1.15, 1.2, 1.2, 1.15, 1.1, 0.65, 0.55)
NOW = 1_790_000_000_000


def hourly(days: int, *, seed: int, noise: float = 0.12, rise: float = 0.0, start: float = 20 * GIB) -> list[tuple[int, float]]:
    """Samples of each hour up to NOW and for three months more; the daily load is noisy, and rises by `rise` of itself a day."""
    dice = random.Random(seed)  # noqa: S311  (test data)
    value, points = start, []
    for day in range(-days, 92):
        load = GIB * WEEKLY[day % 7] * (1 + rise * day) * max(0.0, dice.gauss(1, noise))
        for hour in range(24):
            points.append((NOW + day * DAY_MS + hour * HOUR_MS, value))
            value += load / 24 * (0.4 + 1.2 * hour / 23)
    return points


def split(points: list[tuple[int, float]]) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    return [one for one in points if one[0] <= NOW], [one for one in points if one[0] >= NOW]


@pytest.mark.parametrize("rise", [0.0, 0.01])
def test_a_weekly_load_is_forecast_within_a_tenth_and_the_upper_bound_holds_nine_times_of_ten(rise: float) -> None:
    errors, within, days_errors, not_before = [], [], [], []
    for seed in range(200):
        seen, later = split(hourly(60, seed=seed, rise=rise))
        limit = seen[-1][1] + 25 * GIB
        found = forecast(seen, limit=limit, now_ms=NOW)
        assert found.week_p50 is not None
        assert found.week_p90 is not None
        assert found.p50 is not None
        assert found.p90 is not None
        truth = later[7 * 24][1] - later[0][1]
        errors.append(abs(found.week_p50 - truth) / truth)
        within.append(truth <= found.week_p90)
        reached = next(index for index, (_, value) in enumerate(later) if value >= limit) / 24
        days_errors.append(abs(found.p50 - reached) / reached)
        not_before.append(reached >= found.p90)
    assert fmean(errors) <= 0.10
    assert fmean(days_errors) <= 0.10
    assert fmean(within) >= 0.90
    assert fmean(not_before) >= 0.90


def test_too_few_days_say_so_instead_of_a_figure() -> None:
    seen, _ = split(hourly(5, seed=1))
    found = forecast(seen, limit=99 * GIB, now_ms=NOW)
    assert found.reason == "A forecast needs 7 whole days of samples; there are 5."
    assert (found.p50, found.p90, found.week_p50, found.per_day) == (None, None, None, None)
    assert forecast([], limit=1.0, now_ms=NOW).reason


def test_a_mass_delete_does_not_bend_the_forecast() -> None:
    plain, _ = split(hourly(40, seed=3))
    cut_at = NOW - 9 * DAY_MS
    cut = [(at, value - 30 * GIB if at > cut_at else value) for at, value in plain]
    limit = 25 * GIB
    before = forecast(plain, limit=plain[-1][1] + limit, now_ms=NOW)
    after = forecast(cut, limit=cut[-1][1] + limit, now_ms=NOW)
    assert before.p50 is not None
    assert after.p50 == pytest.approx(before.p50, rel=0.08)
    assert after.p90 == pytest.approx(before.p90 or 0, rel=0.25)


def test_where_growth_stepped_to_another_level_only_the_days_since_count() -> None:
    fast = [GIB * (1 + 0.02 * (day % 3)) for day in range(18)]
    slow = [GIB * (0.1 + 0.01 * (day % 3)) for day in range(10)]
    found = trend_of([*fast, *slow])
    assert found is not None
    assert found.level == pytest.approx(0.11 * GIB, rel=0.1)
    assert (found.slope, found.days) == (0.0, 10)


def test_gaps_are_days_that_nobody_saw() -> None:
    seen, _ = split(hourly(40, seed=5))
    hole = [one for one in seen if not NOW - 12 * DAY_MS < one[0] < NOW - 8 * DAY_MS]
    whole, holed = forecast(seen, limit=60 * GIB, now_ms=NOW), forecast(hole, limit=60 * GIB, now_ms=NOW)
    assert holed.days_seen == whole.days_seen - 4
    assert holed.week_p50 == pytest.approx(whole.week_p50 or 0, rel=0.1)


def test_what_does_not_grow_reaches_no_limit() -> None:
    points = [(NOW - hour * HOUR_MS, 5.0 * GIB) for hour in range(40 * 24, -1, -1)]
    found = forecast(points, limit=6 * GIB, now_ms=NOW)
    assert (found.reason, found.per_day, found.p50, found.p90) == ("", 0.0, None, None)


def test_a_limit_that_is_reached_is_reached_now() -> None:
    seen, _ = split(hourly(30, seed=2))
    found = forecast(seen, limit=seen[-1][1] - 1, now_ms=NOW)
    assert (found.p50, found.p90) == (0.0, 0.0)
