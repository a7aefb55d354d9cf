"""Which sentences a job's timeline tells. Plain functions: two states in, a kind and a message out."""

from collections.abc import Callable
from dataclasses import dataclass

from darner.core.job import DetailState, PartState
from darner.jobs.events import Job, Part

MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A timeline line about to be stored."""

    kind: str
    message: str
    part_id: int | None = None


def name_of(part: Part) -> str:
    """How people call a part: its file or blob, and the cluster."""
    tail = part.url.split("?")[0].rstrip("/").rsplit("/", 1)[-1] or part.url
    return f"{tail[:80]} in cluster {part.cluster_id}"


def part_line(before: Part, after: Part) -> Line | None:
    """What is told of a part's change; None if its state is the same."""
    if before.state == after.state:
        return None
    name = name_of(after)
    kind, message = _PART_TEXT[after.state](before, after, name)
    return Line(kind=kind, message=message[:MAX_MESSAGE], part_id=after.id)


def _hosts(part: Part) -> str:
    count = len(part.hosts)
    unverified = "" if part.verified else ", not verified by the host itself"
    return f"{count} host{'' if count == 1 else 's'}{unverified}"


_PART_TEXT: dict[PartState, Callable[[Part, Part, str], tuple[str, str]]] = {
    PartState.LEASED: lambda _b, a, name: ("part_started", f"{a.lease_holder} started {name}, attempt {a.attempts}"),
    PartState.WAITING: lambda _b, a, name: (
        "part_again",
        f"{name} is handed out again in {max(a.not_before - a.updated_at, 0) / 1000:g} s: {a.error or 'its worker gave it back'}",
    ),
    PartState.SUCCEEDED: lambda _b, a, name: ("part_finished", f"{name} is complete on {_hosts(a)}"),
    PartState.PARTIAL: lambda _b, a, name: ("part_failed", f"{name}: {a.error}"),
    PartState.FAILED: lambda _b, a, name: ("part_failed", f"{name}: {a.error}"),
    PartState.TIMED_OUT: lambda _b, a, name: ("part_failed", f"{name}: {a.error}"),
    PartState.CANCELLED: lambda _b, _a, name: ("part_cancelled", f"{name} was cancelled"),
}

_JOB_TEXT = {
    DetailState.QUEUED: "queued",
    DetailState.RUNNING: "running",
    DetailState.CANCELLING: "being cancelled",
    DetailState.SUCCEEDED: "succeeded: every target host holds every byte",
    DetailState.FAILED: "failed",
    DetailState.PARTIAL: "partly done",
    DetailState.TIMED_OUT: "timed out",
    DetailState.CANCELLED: "cancelled",
}


def job_line(before: DetailState, job: Job) -> Line | None:
    """What is told of a job's change of state; None if it is the same."""
    if before == job.state:
        return None
    text = _JOB_TEXT[job.state]
    return Line(kind="state", message=f"{job.state}: {text}{f': {job.error}' if job.error else ''}"[:MAX_MESSAGE])
