"""Limits and forecasts drawn from samples: of the budget, and of the disk. Plain functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from darner.retention.growth.adjust import archives_earlier, folds_earlier
from darner.retention.growth.budget import Budget, Kind
from darner.retention.growth.forecast import DAY_MS, DAYS, Forecast, forecast
from darner.retention.growth.ladder import Reading
from darner.retention.growth.values import Disk, Sample
from darner.retention.policy import Policy

# How far back samples are read for a forecast.
SPAN_MS = (DAYS + 1) * DAY_MS
ARCHIVE_DISK = "archive disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`name`: budget, disk or archive disk; `used` of `most`, in bytes."""

    name: str
    used: int
    most: int
    outlook: Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """All limits that are known. `growth`: of the history, whether or not there is a limit."""

    growth: Forecast
    limits: tuple[Limit, ...] = ()

    @property
    def days(self) -> float | None:
        """Until the nearest limit that the ladder can do something about is reached, nine times of ten not before."""
        days = [one.outlook.p90 for one in self.limits if one.name != ARCHIVE_DISK and one.outlook.p90 is not None]
        return min(days, default=None)


def outlook(samples: Sequence[Sample], budget: Budget | None, *, now_ms: int) -> Outlook:
    """From the samples of the last weeks, oldest first, at least one."""
    last, recent = samples[-1], [one for one in samples if one.at >= now_ms - SPAN_MS]
    used = [(one.at, float(one.used)) for one in recent]
    limits = []
    if budget is not None and budget.kind == Kind.AT_MOST:
        told = forecast(used, limit=budget.bytes, now_ms=now_ms)
        limits.append(Limit(name="budget", used=last.used, most=budget.bytes, outlook=told))
    if last.disk is not None:
        disks = [(one.at, one.disk) for one in recent if one.disk is not None]
        limits.append(_of_disk("disk", disks, last.disk.bytes - keep_free(budget, last.disk), now_ms))
    if last.archive_disk is not None:
        disks = [(one.at, one.archive_disk) for one in recent if one.archive_disk is not None]
        limits.append(_of_disk(ARCHIVE_DISK, disks, last.archive_disk.bytes, now_ms))
    return Outlook(growth=forecast(used, limit=None, now_ms=now_ms), limits=tuple(limits))


def _of_disk(name: str, disks: Sequence[tuple[int, Disk]], most: int, now_ms: int) -> Limit:
    taken = [(at, float(disk.bytes - disk.free)) for at, disk in disks]
    return Limit(name=name, used=int(taken[-1][1]), most=most, outlook=forecast(taken, limit=most, now_ms=now_ms))


def keep_free(budget: Budget | None, disk: Disk) -> int:
    """What a budget wants free of the disk."""
    return budget.free_bytes(disk.bytes) if budget is not None and budget.kind == Kind.KEEP_FREE else 0


def reading(
    *, used: int, disk: Disk | None, budget: Budget | None, policy: Policy | None, seen: Outlook | None, full: bool
) -> Reading:
    """How things stand, for the ladder. `policy`: the one in force, as people set it."""
    return Reading(
        used=used,
        limit=budget.bytes if budget is not None and budget.kind == Kind.AT_MOST else None,
        disk=disk.bytes if disk else None,
        free=disk.free if disk else None,
        keep_free=keep_free(budget, disk) if disk and budget else None,
        days=seen.days if seen else None,
        full=full,
        folds=policy is not None and folds_earlier(policy),
        archives=policy is not None and archives_earlier(policy),
        shortens=budget is not None and budget.shorten is not None,
    )
