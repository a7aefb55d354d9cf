"""What the scheduler needs from other rooms; `client` fits behind small adapters, and so do the twins in the tests."""

from collections.abc import Sequence
from typing import Protocol

from darner.core.fleet import ApplicationInfo, SchedulerInfo
from darner.core.host import Host
from darner.core.task import Download


class SeedPort(Protocol):
    """The seeds, reached at the addresses they announced."""

    async def load(self, seed: Host, download: Download) -> None:
        """Have a seed load; returns when it has ended well. Raises DarnerError, OriginError with what the origin said."""

    async def healthy(self, seed: Host) -> bool:
        """Whether a seed answers that it serves. Never raises."""

    async def close(self) -> None:
        """Release the connections."""


class ManagerPort(Protocol):
    """The manager. All calls raise DarnerError."""

    async def update_scheduler(self, scheduler: SchedulerInfo, config: bytes) -> SchedulerInfo:
        """Register this scheduler, or tell its new facts."""

    async def keep_alive(self, hostname: str, ip: str, cluster_id: int, interval_s: float) -> None:
        """Say that it lives, until cancelled."""

    async def list_applications(self, hostname: str, ip: str) -> Sequence[ApplicationInfo]:
        """The applications and their priorities."""
