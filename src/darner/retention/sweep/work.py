"""What the sweeper is made of: works that are done in turn, a batch at a time, and what a batch may use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sqlalchemy import Connection

from darner.db import Database, Lease
from darner.retention.rules import Order
from darner.retention.sql.facts import JobRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one batch did. `more`: whether another may find something. `held_s`: how long it held locks (it paces the next).

    `waited_s`: how long it waited for them, which tells how busy others are.
    """

    examined: int = 0
    changed: int = 0
    bytes: int = 0
    more: bool = False
    held_s: float = 0.0
    waited_s: float = 0.0


class SweepContext(Protocol):
    """The sweep that a batch belongs to."""

    @property
    def db(self) -> Database: ...  # noqa: D102
    @property
    def lease(self) -> Lease: ...  # noqa: D102
    @property
    def run_id(self) -> int: ...  # noqa: D102
    @property
    def order(self) -> Order: ...  # noqa: D102
    @property
    def policy_version(self) -> int: ...  # noqa: D102
    @property
    def classes(self) -> Mapping[str, int]: ...  # noqa: D102

    def fence(self, conn: Connection) -> int:
        """First in every transaction: the database's time (unix ms), after renewing the lease.

        LeaseLostError when another sweeps; SweepEndedError when the policy or the holds changed, or a person cancelled the run.
        """

    def tell(self, conn: Connection, action: str, rule: str, rows: Sequence[JobRow], *, bytes_freed: int, now_ms: int) -> None:
        """Last in a transaction that moved jobs: the audit row and the run's counters (`action`: fold, archive, hide, delete)."""

    def count(self, conn: Connection, **more: int) -> None:
        """Add to the run's counters (`classified`, `examined`, `folded`, …); `tell` does so for what it tells."""


class Work(Protocol):
    """Something a sweep does in batches. Made anew for each sweep; keeps its own cursor."""

    name: str
    removes: bool

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        """One transaction, or one bounded piece of other work. Raises DarnerError; the sweep goes on with the other works."""


@runtime_checkable
class Guarded(Protocol):
    """A removing work may have this too: then the guard counts what it would remove beside the rows of the database."""

    def rows_due_anew(self, conn: Connection, order: Order, now_ms: int, *, before: Order, then_ms: int) -> int:
        """How many jobs it would remove under an order at a moment (unix ms), and would not have under another at another."""
