"""What the room tells others: policy versions, runs, reports. Times in unix milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from darner.retention.policy import Policy


class RunState(StrEnum):
    """How a sweep stands. HELD: it did nothing, because something must be looked at first."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    HELD = "HELD"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """A policy with its history."""

    version: int
    policy: Policy
    origin: str
    created_at: int
    created_by: str
    reason: str
    confirmed_at: int | None = None
    confirmed_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One sweep. `examined`: rows looked at; `classified`: rows sorted into another class; `report`: of a dry run.

    Jobs moved: `folded` (hot to warm), `archived`, `hidden` (can be restored), `removed` (gone); `bytes`: what they took.
    """

    id: int
    policy_version: int | None
    trigger: str
    dry_run: bool
    state: str
    holder: str
    epoch: int
    started_at: int
    finished_at: int | None
    classified: int
    examined: int
    folded: int
    archived: int
    hidden: int
    removed: int
    bytes: int
    error: str
    report: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What one transaction moved: how many jobs, when they had ended, and a digest of their ids; nothing of their content."""

    id: int
    run_id: int
    rule: str
    action: str
    at: int
    removed: int
    bytes: int
    policy_version: int | None
    epoch: int
    oldest_at: int
    newest_at: int
    ids_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRow:
    """A hold: on one job, or on all jobs that match. `until`: when it ends by itself; None: when a person ends it."""

    id: int
    job_id: int | None
    match: Mapping[str, Any] | None
    reason: str
    created_at: int
    created_by: str
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where the next batch begins: after this job, in order of (base_at, id)."""

    base_at: int = 0
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one transaction did. `cursor` None: nothing is left."""

    examined: int = 0
    changed: int = 0
    bytes: int = 0
    cursor: Cursor | None = field(default=None)
