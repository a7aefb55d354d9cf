"""A sweep that has begun: its fence, its row, and what it carries out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from darner.db import Database, Lease
from darner.retention.clock import BootReading
from darner.retention.rules import Order
from darner.retention.sql import fence, runs
from darner.retention.sql.facts import JobRow
from darner.retention.sweep.errors import (
    ClockJumpedError,
    HoldsChangedError,
    PolicyChangedError,
    SweepCancelledError,
    SweepPausedError,
)
from darner.retention.values import PolicyVersion
from darner.retention.window import Window

_COUNTERS = {"fold": "folded", "archive": "archived", "hide": "hidden", "delete": "removed"}


@dataclass(slots=True, kw_only=True)
class Sweep:
    """`SweepContext`. `began` and `began_ms`: the boot clock and the database's clock when it began; `marks`: as they were then.

    `refused`: why it does nothing at all; `yes`: a person wants it even if the guard or the window would hold it back.
    """

    db: Database
    lease: Lease
    run_id: int
    policy: PolicyVersion
    order: Order
    seen: fence.Seen
    boot_clock: Callable[[], BootReading]
    began: BootReading
    began_ms: int
    lease_ttl_ms: int
    tolerance_ms: int
    classes: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    window: Window | None = None
    refused: str = ""
    yes: bool = False
    confirmed: bool = False
    clock_accepted: bool = False
    by_clock: bool = True

    def now_ms(self) -> int:
        """The database's time, estimated by the time that passed since the sweep began; for what is not compared with rows."""
        boot = self.boot_clock()
        return self.began_ms + (boot.ms - self.began.ms if boot.boot_id == self.began.boot_id else 0)

    def may_remove(self) -> bool:
        """Whether the maintenance window is open, or a person does not want to wait for it."""
        return self.window is None or self.yes or self.window.is_open(self.now_ms())

    @property
    def policy_version(self) -> int:
        """The version that is carried out."""
        return self.policy.version

    def fence(self, conn: Connection) -> int:
        """First in every transaction: the database's time (unix ms), after renewing the lease where that is due.

        LeaseLostError when another sweeps; SweepEndedError when the policy or the holds changed, a person cancelled the run or
        paused all, or the clock jumped. The lease's row stays locked until the transaction ends, so changes of those wait for it.
        """
        seen = fence.pass_fence(conn, self.lease, self.run_id, ttl_ms=self.lease_ttl_ms)
        if seen.policy_version != self.seen.policy_version:
            raise PolicyChangedError
        if seen.holds != self.seen.holds:
            raise HoldsChangedError
        if seen.cancelled:
            raise SweepCancelledError
        if seen.paused and not self.seen.paused:
            raise SweepPausedError
        boot = self.boot_clock()
        jumped = (seen.now_ms - self.began_ms) - (boot.ms - self.began.ms)
        if boot.boot_id == self.began.boot_id and abs(jumped) > self.tolerance_ms:
            raise ClockJumpedError(f"The database's clock jumped by {jumped // 1000} s during the sweep; nothing more was moved.")
        return seen.now_ms

    def tell(self, conn: Connection, action: str, rule: str, rows: Sequence[JobRow], *, bytes_freed: int, now_ms: int) -> None:
        """Last in a transaction that moved jobs: the audit row and the run's counters (`action`: fold, archive, hide, delete)."""
        ends = [row.finished_at or 0 for row in rows]
        ids = ",".join(str(row.id) for row in rows)
        runs.audit(
            conn,
            {
                "run_id": self.run_id,
                "rule": rule,
                "action": action,
                "at": now_ms,
                "removed": len(rows),
                "bytes": bytes_freed,
                "policy_version": self.policy.version,
                "epoch": self.lease.epoch,
                "oldest_at": min(ends, default=0),
                "newest_at": max(ends, default=0),
                "ids_digest": hashlib.sha256(ids.encode()).hexdigest(),
            },
        )
        runs.count_run(conn, self.run_id, **{_COUNTERS[action]: len(rows), "bytes": bytes_freed})

    def count(self, conn: Connection, **more: int) -> None:
        """Add to the run's counters."""
        runs.count_run(conn, self.run_id, **more)
