"""What the services may ask of each other, as small ports. The gRPC clients and their twins implement them.

Every method raises DarnerError, whatever the transport. Iterators that are left early are closed by their reader
(`contextlib.aclosing`); that cancels the call.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Protocol

from darner.core.announce import Announced, SchedulerAnswer
from darner.core.fleet import ApplicationInfo, SchedulerInfo, SchedulerQuery
from darner.core.host import Host
from darner.core.progress import DownloadEvent, PieceOffer
from darner.core.task import Download, LocalTask, TaskInfo


class Service(Protocol):
    """What every client has."""

    async def healthy(self) -> bool:
        """Whether the service answers that it serves. Never raises."""

    async def close(self) -> None:
        """End the connection; calls that still run fail with UnavailableError, later ones too."""


class Scheduling(Protocol):
    """A scheduler, as a daemon needs it while it lives and downloads."""

    async def announce_host(self, host: Host, interval_s: float) -> None:
        """Tell that this host is there and will say so again after `interval_s`."""

    async def delete_host(self, host_id: str) -> None:
        """Tell that the host leaves. Raises NotFoundError for an unknown one."""

    def announce_peer(self, messages: AsyncIterator[Announced]) -> AsyncGenerator[SchedulerAnswer, None]:
        """Send messages of one peer and yield the answers as they come; ends when the scheduler ends the call.

        `messages` is closed at the end, also while it waits. What it raises is raised here.
        """


class SwarmView(Protocol):
    """A scheduler, as those need it who ask what is where."""

    async def stat_task(self, host_id: str, task_id: str) -> TaskInfo:
        """What the scheduler knows of a task. Raises NotFoundError."""

    async def delete_task(self, host_id: str, task_id: str) -> None:
        """Tell that the host no longer holds the task. Raises NotFoundError for an unknown host."""

    async def list_hosts(self, type: int | None = None) -> list[Host]:  # noqa: A002  (upstream's name)
        """The hosts known, all or those of one type."""


class Downloads(Protocol):
    """A daemon, as those need it who want content on it, through either face."""

    def download_task(self, download: Download, timeout_s: float | None = None) -> AsyncGenerator[DownloadEvent, None]:
        """Have the daemon download, and yield its progress; the end of the stream is success. Raises OriginError and others."""

    async def stat_task(self, task_id: str) -> TaskInfo:
        """What the daemon's scheduler knows of a task. Raises NotFoundError."""

    async def stat_local_task(self, task_id: str) -> LocalTask:
        """What the daemon itself holds of a task. Raises NotFoundError."""

    async def delete_task(self, task_id: str) -> None:
        """Delete a task on the daemon, and the daemon's peer at the scheduler. Raises NotFoundError."""


class LocalTasks(Protocol):
    """A daemon, as its own machine needs it: only through the unix socket."""

    async def list_local_tasks(self) -> list[LocalTask]:
        """All tasks the daemon holds anything of."""

    async def delete_local_task(self, task_id: str) -> None:
        """Delete a task on the daemon only. Raises NotFoundError."""


class Parent(Protocol):
    """A daemon, as its children need it: only through the TCP port."""

    def sync_pieces(self, host_id: str, task_id: str, numbers: Iterable[int]) -> AsyncGenerator[PieceOffer, None]:
        """Which of these pieces the daemon has, told as it gets them. Raises DarnerError for an unknown task."""

    def sync_host(self, host_id: str, peer_id: str) -> AsyncGenerator[Host, None]:
        """The daemon's bandwidths, told every second."""


class SchedulerDirectory(Protocol):
    """A manager, as daemons need it."""

    async def list_schedulers(self, query: SchedulerQuery) -> list[SchedulerInfo]:
        """The schedulers for this daemon, best cluster first."""


class SchedulerRegistration(Protocol):
    """A manager, as schedulers need it."""

    async def update_scheduler(self, scheduler: SchedulerInfo, config: bytes) -> SchedulerInfo:
        """Register a scheduler, or tell its new facts; the answer has the id that the manager gave it."""

    async def get_scheduler(self, hostname: str, ip: str, cluster_id: int) -> SchedulerInfo:
        """What the manager knows of a scheduler, its cluster's configs included. Raises NotFoundError."""

    async def keep_alive(self, hostname: str, ip: str, cluster_id: int, interval_s: float) -> None:
        """Say every `interval_s` that this scheduler lives, until cancelled. Raises when the stream ends."""

    async def list_applications(self, hostname: str, ip: str) -> list[ApplicationInfo]:
        """The applications and their priorities."""
