"""When the shrink guard holds removal back."""

from dataclasses import replace

from darner.retention.guard import EVEN_MS, LEAST_ROWS, OUTAGE_MS, Change, believed_at, decide
from darner.retention.policy import DAY_MS, HOUR_MS

NOW = 1_800_000_000_000


def changed(
    *, ago_ms: int = 2 * DAY_MS, confirmed: bool = False, clock_ms: int = 0, unknown: bool = False, policy: bool = True
) -> Change:
    return Change(policy=policy, changed_at=NOW - ago_ms, confirmed=confirmed, clock_ms=clock_ms, unknown_clock=unknown)


def test_few_rows_are_never_held() -> None:
    assert decide(changed(ago_ms=1), due_anew=LEAST_ROWS - 1, table_rows=LEAST_ROWS, now_ms=NOW) is None


def test_more_than_a_fifth_is_held_however_old_the_change_is() -> None:
    assert decide(changed(), due_anew=200_000, table_rows=1_000_000, now_ms=NOW) is None
    found = decide(changed(), due_anew=200_001, table_rows=1_000_000, now_ms=NOW)
    assert found is not None
    assert found.rows == 200_001
    assert "the policy was tightened" in found.reason
    assert "200001 jobs (20% of all)" in found.reason


def test_a_young_tightening_is_held_for_a_day_unless_confirmed() -> None:
    young = changed(ago_ms=DAY_MS - 1000)
    found = decide(young, due_anew=5_000, table_rows=1_000_000, now_ms=NOW)
    assert found is not None
    assert "24h" in found.reason
    assert found.again_at == NOW + 1000
    assert decide(changed(ago_ms=DAY_MS), due_anew=5_000, table_rows=1_000_000, now_ms=NOW) is None
    assert decide(changed(ago_ms=1, confirmed=True), due_anew=5_000, table_rows=1_000_000, now_ms=NOW) is None


def test_only_changes_are_counted() -> None:
    assert not changed(policy=False).counts
    assert not changed(confirmed=True).counts
    assert not changed(policy=False, clock_ms=60_000).counts
    assert changed(policy=False, clock_ms=-60_001).counts
    assert changed(policy=False, unknown=True).counts
    assert changed(confirmed=True, clock_ms=90_000).counts


def test_the_reason_names_the_clock() -> None:
    told = decide(changed(policy=False, clock_ms=290_000), due_anew=9_000, table_rows=10_000, now_ms=NOW)
    assert told is not None
    assert "clock moved by 290 s" in told.reason
    told = decide(changed(policy=False, unknown=True), due_anew=9_000, table_rows=10_000, now_ms=NOW)
    assert told is not None
    assert "started anew" in told.reason


def test_an_outage_is_believed_after_an_hour_and_one_of_more_than_a_week_never() -> None:
    assert believed_at(now_ms=NOW, last_ms=NOW - OUTAGE_MS, even_ms=0) == NOW + EVEN_MS
    assert believed_at(now_ms=NOW, last_ms=NOW - OUTAGE_MS, even_ms=EVEN_MS - 5) == NOW + 5
    assert believed_at(now_ms=NOW, last_ms=NOW - OUTAGE_MS, even_ms=EVEN_MS + 5) == NOW
    assert believed_at(now_ms=NOW, last_ms=NOW - OUTAGE_MS - 1, even_ms=DAY_MS) is None


def test_what_got_old_in_an_outage_passes_by_itself_but_not_with_a_tightened_policy() -> None:
    off = Change(policy=False, changed_at=0, confirmed=False, clock_ms=DAY_MS, unknown_clock=True, believed_at=NOW + HOUR_MS)
    found = decide(off, due_anew=5_000, table_rows=10_000, now_ms=NOW)
    assert found is not None
    assert (found.passes, found.again_at) == (True, NOW + HOUR_MS)
    assert decide(off, due_anew=5_000, table_rows=100_000, now_ms=NOW) is None
    both = decide(replace(off, policy=True), due_anew=5_000, table_rows=10_000, now_ms=NOW)
    assert both is not None
    assert not both.passes
