"""Which tasks may go, and which go first. Plain functions: facts in, ids out; no clock, no disk.

Never a task in use, never one that is unfinished and was touched within a day; oldest use first (daemon.md, section 11).
"""

from collections.abc import Collection, Iterable

from darner.store.records import UNFINISHED_GRACE_S, StoreLimits, TaskRecord

QUOTA_LOW_SHARE = 0.9


def may_go(task: TaskRecord, pinned: Collection[str], now: float) -> bool:
    """Whether a task may be evicted at all."""
    if task.id in pinned:
        return False
    ended = task.finished_at is not None or task.failed_at is not None
    return ended or now - task.used_at > UNFINISHED_GRACE_S


def expired(tasks: Iterable[TaskRecord], pinned: Collection[str], limits: StoreLimits, now: float) -> list[str]:
    """Tasks not used for longer than they may be kept."""
    if not limits.ttl_s:
        return []
    return [task.id for task in tasks if task.id not in pinned and now - task.used_at > limits.ttl_s]


def to_free(tasks: Iterable[TaskRecord], pinned: Collection[str], needed_bytes: int, now: float) -> list[str]:
    """The oldest tasks that together hold at least `needed_bytes`, or all that may go."""
    chosen: list[str] = []
    for task in sorted(tasks, key=lambda one: (one.used_at, one.id)):
        if needed_bytes <= 0:
            break
        if may_go(task, pinned, now):
            chosen.append(task.id)
            needed_bytes -= task.content_length
    return chosen


def over_quota(used_bytes: int, limits: StoreLimits) -> int:
    """How many bytes to free because of the quota: back to 90 % once it is exceeded, so that not every task start evicts."""
    if not limits.quota_bytes or used_bytes <= limits.quota_bytes:
        return 0
    return used_bytes - int(limits.quota_bytes * QUOTA_LOW_SHARE)


def over_disk(total_bytes: int, available_bytes: int, limits: StoreLimits) -> int:
    """How many bytes to free because the whole disk is too full."""
    if not limits.disk_high_percent or not total_bytes:
        return 0
    used_percent = 100 - available_bytes * 100 / total_bytes
    if used_percent < limits.disk_high_percent:
        return 0
    return int((used_percent - limits.disk_low_percent) * total_bytes / 100)
