"""No order, doubling or loss of messages, and no lost lease, leads a part or a job to a wrong end."""

from dataclasses import replace
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darner.core.job import END_STATES, PART_END_STATES, DetailState, PartState
from darner.core.work import HostResult, HostState, Outcome, WorkReport
from darner.jobs.events import (
    CancelAsked,
    DeadlinePassed,
    LeaseChecked,
    Leased,
    Limits,
    Part,
    PartEvent,
    Refused,
    Reported,
)
from darner.jobs.state import Tally, after, check_part, fold, may_lease, reason, retry_wait_ms

LIMITS = Limits(lease_ms=15_000, max_attempts=3, patience_ms=0, retry_first_ms=1_000, retry_cap_ms=8_000)
LEASES = ("lease-a", "lease-b", "lease-c")


def a_part(**changes: object) -> Part:
    plain = Part(
        id=11,
        job_id=7,
        cluster_id=3,
        ordinal=0,
        url="http://o/f",
        state=PartState.WAITING,
        created_at=100,
        updated_at=100,
        not_before=100,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def a_host(name: str, state: HostState, *, retryable: bool = False) -> HostResult:
    error = "no space left" if state == HostState.FAILED else ""
    return HostResult(
        host_id=name, hostname=name, ip="10.0.0.1", seed=True, state=state, verified=state == HostState.SUCCEEDED, error=error,
        retryable=retryable,
    )  # fmt: skip


def done(*hosts: HostResult, error: str = "", retryable: bool = False) -> WorkReport:
    return WorkReport(
        size_bytes=100, target_count=len(hosts), bytes_done=90, hosts=hosts, outcome=Outcome.DONE, error=error, retryable=retryable
    )


GOOD = done(a_host("h1", HostState.SUCCEEDED), a_host("h2", HostState.SUCCEEDED))
MIXED = done(a_host("h1", HostState.SUCCEEDED), a_host("h2", HostState.FAILED))
BAD = done(a_host("h1", HostState.FAILED))
PASSING = done(a_host("h1", HostState.FAILED, retryable=True))
UNFINISHED = done(a_host("h1", HostState.SUCCEEDED), a_host("h2", HostState.RUNNING))
NOBODY = done(error="no seed peer")
SHORT = replace(GOOD, target_count=3)
PROGRESS = WorkReport(size_bytes=100, target_count=2, bytes_done=50)

reports = st.sampled_from([
    GOOD, MIXED, BAD, PASSING, UNFINISHED, NOBODY, SHORT, PROGRESS,
    WorkReport(outcome=Outcome.RELEASED), WorkReport(outcome=Outcome.CANCELLED),
])  # fmt: skip
events: st.SearchStrategy[PartEvent] = st.one_of(
    st.builds(Leased, lease_id=st.sampled_from(LEASES), holder=st.just("w")),
    st.builds(Reported, lease_id=st.sampled_from(LEASES), report=reports),
    st.just(LeaseChecked()),
    st.just(CancelAsked()),
    st.just(DeadlinePassed()),
    st.just(Refused(reason="the key does not fit")),
)
steps = st.lists(st.tuples(events, st.integers(0, 20_000), st.sampled_from(list(DetailState))), max_size=40)


@given(steps)
@settings(max_examples=400, deadline=None)
def test_whatever_happens_invariants_hold_and_success_needs_the_holders_word_on_every_host(
    story: list[tuple[PartEvent, int, DetailState]],
) -> None:
    part, now = a_part(), 1_000
    for event, passed, job in story:
        now += passed
        then = after(part, event, job=job, now=now, limits=LIMITS)
        check_part(then)
        if part.state in PART_END_STATES:
            assert then is part
        if then.state == PartState.SUCCEEDED and part.state != PartState.SUCCEEDED:
            assert isinstance(event, Reported)
            assert event.report is GOOD
            assert (part.state, part.lease_id) == (PartState.LEASED, event.lease_id)
        if then.state == PartState.LEASED and part.state != PartState.LEASED:
            assert may_lease(part, job=job, now=now)
        assert then.attempts <= LIMITS.max_attempts or part.attempts >= LIMITS.max_attempts
        part = then


@given(st.lists(st.tuples(st.sampled_from(LEASES), reports), max_size=12))
def test_reports_of_anyone_but_the_holder_change_nothing(messages: list[tuple[str, WorkReport]]) -> None:
    part = a_part(state=PartState.LEASED, lease_id="mine", lease_holder="w", lease_until=9_000, attempts=1)
    for lease_id, report in messages:
        assert after(part, Reported(lease_id=lease_id, report=report), job=DetailState.RUNNING, now=5, limits=LIMITS) is part


def test_every_order_of_two_workers_messages_ends_in_what_the_holder_said() -> None:
    """The first worker goes silent, the second takes over; the first one's messages arrive anywhere in between, some twice."""
    late = Reported(lease_id="lease-a", report=BAD)
    messages: list[PartEvent] = [
        late,
        late,
        Reported(lease_id="lease-b", report=PROGRESS),
        Reported(lease_id="lease-b", report=GOOD),
    ]
    leased = after(a_part(), Leased(lease_id="lease-a", holder="w1"), job=DetailState.QUEUED, now=100, limits=LIMITS)
    lost = after(leased, LeaseChecked(), job=DetailState.RUNNING, now=leased.lease_until, limits=LIMITS)
    second = after(lost, Leased(lease_id="lease-b", holder="w2"), job=DetailState.RUNNING, now=lost.not_before, limits=LIMITS)
    assert (lost.state, second.state, second.attempts) == (PartState.WAITING, PartState.LEASED, 2)
    for order in permutations(messages):
        part = second
        for message in order:
            part = after(part, message, job=DetailState.RUNNING, now=second.lease_until - 1, limits=LIMITS)
        assert part.state == PartState.SUCCEEDED


def test_the_fold_reads_only_counts_so_no_order_matters_and_success_needs_every_part() -> None:
    for states in product(PartState, repeat=3):
        parts = [a_part(id=number, state=state, attempts=1) for number, state in enumerate(states)]
        ends = {fold(DetailState.RUNNING, Tally.of(order)) for order in permutations(parts)}
        assert len(ends) == 1
        end = ends.pop()
        assert (end == DetailState.SUCCEEDED) == (set(states) == {PartState.SUCCEEDED})
        assert (end in END_STATES) == (set(states) <= PART_END_STATES)
        for ended in END_STATES:
            assert fold(ended, Tally.of(parts)) == ended


def test_a_partial_job_is_told_from_a_failed_one() -> None:
    def folded(*states: PartState) -> DetailState:
        return fold(DetailState.RUNNING, Tally.of([a_part(state=state) for state in states]))

    assert folded(PartState.SUCCEEDED, PartState.FAILED) == DetailState.PARTIAL
    assert folded(PartState.PARTIAL) == DetailState.PARTIAL
    assert folded(PartState.FAILED, PartState.FAILED) == DetailState.FAILED
    assert folded(PartState.SUCCEEDED, PartState.TIMED_OUT) == DetailState.TIMED_OUT
    assert folded(PartState.TIMED_OUT, PartState.CANCELLED) == DetailState.CANCELLED


def leased_part(**changes: object) -> Part:
    return a_part(state=PartState.LEASED, lease_id="a", lease_holder="w1", lease_until=9_000, attempts=1, **changes)


def test_a_passing_failure_is_tried_again_with_growing_waits_and_then_fails_for_good() -> None:
    waits = []
    part, now = a_part(), 1_000
    while part.state not in PART_END_STATES:
        part = after(part, Leased(lease_id="a", holder="w1"), job=DetailState.RUNNING, now=now, limits=LIMITS)
        part = after(part, Reported(lease_id="a", report=PASSING), job=DetailState.RUNNING, now=now, limits=LIMITS)
        waits.append(part.not_before - now)
        now = max(part.not_before, now)
    assert waits[:2] == [1_000, 2_000]
    assert (part.state, part.attempts, part.error) == (PartState.FAILED, 3, "h1: no space left")


def test_a_lasting_failure_is_not_tried_again() -> None:
    for report, end in (
        (BAD, PartState.FAILED),
        (MIXED, PartState.PARTIAL),
        (NOBODY, PartState.FAILED),
        (SHORT, PartState.PARTIAL),
    ):
        part = after(leased_part(), Reported(lease_id="a", report=report), job=DetailState.RUNNING, now=5, limits=LIMITS)
        assert (part.state, bool(part.error)) == (end, True)


def test_progress_renews_the_lease_and_figures_never_go_back() -> None:
    part = leased_part(bytes_done=70)
    seen = after(part, Reported(lease_id="a", report=PROGRESS), job=DetailState.RUNNING, now=8_000, limits=LIMITS)
    assert (seen.lease_until, seen.bytes_done, seen.target_count) == (23_000, 70, 2)


def test_workers_that_vanish_again_and_again_end_the_part_with_a_reason() -> None:
    part, now = a_part(), 1_000
    for attempt in range(LIMITS.max_attempts):
        part = after(part, Leased(lease_id=str(attempt), holder="w"), job=DetailState.RUNNING, now=now, limits=LIMITS)
        now = part.lease_until
        assert after(part, LeaseChecked(), job=DetailState.RUNNING, now=now - 1, limits=LIMITS) is part
        part = after(part, LeaseChecked(), job=DetailState.RUNNING, now=now, limits=LIMITS)
        now = max(now, part.not_before)
    assert part.state == PartState.FAILED
    assert "went silent" in part.error


@pytest.mark.parametrize(("away", "attempts"), [(True, 7), (False, 5)])
def test_hosts_that_do_not_answer_are_waited_for_longer_than_those_that_fail(away: bool, attempts: int) -> None:
    part, now, limits = a_part(), 1_000, Limits()
    host = HostResult(
        host_id="h", hostname="h", ip="10.0.0.1", seed=True, state=HostState.FAILED, error="no", retryable=True, away=away
    )
    report = WorkReport(target_count=1, hosts=(host,), outcome=Outcome.DONE)
    while part.state == PartState.WAITING:
        now = max(now, part.not_before)
        part = after(part, Leased(lease_id="a", holder="w"), job=DetailState.RUNNING, now=now, limits=limits)
        part = after(part, Reported(lease_id="a", report=report), job=DetailState.RUNNING, now=now, limits=limits)
    assert (part.state, part.attempts) == (PartState.FAILED, attempts)


def test_a_released_part_goes_on_at_once_and_its_attempt_does_not_count() -> None:
    released = Reported(lease_id="a", report=WorkReport(outcome=Outcome.RELEASED))
    part = after(leased_part(), released, job=DetailState.RUNNING, now=500, limits=LIMITS)
    assert (part.state, part.not_before, part.attempts) == (PartState.WAITING, 500, 0)


def test_cancelling_ends_waiting_parts_at_once_and_leased_ones_when_their_worker_stops_or_vanishes() -> None:
    job = DetailState.CANCELLING
    assert after(a_part(), CancelAsked(), job=job, now=5, limits=LIMITS).state == PartState.CANCELLED
    leased = leased_part()
    assert after(leased, CancelAsked(), job=job, now=5, limits=LIMITS) is leased
    for last in (
        Reported(lease_id="a", report=WorkReport(outcome=Outcome.CANCELLED)),
        Reported(lease_id="a", report=PASSING),
        LeaseChecked(),
        DeadlinePassed(),
    ):
        assert after(leased, last, job=job, now=9_000, limits=LIMITS).state == PartState.CANCELLED


def test_a_part_that_was_complete_when_the_cancel_came_stays_complete() -> None:
    told = Reported(lease_id="a", report=GOOD)
    assert after(leased_part(), told, job=DetailState.CANCELLING, now=5, limits=LIMITS).state == PartState.SUCCEEDED


def test_a_deadline_says_whether_anybody_ever_took_the_part() -> None:
    never = after(a_part(), DeadlinePassed(), job=DetailState.QUEUED, now=5, limits=LIMITS)
    begun = after(leased_part(error="the origin answered 503"), DeadlinePassed(), job=DetailState.RUNNING, now=5, limits=LIMITS)
    assert (never.state, begun.state) == (PartState.TIMED_OUT, PartState.TIMED_OUT)
    assert "no worker" in never.error
    assert "503" in begun.error


def test_reasons_are_one_sentence_with_equal_errors_grouped() -> None:
    said = reason(DetailState.PARTIAL, 9, {"401 Unauthorized": 3, "disk full": 1, "a": 1, "b": 1})
    assert said == "6 of 9 parts failed: 3× 401 Unauthorized; a; b; and 1 other reasons"
    assert len(reason(DetailState.FAILED, 2, {"x" * 3000: 2})) == 1024
    assert reason(DetailState.SUCCEEDED, 2, {}) == ""


def test_waits_double_up_to_the_cap() -> None:
    assert [retry_wait_ms(attempts, LIMITS) for attempts in (0, 1, 2, 3, 4, 5, 99)] == [1000, 1000, 2000, 4000, 8000, 8000, 8000]
