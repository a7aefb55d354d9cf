"""The daemon's configuration: upstream's `dfdaemon.yaml` keys and defaults (daemon.md, section 16), but for some deviations.

Deviations: socket mode 0600 at /var/run/darner/daemon.sock, `storage.keep` true and storage below /var/lib/darner, TLS of origins
verified, `download.concurrentPieceCount` 4 (measured), blob-digest task ids on for the mirror, no pprof port.
"""

from dataclasses import dataclass
from pathlib import Path

from darner.kit.config import setting

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Who this machine is in the swarm."""

    idc: str = setting("", "data centre, free text")
    location: str = setting("", "place as a|b|c, from large to small")
    hostname: str = setting("", "name of the host; empty: the system's")
    ip: str = setting("", "address that other peers reach; empty: the one of the default route")
    schedulerClusterID: int = setting(0, "cluster to ask the manager for; 0: let the manager choose")  # noqa: N815


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketConfig:
    """The unix socket of local callers."""

    socket_path: Path = setting(Path("/var/run/darner/daemon.sock"), "where local callers reach the daemon")
    mode: str = setting("0600", "file mode of the socket, octal")
    group: str = setting("", "group that owns the socket; empty: unchanged")


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadConfig:
    """How this daemon loads."""

    server: SocketConfig = setting(SocketConfig(), "the unix socket")
    bandwidth_limit: int = setting(50_000_000_000, "bytes per second from parents and origins; 0: unlimited", unit="size")
    back_to_source_bandwidth_limit: int = setting(50_000_000_000, "bytes per second from origins; 0: unlimited", unit="size")
    concurrent_piece_count: int = setting(4, "pieces of one task that are loaded at the same time")
    total_concurrent_piece_count: int = setting(16, "pieces of all tasks that are loaded at the same time")
    piece_timeout: float = setting(360.0, "a piece that takes longer is given up", unit="duration")
    collected_piece_timeout: float = setting(360.0, "parents that offer nothing new for so long are given up", unit="duration")
    last_asker_grace: float = setting(5.0, "how long a download goes on after its last asker has left", unit="duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadServerConfig:
    """The upload gRPC port, for other peers and schedulers."""

    ip: str = setting("0.0.0.0", "address to listen on")  # noqa: S104  (upstream's default; other hosts must reach it)
    port: int = setting(4000, "port to listen on")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfig:
    """How this daemon serves."""

    server: UploadServerConfig = setting(UploadServerConfig(), "the upload gRPC port")
    disable_shared: bool = setting(default=False, doc="announce that this host is never offered as a parent")
    bandwidth_limit: int = setting(50_000_000_000, "bytes per second to children; 0: unlimited", unit="size")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """Where schedulers are asked for."""

    addr: str = setting("", "gRPC address of the manager; empty: `scheduler.addrs` is used")
    token_file: Path | None = setting(None, "file with a token for the manager, when it wants one")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """How schedulers are talked to."""

    addrs: tuple[str, ...] = setting((), "fixed schedulers (ip:port) when no manager is set")
    announce_interval: float = setting(300.0, "between two announcements of this host", unit="duration")
    schedule_timeout: float = setting(10_800.0, "longest wait for an answer of the scheduler", unit="duration")
    max_schedule_count: int = setting(5, "answers of the scheduler per download, then the origin")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPeerConfig:
    """Whether this daemon may be sent to the origin first."""

    enable: bool = setting(default=False, doc="this daemon is a seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class DynconfigConfig:
    """How often the list of schedulers is refreshed."""

    refresh_interval: float = setting(60.0, "between two questions to the manager", unit="duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageServerConfig:
    """The piece server."""

    ip: str = setting("0.0.0.0", "address to listen on")  # noqa: S104  (upstream's default; other hosts must reach it)
    tcp_port: int = setting(4005, "port of pieces over TCP")
    max_connections: int = setting(512, "open connections of children; more are turned away")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """Where pieces rest."""

    server: StorageServerConfig = setting(StorageServerConfig(), "the piece server")
    dir: Path = setting(Path("/var/lib/darner"), "directory of content and metadata")
    keep: bool = setting(default=True, doc="keep content across restarts")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """How origins are talked to."""

    request_header: dict[str, str] = setting({}, "headers added to every request to an origin")
    max_retries: int = setting(3, "more attempts after a failure that may pass")
    ca_file: Path | None = setting(None, "certificate authorities for origins; none: the system's")
    insecure_skip_verify: bool = setting(default=False, doc="do not verify the certificates of origins")
    allow_loopback: bool = setting(default=False, doc="origins on this machine may be dialled")
    allow_private: bool = setting(default=True, doc="origins in private networks may be dialled")
    timeout: float = setting(30.0, "longest silence of an origin", unit="duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPolicyConfig:
    """What is evicted."""

    taskTTL: float = setting(2_592_000.0, "a task unused for so long is evicted", unit="duration")  # noqa: N815
    disk_threshold: int = setting(0, "most bytes kept; 0: no limit of our own", unit="size")
    disk_high_threshold_percent: float = setting(80.0, "share of the disk in use at which eviction begins; 0: never")
    disk_low_threshold_percent: float = setting(60.0, "share of the disk at which eviction stops")


@dataclass(frozen=True, slots=True, kw_only=True)
class GcConfig:
    """When the store is tidied."""

    interval: float = setting(900.0, "between two rounds", unit="duration")
    policy: GcPolicyConfig = setting(GcPolicyConfig(), "what is evicted")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyServerConfig:
    """The mirror's HTTP port."""

    ip: str = setting("0.0.0.0", "address to listen on")  # noqa: S104  (upstream's default)
    port: int = setting(4001, "port to listen on")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryMirrorConfig:
    """Which registry stands behind the mirror."""

    addr: str = setting("https://index.docker.io", "registry for requests that name none")
    enableTaskIDBasedBlobDigest: bool = setting(default=True, doc="a blob's task id is its digest, whatever the host")  # noqa: N815
    insecure: tuple[str, ...] = setting((), "registries (host or host:port) spoken to without TLS; loopback ones always are")
    skip_auth_check: tuple[str, ...] = setting((), "registries whose cached blobs anyone may have, without asking the registry")
    auth_cache_ttl: float = setting(60.0, "how long a registry's yes or no to a client is remembered, at most 60s", unit="duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """The registry mirror."""

    enable: bool = setting(default=True, doc="serve the mirror")
    server: ProxyServerConfig = setting(ProxyServerConfig(), "the HTTP port")
    registry_mirror: RegistryMirrorConfig = setting(RegistryMirrorConfig(), "the registries behind it")
    disable_back_to_source: bool = setting(default=False, doc="never load a blob from the registry itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortConfig:
    """A small HTTP port."""

    ip: str = setting("0.0.0.0", "address to listen on")  # noqa: S104  (upstream's default)
    port: int = setting(0, "port to listen on")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """GET /healthy."""

    server: PortConfig = setting(PortConfig(port=4003), "the HTTP port")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """GET /metrics."""

    server: PortConfig = setting(PortConfig(port=4002), "the HTTP port")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """Everything the daemon is told before it starts."""

    host: HostConfig = setting(HostConfig(), "this machine")
    download: DownloadConfig = setting(DownloadConfig(), "loading")
    upload: UploadConfig = setting(UploadConfig(), "serving")
    manager: ManagerConfig = setting(ManagerConfig(), "the manager")
    scheduler: SchedulerConfig = setting(SchedulerConfig(), "schedulers")
    seed_peer: SeedPeerConfig = setting(SeedPeerConfig(), "being a seed")
    dynconfig: DynconfigConfig = setting(DynconfigConfig(), "the list of schedulers")
    storage: StorageConfig = setting(StorageConfig(), "the store and the piece server")
    backend: BackendConfig = setting(BackendConfig(), "origins")
    gc: GcConfig = setting(GcConfig(), "tidying")
    proxy: ProxyConfig = setting(ProxyConfig(), "the registry mirror")
    health: HealthConfig = setting(HealthConfig(), "the health port")
    metrics: MetricsConfig = setting(MetricsConfig(), "the metrics port")
