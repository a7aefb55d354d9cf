"""What the daemon counts, in upstream's names (daemon.md, section 18), on a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX = "dragonfly_client_"
_BUCKETS = tuple(float(1 << power) for power in range(24))


class Meters:
    """The daemon's counters."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self.downloads = Counter(f"{PREFIX}download_task", "downloads asked for", registry=self.registry)
        self.download_failures = Counter(f"{PREFIX}download_task_failure", "downloads that failed", registry=self.registry)
        self.running = Gauge(f"{PREFIX}concurrent_download_task", "downloads running", registry=self.registry)
        self.traffic = Counter(f"{PREFIX}download_traffic", "bytes loaded, by where from", ["type"], registry=self.registry)
        self.duration = Histogram(
            f"{PREFIX}download_task_duration_milliseconds", "time of a download", buckets=_BUCKETS, registry=self.registry
        )
        self.stats = Counter(f"{PREFIX}stat_task", "questions about tasks", registry=self.registry)
        self.deletes = Counter(f"{PREFIX}delete_task", "tasks deleted by request", registry=self.registry)
        self.proxy_requests = Counter(f"{PREFIX}proxy_request", "requests to the mirror", registry=self.registry)
        self.proxy_failures = Counter(
            f"{PREFIX}proxy_request_failure", "requests to the mirror that failed", registry=self.registry
        )
        self.proxy_swarm = Counter(
            f"{PREFIX}proxy_request_via_dfdaemon", "mirror requests through the swarm", registry=self.registry
        )
        self.bad_pieces = Counter("darner_daemon_bad_pieces", "pieces refused because of their digest", registry=self.registry)
        self.disk_used = Gauge(f"{PREFIX}disk_usage_space_total", "bytes of the store", registry=self.registry)
