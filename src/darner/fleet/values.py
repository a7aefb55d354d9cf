"""Rows of the fleet as values: what the lists show beyond what travels over gRPC. Times in unix milliseconds."""

from dataclasses import dataclass

from darner.core.fleet import ClusterInfo, SchedulerInfo
from darner.core.work import SeenHost


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRow:
    """A cluster. `active`: one of its schedulers has been heard of lately."""

    info: ClusterInfo
    is_default: bool
    active: bool
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerRow:
    """A scheduler as it registered."""

    info: SchedulerInfo
    config: str
    last_keep_alive_at: int | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """A host as its cluster's workers saw it; `active`: they saw it lately."""

    id: int
    cluster_id: int
    host: SeenHost
    active: bool
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFilter:
    """Which hosts a list is about; None or empty means any."""

    seed: bool | None = None
    cluster_id: int | None = None
    hostname: str = ""
    ip: str = ""
