"""What the export tells others, and what it hands to sinks. Times in unix milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A row of the outbox that is due. `attempts`: how often the sink has refused it."""

    id: int
    job_id: int
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One job as a sink gets it. `key` is the same however often it is sent; `body`: JSON in one line, without the line's end.

    `at`: when the job ended; `failed`: whether it did not do all that was asked; `facts`: few words for sinks that index some.
    """

    key: str
    job_id: int
    at: int
    failed: bool
    facts: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A sink that takes nothing at present: since when, the last time, how many times, and why."""

    since: int | None
    at: int | None
    times: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A job that a sink refuses while it takes others; tried again at `next_at`."""

    job_id: int
    attempts: int
    next_at: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkBacklog:
    """How things stand with a sink. `pending` jobs wait for it (a million: or more), `refused` of them were tried and not taken.

    `configured` False: rules name it or jobs wait for it, but the configuration does not have it. `lost`: removed by a person
    before they were delivered. `refusals`: some of the refused. `now`: by the database's clock, for ages.
    """

    name: str
    kind: str
    configured: bool
    pending: int
    oldest_at: int | None
    refused: int
    delivered: int
    lost: int
    acked_at: int | None
    failing: Failing | None
    last_error: str
    last_error_at: int | None
    refusals: tuple[Refused, ...] = field(default=())
    now: int = 0

    @property
    def oldest_age_s(self) -> float:
        """How long the job that has waited longest has waited; 0 when none waits."""
        return 0.0 if self.oldest_at is None else max(0, self.now - self.oldest_at) / 1000
