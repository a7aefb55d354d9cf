"""What may be evicted, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from darner.store import policy
from darner.store.records import DAY_S, StoreLimits, TaskRecord

NOW = 100 * DAY_S


def task(name: str, *, used_at: float, length: int = 10, finished: bool = True, failed: bool = False) -> TaskRecord:
    return TaskRecord(
        id=name,
        url=f"http://origin.example/{name}",
        content_length=length,
        piece_length=4,
        used_at=used_at,
        finished_at=NOW - 7 if finished else None,
        failed_at=NOW - 5 if failed else None,
    )


def test_the_task_used_longest_ago_goes_first_and_no_more_than_needed() -> None:
    tasks = [task("new", used_at=NOW - 1), task("old", used_at=NOW - 3), task("middle", used_at=NOW - 2)]
    assert policy.to_free(tasks, set(), 11, NOW) == ["old", "middle"]


def test_a_task_in_use_is_never_chosen() -> None:
    tasks = [task("old", used_at=NOW - 3), task("middle", used_at=NOW - 2)]
    assert policy.to_free(tasks, {"old"}, 100, NOW) == ["middle"]
    assert policy.expired(tasks, {"old"}, StoreLimits(ttl_s=1), NOW) == ["middle"]


def test_an_unfinished_task_goes_only_after_a_day_of_silence() -> None:
    recent = task("recent", used_at=NOW - DAY_S + 1, finished=False)
    silent = task("silent", used_at=NOW - DAY_S - 1, finished=False)
    assert policy.to_free([recent, silent], set(), 100, NOW) == ["silent"]


def test_a_failed_task_may_go_at_once() -> None:
    assert policy.to_free([task("failed", used_at=NOW, finished=False, failed=True)], set(), 1, NOW) == ["failed"]


def test_time_to_live_counts_from_the_last_use() -> None:
    tasks = [task("used", used_at=NOW - 9), task("unused", used_at=NOW - 11)]
    assert policy.expired(tasks, set(), StoreLimits(ttl_s=10), NOW) == ["unused"]
    assert policy.expired(tasks, set(), StoreLimits(ttl_s=0), NOW) == []


def test_a_quota_is_touched_only_when_exceeded_and_then_leaves_some_room() -> None:
    limits = StoreLimits(quota_bytes=1000)
    assert policy.over_quota(1000, limits) == 0
    assert policy.over_quota(1001, limits) == 101
    assert policy.over_quota(10**9, StoreLimits()) == 0


def test_a_full_disk_is_brought_from_the_high_to_the_low_mark() -> None:
    limits = StoreLimits(disk_high_percent=80, disk_low_percent=60)
    assert policy.over_disk(1000, 201, limits) == 0
    assert policy.over_disk(1000, 150, limits) == 250
    assert policy.over_disk(1000, 1, StoreLimits()) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), st.booleans(), st.booleans()), max_size=20), st.integers(0, 100))
def test_what_is_chosen_is_enough_or_everything_that_may_go(facts: list[tuple[int, int, bool, bool]], needed: int) -> None:
    tasks = [task(f"t{n}", used_at=NOW - age, length=length, finished=done) for n, (age, length, done, _) in enumerate(facts)]
    pinned = {f"t{n}" for n, (*_, held) in enumerate(facts) if held}
    chosen = policy.to_free(tasks, pinned, needed, NOW)
    by_id = {one.id: one for one in tasks}
    allowed = {one.id for one in tasks if policy.may_go(one, pinned, NOW)}
    assert set(chosen) <= allowed
    assert sum(by_id[name].content_length for name in chosen) >= needed or set(chosen) == allowed
