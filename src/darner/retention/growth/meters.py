"""Figures of room and of what waits, for Prometheus, in a registry of their own; `app` serves them.

They are set when a look or a sample is taken, so a scrape reads nothing. Those of the database are the same in every manager:
aggregate with `max`, not with `sum`.
"""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from darner.retention.growth.facts import Facts
from darner.retention.growth.ladder import Stage
from darner.retention.growth.outlook import Outlook
from darner.retention.growth.space import Returned
from darner.retention.growth.values import Sample

_DUE = "darner_retention_"
_GROWTH = "darner_growth_"


class GrowthMeters:
    """Nothing is known at first, and what is not known is not shown."""

    def __init__(self) -> None:
        """No figures yet."""
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self.space = Counter(f"{_GROWTH}vacuum_steps", "steps in which room was given back", registry=self.registry)
        self.longest = self._gauge(f"{_GROWTH}vacuum_longest_step_seconds", "the longest of them in the last pass")
        stages = ", ".join(f"{int(stage)} {stage.word}" for stage in Stage)
        self.stage = self._gauge(f"{_GROWTH}stage", f"how far up the ladder: {stages}")
        self._describe()

    def _describe(self) -> None:
        self._gauge(f"{_DUE}due_rows", "jobs that a sweep would move now (counted up to 250000)", "action")
        self._gauge(f"{_DUE}overdue_seconds", "for how long the oldest of them has been due", "action")
        self._gauge(f"{_DUE}lease_holder", "1 for the manager that holds a lease", "lease", "holder")
        self._gauge(f"{_DUE}held_back", "whether the guard holds removals back until a person confirms them")
        self._gauge(f"{_DUE}paused", "whether sweeps are paused")
        self._gauge(f"{_DUE}export_pending", "jobs that a sink has not acknowledged (counted up to 250000)", "sink")
        self._gauge(f"{_DUE}export_oldest_seconds", "for how long the oldest of them has waited", "sink")
        self._gauge(f"{_DUE}archive_segments", "segments of the archive", "state")
        self._gauge(f"{_DUE}archive_segment_errors", "segments whose last step failed")
        self._gauge(f"{_DUE}clock_skew_seconds", "how far the database's clock is ahead of this machine's")
        self._gauge(f"{_DUE}future_rows", "ended jobs whose end lies in the future")
        self._gauge(f"{_GROWTH}jobs", "jobs by tier (estimated in a long history)", "tier")
        self._gauge(f"{_GROWTH}job_bytes", "about what the jobs of a tier take", "tier")
        self._gauge(f"{_GROWTH}database_bytes", "what the database takes", "part")
        self._gauge(f"{_GROWTH}archive_bytes", "what the archive takes")
        self._gauge(f"{_GROWTH}disk_bytes", "the disk that the data directory is on", "part")
        self._gauge(f"{_GROWTH}per_day_bytes", "what a day adds")
        self._gauge(f"{_GROWTH}limit_bytes", "limits", "limit")
        self._gauge(f"{_GROWTH}limit_used_bytes", "what is used of them", "limit")
        self._gauge(
            f"{_GROWTH}days_to_limit",
            "days until a limit is reached: as likely as not (0.5), or with one chance of ten (0.9)",
            "limit",
            "confidence",
        )
        self._gauge(f"{_GROWTH}sample_timestamp_seconds", "when the last sample was taken")

    def _gauge(self, name: str, told: str, *labels: str) -> Gauge:
        self._gauges[name] = Gauge(name, told, labels, registry=self.registry)
        return self._gauges[name]

    def _set(self, name: str, values: Mapping[Any, float]) -> None:
        """All values of a gauge by its labels (a tuple of words); those of before go."""
        gauge = self._gauges[name]
        gauge.clear()
        for labels, value in values.items():
            gauge.labels(*labels).set(value)

    def returned(self, found: Returned) -> None:
        """A pass gave room back."""
        self.space.inc(found.steps)
        self.longest.set(found.longest_s)

    def told(self, facts: Facts) -> None:
        """What only the database knows."""
        self._set(f"{_DUE}due_rows", {(action,): one.rows for action, one in facts.due.items()})
        self._set(f"{_DUE}overdue_seconds", {(action,): one.seconds for action, one in facts.due.items()})
        self._set(f"{_DUE}lease_holder", dict.fromkeys(facts.holders.items(), 1.0))
        self._set(f"{_DUE}export_pending", {(sink,): one.rows for sink, one in facts.export.items()})
        self._set(f"{_DUE}export_oldest_seconds", {(sink,): one.seconds for sink, one in facts.export.items()})
        self._set(f"{_DUE}archive_segments", {(state,): float(count) for state, count in facts.segments.items()})
        for name, value in (
            (f"{_DUE}held_back", facts.held_back),
            (f"{_DUE}paused", facts.paused),
            (f"{_DUE}archive_segment_errors", facts.segment_errors),
            (f"{_DUE}clock_skew_seconds", facts.skew_s),
            (f"{_DUE}future_rows", facts.future),
        ):
            self._gauges[name].set(float(value))

    def drawn(self, sample: Sample, seen: Outlook) -> None:
        """There is a new sample, and a forecast."""
        counts, sizes = sample.counts, sample.sizes
        self._set(f"{_GROWTH}jobs", {(tier,): float(rows) for tier, rows in counts.tiers.items()})
        self._set(f"{_GROWTH}job_bytes", {(tier,): float(size) for tier, size in counts.tier_bytes.items()})
        parts = {("live",): float(sizes.live), ("reclaimable",): float(sizes.reclaimable)}
        self._set(f"{_GROWTH}database_bytes", {**parts, ("log",): float(sizes.log)} if sizes.log is not None else parts)
        disk = {("size",): float(sample.disk.bytes), ("free",): float(sample.disk.free)} if sample.disk else {}
        self._set(f"{_GROWTH}disk_bytes", disk)
        self._set(f"{_GROWTH}limit_bytes", {(one.name,): float(one.most) for one in seen.limits})
        self._set(f"{_GROWTH}limit_used_bytes", {(one.name,): float(one.used) for one in seen.limits})
        days = {
            (one.name, word): value for one in seen.limits for word, value in (("0.5", one.outlook.p50), ("0.9", one.outlook.p90))
        }
        self._set(f"{_GROWTH}days_to_limit", {labels: value for labels, value in days.items() if value is not None})
        self._gauges[f"{_GROWTH}archive_bytes"].set(sample.archive_bytes)
        self._gauges[f"{_GROWTH}sample_timestamp_seconds"].set(sample.at / 1000)
        if seen.growth.per_day is not None:
            self._gauges[f"{_GROWTH}per_day_bytes"].set(seen.growth.per_day)
