"""Sizes of batches, and rests."""

import random
from collections.abc import Callable

import pytest

from darner.retention.config import SweepConfig
from darner.retention.sweep.pace import Duty, Pace

FIXED_S = 0.025


def pace(cap: int | None = None) -> Pace:
    return Pace(SweepConfig(), target_hold_s=0.02, cap=cap)


def sizes(one: Pace, batches: int, held_s: Callable[[int], float]) -> list[int]:
    """So many batches that hold locks for as long as `held_s` says of their rows; their sizes."""
    found = []
    for _ in range(batches):
        found.append(one.limit)
        one.went_well(held_s(one.limit), one.limit)
    return found


def test_it_grows_to_the_most_while_locks_are_short_and_shrinks_at_once_when_rows_hold_them() -> None:
    one = pace()
    assert one.limit == 200
    assert sizes(one, 40, lambda rows: rows * 1e-6)[-1] == 2000
    assert sizes(one, 5, lambda rows: rows * 1e-3)[-1] <= 500
    assert max(sizes(one, 30, lambda rows: rows * 1e-2)[20:]) <= 42


def test_it_finds_the_sizes_of_which_the_larger_holds_locks_for_as_long_as_rows_may() -> None:
    found = sizes(pace(), 60, lambda rows: 0.001 + rows * 1e-4)[30:]
    assert 130 <= max(found) <= 190
    assert min(found) >= 60


def test_what_every_batch_takes_makes_them_smaller_by_half_at_most() -> None:
    found = sizes(pace(), 80, lambda rows: FIXED_S + rows * 2e-5)[40:]
    assert 300 <= max(found) <= 500
    assert min(found) >= 140


@pytest.mark.parametrize("seed", range(5))
def test_neither_does_a_processor_that_others_use_most_of_the_time(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  (test data)

    def held_s(rows: int) -> float:
        stolen = dice.random() * 5 if dice.random() < 0.15 else 0.0
        return (FIXED_S + rows * 2e-5) * (dice.lognormvariate(0, 0.4) + stolen)

    assert sum(sizes(pace(), 160, held_s)[80:]) / 80 > 150


def test_one_batch_that_took_very_long_changes_little() -> None:
    one = pace()
    before = sizes(one, 60, lambda rows: 0.001 + rows * 1e-4)[-2:]
    one.went_well(0.070, one.limit)
    after = sizes(one, 2, lambda rows: 0.001 + rows * 1e-4)
    assert sum(after) > 0.6 * sum(before)


def test_it_follows_rows_that_have_become_slower() -> None:
    one = pace()
    sizes(one, 30, lambda rows: 0.001 + rows * 2.5e-5)
    found = sizes(one, 30, lambda rows: 0.001 + rows * 2.5e-4)
    assert max(found[12:]) < 250


def test_a_batch_that_found_nothing_tells_nothing() -> None:
    one = pace()
    one.went_well(5.0, 0)
    assert one.limit == 200


def test_a_cap_of_the_database_is_kept() -> None:
    assert max(sizes(pace(cap=1000), 40, lambda rows: rows * 1e-6)) == 1000
    assert set(sizes(pace(cap=10), 40, lambda rows: rows * 1e-6)) == {10}


def test_trouble_makes_it_small_and_it_recovers() -> None:
    one = pace()
    rests = [one.had_trouble() for _ in range(3)]
    assert all(rest is not None for rest in rests)
    assert one.limit == 20
    assert sizes(one, 60, lambda rows: rows * 1e-6)[-1] == 2000
    assert one.had_trouble() is not None


def test_a_fourth_trouble_in_a_row_gives_up() -> None:
    one = pace()
    assert [one.had_trouble() is None for _ in range(4)] == [False, False, False, True]


def test_half_of_the_time_and_a_quarter_while_others_are_slow() -> None:
    duty = Duty()
    assert duty.rest_s(0.02, 0.0, 0.006) == 0.02
    assert duty.rest_s(0.02, 0.0, 0.0121) == 0.06
    assert duty.rest_s(0.02, 0.0, 0.007) == 0.02


def test_long_waits_for_locks_are_taken_for_slow_writes_of_others() -> None:
    duty = Duty()
    for _ in range(20):
        assert duty.rest_s(0.02, 0.0005) == 0.02
    assert [duty.rest_s(0.02, 0.02) for _ in range(3)] == [0.02, 0.06, 0.06]
    for _ in range(20):
        duty.rest_s(0.02, 0.0005)
    assert duty.rest_s(0.02, 0.0005) == 0.02


def test_writes_that_stay_slow_are_what_is_usual_at_last() -> None:
    duty = Duty()
    duty.rest_s(0.02, 0.0, 0.006)
    rests = [duty.rest_s(0.02, 0.0, 0.0121) for _ in range(200)]
    assert (rests[0], rests[-1]) == (0.06, 0.02)
