"""The scheduler's configuration: upstream's `scheduler.yaml` keys and code defaults (scheduler.md, section 18), and Darner's own.

Darner's own keys: `patience`, `parentPatience`, `wave`, `seedGrace`, `seedFailureMemory`, `originAttempts`, the limits that
upstream reads from its dynamic configuration, `manager.tokenFile` and `worker`. Upstream's `backToSourceCount`, `retryLimit` and
`retryInterval` have no counterpart: one peer goes to the origin, and waiting peers are told when there is something to tell.
"""

from dataclasses import dataclass
from pathlib import Path

from darner.kit.config import setting

DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where the scheduler listens, and how others reach it. Names as upstream spells them."""

    advertiseIP: str = setting("", "address that daemons and the manager are told; empty: the one of the default route")  # noqa: N815
    advertisePort: int = setting(0, "port that they are told; 0: the port it listens on")  # noqa: N815
    listenIP: str = setting("0.0.0.0", "address to listen on")  # noqa: N815, S104  (upstream's default; daemons must reach it)
    port: int = setting(8002, "port to listen on")
    host: str = setting("", "name of this scheduler; empty: the system's host name")


@dataclass(frozen=True, slots=True, kw_only=True)
class GCConfig:
    """When peers, tasks and hosts are forgotten. Times in seconds."""

    piece_download_timeout: float = setting(1800.0, "a loading peer that reports no piece for so long is dropped", unit="duration")
    peerGCInterval: float = setting(10.0, "how often peers are looked through", unit="duration")  # noqa: N815
    peerTTL: float = setting(DAY_S, "a peer of which nothing was heard for so long is dropped", unit="duration")  # noqa: N815
    taskGCInterval: float = setting(1800.0, "how often tasks without peers are dropped", unit="duration")  # noqa: N815
    hostGCInterval: float = setting(300.0, "how often silent hosts are dropped", unit="duration")  # noqa: N815
    hostTTL: float = setting(3600.0, "a host of which nothing was heard for so long loses its peers", unit="duration")  # noqa: N815


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingConfig:
    """How peers are matched. Times in seconds."""

    algorithm: str = setting("default", "how parents are rated; only `default` is known")
    candidate_parent_limit: int = setting(3, "parents per answer")
    filter_parent_limit: int = setting(15, "parents that are rated per answer")
    load_limit: int = setting(200, "children that an ordinary host serves at the same time")
    seed_load_limit: int = setting(2000, "children that a seed serves at the same time")
    retry_back_to_source_limit: int = setting(4, "answers a peer is given before it is sent to the origin")
    origin_attempts: int = setting(4, "failed visits to the origin in a row before all that wait are told the error")
    patience: float = setting(
        60.0, "how long a peer waits for one that shows no progress before the origin is asked", unit="duration"
    )
    parent_patience: float = setting(360.0, "a loading peer without a new piece for so long is not offered", unit="duration")
    wave: int = setting(8, "waiting peers that are released whenever one more parent becomes available")
    seed_grace: float = setting(3.0, "how long a peer waits for the first health check of a new seed", unit="duration")
    seed_failure_memory: float = setting(1800.0, "how long a seed that failed a task is not asked for it again", unit="duration")
    peers_per_task: int = setting(300, "above so many peers of a task, finished ones that serve nobody are dropped")
    gc: GCConfig = setting(GCConfig(), "when things are forgotten")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Where this scheduler stands."""

    idc: str = setting("", "data centre, free text")
    location: str = setting("", "place as a|b|c, from large to small")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAliveConfig:
    """Signs of life to the manager."""

    interval: float = setting(5.0, "seconds between two signs of life", unit="duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """The manager, which may be absent."""

    addr: str = setting("", "gRPC address of the manager; empty: none")
    schedulerClusterID: int = setting(1, "the cluster this scheduler belongs to")  # noqa: N815
    keep_alive: KeepAliveConfig = setting(KeepAliveConfig(), "signs of life")
    token_file: Path | None = setting(None, "file with the token of scope `scheduler`")


@dataclass(frozen=True, slots=True, kw_only=True)
class DynConfig:
    """What is read again from the manager."""

    refresh_interval: float = setting(60.0, "how often applications and their priorities are read", unit="duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPeerConfig:
    """How seeds are used."""

    task_download_timeout: float = setting(10 * 3600.0, "how long a seed may take for one task", unit="duration")
    health_interval: float = setting(30.0, "how often the health of each seed is checked", unit="duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The worker of jobs that may run beside the scheduler in its process."""

    enable: bool = setting(default=False, doc="run a worker in this process")
    manager: str = setting("", "HTTP address of the manager")
    token_file: Path | None = setting(None, "file with the token of scope `worker`")
    scheduler: str = setting("", "gRPC address of the scheduler; empty: this one")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Everything in `scheduler.yaml`."""

    server: ServerConfig = setting(ServerConfig(), "where it listens")
    scheduler: SchedulingConfig = setting(SchedulingConfig(), "how peers are matched")
    host: HostConfig = setting(HostConfig(), "where it stands")
    manager: ManagerConfig = setting(ManagerConfig(), "the manager")
    dyn_config: DynConfig = setting(DynConfig(), "what is read again")
    seed_peer: SeedPeerConfig = setting(SeedPeerConfig(), "seeds")
    worker: WorkerConfig = setting(WorkerConfig(), "the worker of jobs")
