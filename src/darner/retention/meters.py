"""Figures of the sweeper for Prometheus, in a registry of their own; `app` serves them."""

from prometheus_client import CollectorRegistry, Counter, Gauge

_PREFIX = "darner_retention_"


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
        self.failures = Counter(f"{_PREFIX}work_failures", "works that failed, by work", ["work"], registry=self.registry)
        self.seconds = Gauge(f"{_PREFIX}last_sweep_seconds", "how long the last sweep took", registry=self.registry)
        self.held = Gauge(f"{_PREFIX}held_rows", "jobs whose removal waits for a person's confirmation", registry=self.registry)
        self.last = Gauge(f"{_PREFIX}last_sweep_timestamp_seconds", "when this process last swept", registry=self.registry)

    def ended(self, state: str, seconds: float) -> None:
        """A sweep ended."""
        self.sweeps.labels(state).inc()
        self.seconds.set(seconds)
        self.last.set_to_current_time()

    def moved(self, work: str, rows: int, freed: int) -> None:
        """A batch of a work, named without what differs by rule."""
        if rows:
            self.rows.labels(work.partition(":")[0]).inc(rows)
            self.freed.labels(work.partition(":")[0]).inc(freed)
