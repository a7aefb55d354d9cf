"""Values of the jobs room: what is asked for, what is stored, and what can happen to a part.

Times are unix milliseconds of the database's clock (`*_at`, `*_until`), sizes bytes. Nothing here decides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from darner.core.job import DetailState, Importance, JobType, PartState, Tier
from darner.core.task import DEFAULT_PRIORITY, Headers
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS
from darner.core.work import HostResult, TargetRule, WorkReport

IMAGE = "image"
FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A checked request. `source` is `image` or `file`; `username`, `password` and `headers` are secret."""

    type: JobType
    source: str
    urls: tuple[str, ...]
    cluster_ids: tuple[int, ...] | None
    target: TargetRule
    timeout_s: float
    platforms: tuple[str, ...] = ()
    piece_length: int | None = None
    tag: str = ""
    application: str = ""
    filtered_query_params: tuple[str, ...] = DEFAULT_FILTERED_QUERY_PARAMS
    headers: Headers = field(default_factory=Headers)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    content_for_calculating_task_id: str = ""
    priority: int = DEFAULT_PRIORITY
    concurrent_task_count: int = 8
    bio: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    importance: Importance = Importance.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job about to be stored: public facts, the redacted args, and the sealed secrets."""

    uuid: str
    type: JobType
    owner: str
    summary: str
    bio: str
    tag: str
    application: str
    priority: int
    timeout_ms: int
    cluster_ids: tuple[int, ...]
    args: Mapping[str, Any]
    sealed: bytes = field(repr=False)
    idempotency_key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    importance: Importance = Importance.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One thing to have on the hosts: a file or a blob. `url` may be shown; the real one is in the job's secrets."""

    url: str
    digest: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The narrow row of a job."""

    id: int
    uuid: str
    type: str
    state: DetailState
    owner: str
    cluster_count: int
    part_count: int
    part_done: int
    part_failed: int
    bytes_total: int
    bytes_done: int
    summary: str
    error: str
    tag: str
    application: str
    priority: int
    bio: str
    created_at: int
    updated_at: int
    deadline_at: int
    started_at: int | None = None
    finished_at: int | None = None
    base_at: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    importance: Importance = Importance.NORMAL
    clusters: tuple[int, ...] = ()
    tier: Tier = Tier.HOT
    held: bool = False
    hold_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The share of a job that one cluster carries out for one content."""

    id: int
    job_id: int
    cluster_id: int
    ordinal: int
    url: str
    state: PartState
    created_at: int
    updated_at: int
    not_before: int
    digest: str = ""
    size_bytes: int = 0
    target_count: int = 0
    attempts: int = 0
    lease_id: str = ""
    lease_holder: str = ""
    lease_until: int = 0
    bytes_done: int = 0
    piece_count: int = 0
    pieces_done: int = 0
    error: str = ""
    verified: bool = False
    hosts: tuple[HostResult, ...] = ()
    started_at: int | None = None
    finished_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEvent:
    """One line of a job's timeline."""

    id: int
    job_id: int
    part_id: int | None
    at: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Everything about one job that is not a list of its own."""

    job: Job
    args: Mapping[str, Any]
    result: Mapping[str, Any] | None
    cluster_ids: tuple[int, ...]


# What can happen to a part. The order in which these arrive is nobody's to choose: workers die, messages double and come late.


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A worker took the part."""

    lease_id: str
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The holder of a lease, or one who was it once, tells how far the part is or how it ended."""

    lease_id: str
    report: WorkReport


@dataclass(frozen=True, slots=True)
class LeaseChecked:
    """Somebody looked whether the lease has run out."""


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A person wants the job to stop."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The job's deadline is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The part can't be carried out at all, e.g. because its secrets can't be read."""

    reason: str


PartEvent = Leased | Reported | LeaseChecked | CancelAsked | DeadlinePassed | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the state machine needs of the configuration, in milliseconds."""

    lease_ms: int = 15_000
    max_attempts: int = 5
    patience_ms: int = 45_000
    retry_first_ms: int = 1_000
    retry_cap_ms: int = 30_000


# What a person can do to a job.


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop it."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it, whatever the retention policy says, to `until` (unix ms) or a release. One that was removed is shown again."""

    reason: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Let the retention policy decide again."""


@dataclass(frozen=True, slots=True)
class Describe:
    """Change its description."""

    bio: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Hide it, if it has ended and is not held; for a while it can be restored."""


Action = Cancel | Hold | Release | Describe | Remove


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a planner found out: contents and the packed, sealed request with the registry's headers; or why there are none."""

    contents: tuple[Content, ...] = ()
    sealed: bytes | None = field(default=None, repr=False)
    error: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedPart:
    """A part as it was just handed out, with what the order needs. `now`: the database's time."""

    part: Part
    job: Job
    sealed: bytes = field(repr=False)
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of a report: for the worker, and which job changed."""

    accepted: bool
    cancel: bool
    job_id: int | None = None


class JobPage(list[tuple[Job, dict[str, Any]]]):
    """Jobs of a list with their redacted args.

    `stopped_at`: the place (created_at, id) of the last job that a search for text looked at before the page was full, because a
    page may cost only so much; it goes on with `before_id`. `missing`: what could not be looked into, in a sentence.
    """

    def __init__(
        self, jobs: Iterable[tuple[Job, dict[str, Any]]] = (), *, stopped_at: tuple[int, int] | None = None, missing: str = ""
    ) -> None:
        """In the order of the list."""
        super().__init__(jobs)
        self.stopped_at = stopped_at
        self.missing = missing


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs a list shows, newest first. Times are unix ms; `text` is looked for in summary, error and description.

    `tiers` empty: all but deleted jobs; those are shown only when asked for. With an offset the archive is left out.
    """

    states: tuple[DetailState, ...] = ()
    tiers: tuple[Tier, ...] = ()
    type: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    text: str = ""
    cluster_id: int | None = None
    owner: str = ""
    before_id: int | None = None
    offset: int = 0
    limit: int = 10
