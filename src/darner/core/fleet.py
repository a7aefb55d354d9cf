"""Clusters and schedulers as the manager tells them (manager.v2.Scheduler, SchedulerCluster)."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """A scheduler cluster. The configs are JSON bytes, passed on as they are."""

    id: int
    name: str
    bio: str = ""
    config: bytes = b"{}"
    client_config: bytes = b"{}"
    seed_client_config: bytes = b"{}"
    scopes: bytes = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerInfo:
    """A scheduler and its cluster. `state` is `active` or `inactive`."""

    id: int
    hostname: str
    ip: str
    port: int
    scheduler_cluster_id: int
    state: str = "active"
    idc: str = ""
    location: str = ""
    features: tuple[str, ...] = ("schedule", "preheat")
    cluster: ClusterInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerQuery:
    """Who asks for schedulers (manager.v2.ListSchedulersRequest). `scheduler_cluster_id` 0 = let the manager choose."""

    hostname: str
    ip: str
    seed: bool = False
    idc: str = ""
    location: str = ""
    version: str = ""
    scheduler_cluster_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationInfo:
    """An application's priority, and those of its URL patterns (regex, priority)."""

    id: int
    name: str
    url: str
    bio: str = ""
    priority: int = 0
    urls: tuple[tuple[str, int], ...] = field(default=())
