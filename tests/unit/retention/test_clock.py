"""A database clock that jumps is noticed."""

from typing import Any

import pytest

from darner.retention.clock import BootReading, distrust, marked, ran_evenly

TOLERANCE_MS = 600_000


def told(boot_ms: int, database_ms: int, *, boot: str = "b1") -> str | None:
    mark = marked({}, BootReading(boot_id="b1", ms=5_000), 1_000_000_000)
    return distrust(mark, BootReading(boot_id=boot, ms=boot_ms), database_ms, tolerance_ms=TOLERANCE_MS)


def test_two_clocks_that_move_together_are_believed() -> None:
    assert told(5_000 + 7_200_000, 1_000_000_000 + 7_200_000) is None
    assert told(5_000 + 7_200_000, 1_000_000_000 + 7_200_000 + TOLERANCE_MS) is None


@pytest.mark.parametrize("jump_ms", [TOLERANCE_MS + 1, 3_600_000, 10**12])
def test_a_jump_ahead_is_told(jump_ms: int) -> None:
    assert "jumped ahead" in (told(65_000, 1_000_060_000 + jump_ms) or "")


def test_a_clock_that_goes_back_is_told_also_after_a_reboot() -> None:
    assert "went back" in (told(65_000, 1_000_060_000 - 3_600_000) or "")
    assert "went back" in (told(100, 1_000_000_000 - 3_600_000, boot="b2") or "")


def test_after_a_reboot_or_on_another_machine_there_is_nothing_to_compare() -> None:
    assert told(100, 1_000_000_000 + 10**9, boot="b2") is None


def test_each_machine_keeps_its_own_reading() -> None:
    mark = marked({}, BootReading(boot_id="b1", ms=5_000), 1_000_000)
    mark = marked(mark, BootReading(boot_id="b2", ms=900_000), 1_060_000)
    assert distrust(mark, BootReading(boot_id="b1", ms=125_000), 1_120_000, tolerance_ms=1_000) is None
    assert distrust(mark, BootReading(boot_id="b2", ms=960_000), 1_120_000, tolerance_ms=1_000) is None
    for index in range(40):
        mark = marked(mark, BootReading(boot_id=f"x{index}", ms=1), 1_120_000)
    assert len(mark["readings"]) == 16


def test_how_long_the_clock_ran_evenly_is_counted_from_the_first_sweep_of_a_boot() -> None:
    mark: dict[str, Any] = {}
    for ms, even in ((5_000, 0), (6_000, 1_000), (9_000, 4_000)):
        boot = BootReading(boot_id="b1", ms=ms)
        assert ran_evenly(mark, boot) == even
        mark = marked(mark, boot, 1_000_000_000 + ms)
    assert ran_evenly(mark, BootReading(boot_id="b2", ms=99)) == 0
    assert ran_evenly({"readings": {"b1": [1, 2]}}, BootReading(boot_id="b1", ms=99)) == 0  # as earlier sweeps wrote it
