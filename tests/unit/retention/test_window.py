"""The maintenance window."""

from datetime import UTC, datetime

import pytest

from darner.core.errors import InvalidInputError
from darner.retention.window import parse_window


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_past_midnight() -> None:
    window = parse_window("22:00-06:00")
    assert [window.is_open(at(f"2026-11-25T{time}")) for time in ("21:59:59", "22:00", "00:00", "05:59:59", "06:00")] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert window.opens_at(at("2026-11-25T12:00")) == at("2026-11-25T22:00")
    assert window.opens_at(at("2026-11-25T23:00")) == at("2026-11-25T23:00")


def test_within_a_day_and_the_next_one() -> None:
    window = parse_window(" 1:30 - 04:00 ")
    assert window.text == "01:30-04:00"
    assert window.opens_at(at("2026-11-25T04:00")) == at("2026-11-26T01:30")


def test_on_the_clock_of_a_zone() -> None:
    window = parse_window("02:00-03:00", "Europe/Berlin")
    assert window.is_open(at("2026-11-25T01:30"))
    assert window.is_open(at("2026-07-25T00:30"))
    assert not window.is_open(at("2026-07-25T01:30"))


@pytest.mark.parametrize(
    ("span", "zone", "field"),
    [
        ("", "UTC", "window"),
        ("22-6", "UTC", "window"),
        ("24:00-01:00", "UTC", "window"),
        ("01:60-02:00", "UTC", "window"),
        ("03:00-03:00", "UTC", "window"),
        ("01:00-02:00", "Europe/Nowhere", "zone"),
        ("01:00-02:00", "../etc/passwd", "zone"),
        ("01:00-02:00", "", "zone"),
    ],
)
def test_what_is_no_window(span: str, zone: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        parse_window(span, zone)
    assert error.value.field == field
