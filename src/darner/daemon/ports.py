"""What the daemon needs from other rooms. `client`, `swarm` and `origin` fit directly; so do the twins in the tests.

All async calls raise DarnerError; the blocking ones are called in worker threads only.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import Protocol

from darner.core.announce import Announced, SchedulerAnswer
from darner.core.host import Host
from darner.core.progress import FetchedPiece, PieceOffer
from darner.core.ranges import ByteRange
from darner.core.task import LocalTask, TaskInfo

Probe = Callable[[int], None]
Stop = Callable[[], bool]


class SchedulerPort(Protocol):
    """One scheduler, for downloads."""

    def announce_peer(self, messages: AsyncIterator[Announced]) -> AsyncGenerator[SchedulerAnswer, None]:
        """The dialogue of one download; ends when the scheduler ends it."""

    async def stat_task(self, host_id: str, task_id: str) -> TaskInfo:
        """What the scheduler knows of a task. NotFoundError if nothing."""

    async def delete_task(self, host_id: str, task_id: str) -> None:
        """Tell that this host no longer holds the task."""


class SchedulerHostPort(SchedulerPort, Protocol):
    """One scheduler, for this host's coming and going."""

    async def healthy(self) -> bool:
        """Whether it serves."""

    async def announce_host(self, host: Host, interval_s: float) -> None:
        """Tell that this host is here and will say so again within the interval."""

    async def delete_host(self, host_id: str) -> None:
        """Tell that this host leaves."""

    async def close(self) -> None:
        """Release the connection."""


class ParentPort(Protocol):
    """Another daemon that may have pieces."""

    async def stat_local_task(self, task_id: str) -> LocalTask:
        """What it holds of the task. NotFoundError if nothing."""

    def sync_pieces(self, host_id: str, task_id: str, numbers: Iterable[int]) -> AsyncGenerator[PieceOffer, None]:
        """Its offers among these pieces, as they come to be."""

    def sync_host(self, host_id: str, peer_id: str) -> AsyncGenerator[Host, None]:
        """Its bandwidth in use, every second."""

    async def close(self) -> None:
        """Release the connection."""


class PiecePort(Protocol):
    """How a piece is loaded from a peer (blocking)."""

    def fetch(
        self,
        address: tuple[str, int],
        task_id: str,
        number: int,
        span: ByteRange,
        fd: int,
        *,
        on_bytes: Probe | None = None,
        should_stop: Stop | None = None,
    ) -> FetchedPiece:
        """Load and write one piece at its place; verified against the parent's own CRC-32. PeerError, DigestMismatchError."""

    def close(self) -> None:
        """Release the connections."""
