"""Durations and sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.kit.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6h", 21600),
        ("90m", 5400),
        ("7d", 604800),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("PT6H", 21600),
        ("P1DT1M", 86460),
        ("2w", 1209600),
    ],
)
def test_a_duration_is_read_as_it_is_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "6", "h", "6 hours", "-6h", "6h30", "P", "PT", "6hh", "1e3s", "٣h"])
def test_what_is_no_duration_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(ValueError, match="6h, 90m, 7d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("4MiB", 4 << 20), ("4mib", 4 << 20), ("10GB", 10**10), ("1.5 KiB", 1536), ("2TiB", 2 << 40)]
)
def test_a_size_is_read_as_it_is_written(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 XB", "1.2.3", "4 MiB extra"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(1, 10**7))
def test_whole_seconds_are_shown_by_their_two_largest_units_and_read_back_no_larger(seconds: int) -> None:
    shown = format_duration(seconds)
    assert parse_duration(shown) <= seconds
    assert seconds - parse_duration(shown) < 86400


@given(st.integers(0, 1 << 50))
def test_a_shown_size_is_within_a_twentieth_of_the_real_one(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.05)
