"""Figures of the sweeper for Prometheus, in a registry of their own; `app` serves them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from darner.retention.sweep.work import Done

_PREFIX = "darner_retention_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class SweepMeters:
    """Counted in this process: only the manager that sweeps counts up."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self.sweeps = Counter(f"{_PREFIX}sweeps", "sweeps by how they ended", ["state"], registry=self.registry)
        self.rows = Counter(f"{_PREFIX}rows", "jobs moved, by work", ["work"], registry=self.registry)
        self.freed = Counter(
            f"{_PREFIX}freed_bytes", "bytes that jobs took before they were moved", ["work"], registry=self.registry
        )
        self.hold = Histogram(
            f"{_PREFIX}hold_seconds", "how long batches held locks, by work", ["work"], buckets=_SECONDS, registry=self.registry
        )
        self.wait = Histogram(
            f"{_PREFIX}wait_seconds", "how long batches waited for locks", buckets=_SECONDS, registry=self.registry
        )
        self.failures = Counter(f"{_PREFIX}work_failures", "works that failed, by work", ["work"], registry=self.registry)
        self.seconds = Gauge(f"{_PREFIX}last_sweep_seconds", "how long the last sweep took", registry=self.registry)
        self.held = Gauge(f"{_PREFIX}held_rows", "jobs whose removal waits for a person's confirmation", registry=self.registry)
        self.last = Gauge(f"{_PREFIX}last_sweep_timestamp_seconds", "when this process last swept", registry=self.registry)

    def ended(self, state: str, seconds: float) -> None:
        """A sweep ended."""
        self.sweeps.labels(state).inc()
        self.seconds.set(seconds)
        self.last.set_to_current_time()

    def batch(self, name: str, done: Done) -> None:
        """A batch of a work, named without what differs by rule."""
        work = name.partition(":")[0]
        if done.held_s:
            self.hold.labels(work).observe(done.held_s)
            self.wait.observe(done.waited_s)
        if done.changed:
            self.rows.labels(work).inc(done.changed)
            self.freed.labels(work).inc(done.bytes)
