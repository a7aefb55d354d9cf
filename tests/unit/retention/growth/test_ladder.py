from itertools import pairwise

from darner.retention.growth.ladder import (
    DWELL_MS,
    DWELL_OVER_MS,
    GIB,
    HOUR_MS,
    HYSTERESIS_MS,
    MAX_CUTS,
    Ladder,
    Reading,
    Stage,
    Step,
    step,
)

MINUTE_MS = 60_000
DISK = 1000 * GIB


def disk(free_percent: float, *, folds: bool = True, archives: bool = True, shortens: bool = False, full: bool = False) -> Reading:
    free = int(DISK * free_percent / 100)
    return Reading(used=5 * GIB, disk=DISK, free=free, folds=folds, archives=archives, shortens=shortens, full=full)


class Run:
    """Asks the ladder every minute."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.ladder = Ladder(since=self.now)
        self.steps: list[Step] = []

    def last(self, minutes: float, reading: Reading) -> Stage:
        end = self.now + int(minutes * MINUTE_MS)
        while self.now < end:
            self.now += MINUTE_MS
            self.ladder, steps = step(self.ladder, reading, self.now)
            self.steps += steps
        return self.ladder.stage


def test_room_to_spare_changes_nothing() -> None:
    run = Run()
    assert run.last(60 * 48, disk(60)) == Stage.CALM
    assert not run.steps


def test_up_one_step_at_a_time_as_far_as_suggesting() -> None:
    run = Run()
    assert run.last(60 * 12, disk(9)) == Stage.SUGGEST
    assert [one.after for one in run.steps] == [Stage.WARN, Stage.VACUUM, Stage.FOLD, Stage.ARCHIVE, Stage.SUGGEST]
    assert all(later.at - one.at >= DWELL_MS for one, later in pairwise(run.steps))
    assert run.steps[0].why == "9 % of the disk is free."


def test_steps_that_help_nobody_are_passed_over() -> None:
    run = Run()
    run.last(60 * 12, disk(9, folds=False, archives=False))
    assert [one.after for one in run.steps] == [Stage.WARN, Stage.VACUUM, Stage.SUGGEST]


def test_past_the_limit_the_steps_come_sooner() -> None:
    run = Run()
    over = Reading(used=21 * GIB, limit=20 * GIB, disk=DISK, free=DISK // 2, folds=True, archives=True)
    run.last(60, over)
    assert run.steps[1].at - run.steps[0].at == DWELL_OVER_MS
    assert [one.after for one in run.steps] == [Stage.WARN, Stage.VACUUM, Stage.FOLD, Stage.ARCHIVE, Stage.SUGGEST, Stage.REFUSE]
    assert run.steps[0].why == "105 % of the budget is used."


def test_a_budget_that_may_shorten_does_so_before_jobs_are_refused_for_it() -> None:
    run = Run()
    over = Reading(used=21 * GIB, limit=20 * GIB, disk=DISK, free=DISK // 2, shortens=True)
    run.last(60 * 4, over)
    assert run.ladder.stage == Stage.SHORTEN
    assert run.last(60 * 12, over) == Stage.REFUSE
    assert run.ladder.cut == MAX_CUTS


def test_down_only_after_a_whole_calm_day() -> None:
    run = Run()
    run.last(90, disk(9))
    assert run.ladder.stage == Stage.VACUUM
    run.last(23 * 60, disk(60))
    run.last(2, disk(11))  # neither scarce nor to spare: the day begins anew
    assert run.last(23.9 * 60, disk(60)) == Stage.VACUUM
    assert run.last(10, disk(60)) == Stage.CALM
    assert run.steps[-1].at - run.steps[-2].at >= HYSTERESIS_MS


def test_nothing_flaps_around_a_threshold() -> None:
    run = Run()
    for turn in range(24 * 4):
        run.last(15, disk(9.9 if turn % 2 else 12.5))
    assert run.ladder.stage == Stage.SUGGEST
    assert len(run.steps) == 5


def test_without_opting_in_history_is_never_shortened() -> None:
    run = Run()
    assert run.last(60 * 48, disk(4)) == Stage.SUGGEST
    assert run.ladder.cut == 0


def test_opted_in_it_is_shortened_bit_by_bit_and_no_longer_than_needed() -> None:
    run = Run()
    run.last(60 * 12, disk(4, shortens=True))
    assert (run.ladder.stage, run.ladder.cut) == (Stage.SHORTEN, MAX_CUTS)
    cuts = [one.at for one in run.steps if one.before == one.after == Stage.SHORTEN]
    assert all(later - one >= HOUR_MS for one, later in pairwise(cuts))
    assert run.last(1, disk(8, shortens=True)) == Stage.SUGGEST
    assert run.ladder.cut == 0


def test_taking_the_permission_back_ends_shortening() -> None:
    run = Run()
    run.last(60 * 6, disk(4, shortens=True))
    assert run.last(1, disk(4)) == Stage.SUGGEST
    assert run.ladder.cut == 0


def test_nearly_nothing_left_refuses_new_jobs_at_once_and_as_long_as_it_lasts() -> None:
    run = Run()
    assert run.last(1, disk(1.5)) == Stage.REFUSE
    assert run.last(60, disk(2.5)) == Stage.REFUSE
    assert run.last(1, disk(3.5)) == Stage.SUGGEST


def test_a_write_that_found_the_disk_full_refuses_whatever_the_figures_say() -> None:
    run = Run()
    assert run.last(1, disk(50, full=True)) == Stage.REFUSE
    assert run.last(1, disk(50)) == Stage.SUGGEST
    blind = Run()
    assert blind.last(1, Reading(full=True)) == Stage.REFUSE
    assert blind.last(1, Reading()) == Stage.SUGGEST


def test_a_forecast_warns_before_a_limit_is_near() -> None:
    run = Run()
    run.last(1, Reading(used=5 * GIB, disk=DISK, free=DISK // 2, days=5.5))
    assert (run.ladder.stage, run.steps[0].why) == (Stage.WARN, "The limit may be reached in 5.5 days.")


def test_what_is_not_known_is_not_fine() -> None:
    run = Run()
    run.last(90, disk(9))
    assert run.last(60 * 30, Reading()) == Stage.VACUUM
    assert run.last(60 * 30, Reading(used=1, disk=DISK, free=None)) == Stage.VACUUM


def test_a_small_disk_is_not_full_for_being_small() -> None:
    run = Run()
    small = 20 * GIB
    assert run.last(1, Reading(used=GIB, disk=small, free=small // 4)) == Stage.CALM
    assert run.last(1, Reading(used=GIB, disk=small, free=small // 6)) == Stage.WARN
