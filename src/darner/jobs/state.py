"""What becomes of a part when something happens to it, and what the parts together make of their job. Plain functions.

`after(part, event, …)` returns the part as it is then; the very same object means that nothing happened. `fold` reads only counts
of part states, so no order of messages can change its result. End states are never left.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from darner.core.job import END_STATES, PART_END_STATES, DetailState, PartState
from darner.core.work import HostResult, HostState, Outcome, WorkReport
from darner.jobs.events import (
    CancelAsked,
    DeadlinePassed,
    Job,
    LeaseChecked,
    Leased,
    Limits,
    Part,
    PartEvent,
    Refused,
    Reported,
)

MAX_ERROR = 1024
SHOWN_REASONS = 3


def after(part: Part, event: PartEvent, *, job: DetailState, now: int, limits: Limits) -> Part:
    """The part after `event` at `now` (unix ms), in a job that is in state `job`. The same object if the event changes nothing."""
    if part.state in PART_END_STATES:
        return part
    match event:
        case Leased():
            return _leased(part, event, job=job, now=now, limits=limits)
        case Reported():
            return _reported(part, event, job=job, now=now, limits=limits)
        case LeaseChecked():
            return _lost(part, job=job, now=now, limits=limits)
        case CancelAsked():
            return _ended(part, PartState.CANCELLED, now=now) if part.state == PartState.WAITING else part
        case DeadlinePassed():
            return _timed_out(part, job=job, now=now)
        case Refused():
            return _ended(part, PartState.FAILED, now=now, error=event.reason)


def may_lease(part: Part, *, job: DetailState, now: int) -> bool:
    """Whether a worker may take the part now."""
    return part.state == PartState.WAITING and part.not_before <= now and job in {DetailState.QUEUED, DetailState.RUNNING}


def is_lost(part: Part, *, now: int) -> bool:
    """Whether the part's worker has been silent for too long."""
    return part.state == PartState.LEASED and part.lease_until <= now


def retry_wait_ms(attempts: int, limits: Limits) -> int:
    """The wait before the next attempt after `attempts` of them: doubling, capped."""
    return min(limits.retry_first_ms << min(max(attempts - 1, 0), 20), limits.retry_cap_ms)


def _leased(part: Part, event: Leased, *, job: DetailState, now: int, limits: Limits) -> Part:
    if not may_lease(part, job=job, now=now):
        return part
    return replace(
        part,
        state=PartState.LEASED,
        lease_id=event.lease_id,
        lease_holder=event.holder,
        lease_until=now + limits.lease_ms,
        attempts=part.attempts + 1,
        bytes_done=0,
        pieces_done=0,
        started_at=part.started_at or now,
        updated_at=now,
    )


def _reported(part: Part, event: Reported, *, job: DetailState, now: int, limits: Limits) -> Part:
    if part.state != PartState.LEASED or part.lease_id != event.lease_id:
        return part
    report = event.report
    seen = _with_figures(part, report, now=now)
    match report.outcome:
        case None:
            return replace(seen, lease_until=now + limits.lease_ms)
        case Outcome.CANCELLED if job == DetailState.CANCELLING:
            return _ended(seen, PartState.CANCELLED, now=now)
        case Outcome.CANCELLED | Outcome.RELEASED:
            # Given back by a worker that stops: not the part's fault, so the attempt does not count.
            return _again(replace(seen, attempts=max(seen.attempts - 1, 0)), job=job, now=now, wait_ms=0)
        case Outcome.DONE:
            return _done(seen, report, job=job, now=now, limits=limits)


def _with_figures(part: Part, report: WorkReport, *, now: int) -> Part:
    # Reports of one lease may arrive out of order: figures only grow.
    return replace(
        part,
        size_bytes=part.size_bytes if report.size_bytes is None else report.size_bytes,
        target_count=max(part.target_count, report.target_count),
        bytes_done=max(part.bytes_done, report.bytes_done),
        piece_count=max(part.piece_count, report.piece_count),
        pieces_done=max(part.pieces_done, report.pieces_done),
        hosts=report.hosts or part.hosts,
        updated_at=now,
    )


def _done(part: Part, report: WorkReport, *, job: DetailState, now: int, limits: Limits) -> Part:
    good = [host for host in report.hosts if host.state == HostState.SUCCEEDED]
    bad = [host for host in report.hosts if host.state != HostState.SUCCEEDED]
    if good and not bad and len(good) >= report.target_count and not report.error:
        return replace(
            _ended(part, PartState.SUCCEEDED, now=now), hosts=report.hosts, verified=all(host.verified for host in good), error=""
        )
    error = report.error or host_reason(bad, len(report.hosts)) or "the worker named no host that holds the content"
    retryable = all(host.retryable for host in bad) if bad else report.retryable
    away = any(host.away for host in bad) if bad else not report.hosts
    patient = away and now - (part.started_at or now) < limits.patience_ms
    if retryable and (patient or part.attempts < limits.max_attempts):
        return _again(part, job=job, now=now, wait_ms=retry_wait_ms(part.attempts, limits), error=error)
    return _ended(part, PartState.PARTIAL if good else PartState.FAILED, now=now, error=error)


def _lost(part: Part, *, job: DetailState, now: int, limits: Limits) -> Part:
    if not is_lost(part, now=now):
        return part
    if part.attempts >= limits.max_attempts and job != DetailState.CANCELLING:
        reason = f"the worker {part.lease_holder} went silent, as did those before it: {part.attempts} attempts in all"
        return _ended(part, PartState.FAILED, now=now, error=reason)
    reason = f"the worker {part.lease_holder} went silent"
    return _again(part, job=job, now=now, wait_ms=retry_wait_ms(part.attempts, limits), error=reason)


def _again(part: Part, *, job: DetailState, now: int, wait_ms: int, error: str = "") -> Part:
    if job == DetailState.CANCELLING:
        return _ended(part, PartState.CANCELLED, now=now)
    return replace(part, state=PartState.WAITING, lease_until=0, not_before=now + wait_ms, error=error[:MAX_ERROR], updated_at=now)


def _timed_out(part: Part, *, job: DetailState, now: int) -> Part:
    if job == DetailState.CANCELLING:
        return _ended(part, PartState.CANCELLED, now=now)
    never = "no worker of its cluster took it before the deadline; is a scheduler of that cluster running?"
    error = never if not part.attempts else f"not done before the deadline{f'; last: {part.error}' if part.error else ''}"
    return _ended(part, PartState.TIMED_OUT, now=now, error=error)


def _ended(part: Part, state: PartState, *, now: int, error: str = "") -> Part:
    return replace(part, state=state, lease_until=0, finished_at=now, updated_at=now, error=error[:MAX_ERROR])


def host_reason(bad: Iterable[HostResult], host_count: int) -> str:
    """One sentence on the hosts that failed, equal errors grouped."""
    failed = list(bad)
    groups = Counter(host.error or "did not finish" for host in failed)
    first = failed[0] if failed else None
    if first is None:
        return ""
    if host_count == 1:
        return f"{first.hostname or first.ip}: {first.error or 'did not finish'}"
    return f"{len(failed)} of {host_count} hosts failed: {grouped(groups)}"


def grouped(groups: Mapping[str, int]) -> str:
    """`2× reason; reason; and 4 other reasons`, the most frequent first."""
    ranked = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count}× {text}" if count > 1 else text for text, count in ranked[:SHOWN_REASONS]]
    if len(ranked) > SHOWN_REASONS:
        shown.append(f"and {len(ranked) - SHOWN_REASONS} other reasons")
    return "; ".join(shown)


# The job.


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many parts of a job are in which state; `begun`: somebody has ever taken one."""

    counts: Mapping[PartState, int]
    begun: bool

    @property
    def total(self) -> int:
        """All parts."""
        return sum(self.counts.values())

    @property
    def open(self) -> int:
        """Parts that have not ended."""
        return sum(count for state, count in self.counts.items() if state not in PART_END_STATES)

    @classmethod
    def of(cls, parts: Iterable[Part]) -> "Tally":
        """Count parts."""
        kept = list(parts)
        return cls(counts=Counter(part.state for part in kept), begun=any(part.attempts for part in kept))


def fold(current: DetailState, tally: Tally) -> DetailState:
    """The state of a job that was `current`, from its parts. A job without parts is not planned yet and stays as it is."""
    if current in END_STATES or not tally.total:
        return current
    counts = tally.counts
    if tally.open:
        if current in {DetailState.CANCELLING, DetailState.RUNNING}:
            return current
        return DetailState.RUNNING if tally.begun or tally.open < tally.total else DetailState.QUEUED
    if counts.get(PartState.CANCELLED):
        return DetailState.CANCELLED
    if counts.get(PartState.TIMED_OUT):
        return DetailState.TIMED_OUT
    succeeded = counts.get(PartState.SUCCEEDED, 0)
    if succeeded == tally.total:
        return DetailState.SUCCEEDED
    return DetailState.PARTIAL if succeeded or counts.get(PartState.PARTIAL) else DetailState.FAILED


def reason(state: DetailState, total: int, errors: Mapping[str, int]) -> str:
    """Why a job did not end well, in one sentence of at most 1024 characters. `errors`: text → how many parts."""
    count = sum(errors.values())
    if state == DetailState.SUCCEEDED:
        return ""
    if state == DetailState.CANCELLED:
        return "cancelled by a person"
    text = grouped(errors) or "no reason was given"
    if state == DetailState.TIMED_OUT:
        text = f"the deadline passed: {text}"
    elif total > 1:
        text = f"{count} of {total} parts failed: {text}"
    return text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 1] + "…"


def check_part(part: Part) -> None:
    """Raise AssertionError if an invariant of a part is broken."""
    ended = part.state in PART_END_STATES
    assert ended == (part.finished_at is not None), part  # noqa: S101
    assert (part.state == PartState.LEASED) == (part.lease_until > 0), part  # noqa: S101
    if part.state == PartState.SUCCEEDED:
        assert part.hosts, part  # noqa: S101
        assert all(host.state == HostState.SUCCEEDED for host in part.hosts), part  # noqa: S101
    if part.state in {PartState.FAILED, PartState.PARTIAL, PartState.TIMED_OUT}:
        assert part.error, part  # noqa: S101


def check_job(job: Job, parts: Iterable[Part]) -> None:
    """Raise AssertionError if a job and its parts do not fit together."""
    kept = list(parts)
    for part in kept:
        check_part(part)
    tally = Tally.of(kept)
    assert job.part_count == len(kept), job  # noqa: S101
    assert (job.state in END_STATES) == (job.finished_at is not None), job  # noqa: S101
    if kept:
        assert (job.state in END_STATES) == (tally.open == 0), job  # noqa: S101
    if job.state == DetailState.SUCCEEDED:
        assert tally.counts == {PartState.SUCCEEDED: len(kept)}, job  # noqa: S101
        assert kept, job  # noqa: S101
    if job.state in END_STATES and job.state != DetailState.SUCCEEDED:
        assert job.error, job  # noqa: S101
