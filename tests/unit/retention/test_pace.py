"""Sizes of batches, and rests."""

from darner.retention.config import SweepConfig
from darner.retention.sweep.pace import Duty, Pace


def pace(cap: int | None = None) -> Pace:
    return Pace(SweepConfig(), target_hold_s=0.02, cap=cap)


def test_it_grows_to_the_most_while_locks_are_short_and_shrinks_at_once_when_not() -> None:
    one = pace()
    assert one.limit == 200
    for _ in range(40):
        one.went_well(0.001)
    assert one.limit == 2000
    one.went_well(0.021)
    assert one.limit == 1000
    for _ in range(20):
        one.went_well(1)
    assert one.limit == 20


def test_near_the_target_it_grows_slowly() -> None:
    one = pace()
    one.went_well(0.015)
    assert one.limit == 220


def test_a_cap_of_the_database_is_kept() -> None:
    one = pace(cap=1000)
    for _ in range(40):
        one.went_well(0.001)
    assert one.limit == 1000


def test_trouble_makes_it_small_and_it_recovers() -> None:
    one = pace()
    rests = [one.had_trouble() for _ in range(3)]
    assert all(rest is not None for rest in rests)
    assert one.limit == 20
    for _ in range(60):
        one.went_well(0.001)
    assert one.limit == 2000
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
