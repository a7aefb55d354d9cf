"""What every download shares: the parts it works with, and who it is. Blocking calls go through `in_thread`.

There is one pool of threads for bodies (parents and origins): its size is the cap over all tasks, its queue their fairness.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TypeVar

from darner.core.host import Host
from darner.core.ids import peer_id
from darner.daemon.config import DaemonConfig
from darner.daemon.meters import Meters
from darner.daemon.peerbook import PeerBook
from darner.daemon.ports import PiecePort
from darner.daemon.schedulers import Directory
from darner.kit.clock import Clock
from darner.kit.limits import TokenBucket
from darner.origin import OriginRegistry
from darner.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Randomness:
    """Where chance comes from: numbers in [0, 1), and unique names."""

    draw: Callable[[], float]
    unique: Callable[[], str]


class Pace:
    """Limits of bandwidth over all downloads, for the threads that move bodies."""

    def __init__(self, *, all_bytes_per_s: float, origin_bytes_per_s: float) -> None:
        """0: no limit."""
        self._all = TokenBucket(all_bytes_per_s)
        self._origin = TokenBucket(origin_bytes_per_s)

    def from_parent(self, count: int) -> None:
        """So many bytes came from a parent; sleeps if that was too fast."""
        self._all.take(count)

    def from_origin(self, count: int) -> None:
        """So many bytes came from an origin; sleeps if that was too fast."""
        self._all.take(count)
        self._origin.take(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts a daemon is built from; `app` makes them."""

    config: DaemonConfig
    host: Callable[[], Host]
    """This host with its present numbers."""
    store: Store
    pieces: PiecePort
    origins: OriginRegistry
    directory: Directory
    peers: PeerBook
    bodies: Executor
    """Threads that move bodies."""
    files: Executor
    """Threads for short work on disk."""
    scans: Executor
    """Threads for work on whole files: digests, copies, eviction. Their own: recording a piece must not wait for them."""
    clock: Clock
    chance: Randomness
    meters: Meters
    pace: Pace

    def new_peer_id(self) -> str:
        """A name for this host in one download."""
        host = self.host()
        return peer_id(host.ip, host.hostname, self.chance.unique(), seed=host.is_seed)

    async def move(self, work: Callable[[], T], stop: threading.Event | None = None) -> T:
        """Run blocking work that moves a body.

        When the caller is cancelled, `stop` is set and the thread is waited for: it writes to a file that is closed afterwards.
        """
        return await _finished(self.bodies.submit(work), stop)

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Run short blocking work on the disk; a caller that is cancelled waits for it, for the file may be closed afterwards."""
        return await _finished(self.files.submit(work))

    async def on_whole_file(self, work: Callable[[], T]) -> T:
        """Run blocking work that may read or write a whole file; cancelled like `on_disk`."""
        return await _finished(self.scans.submit(work))


async def _finished(submitted: "Future[T]", stop: threading.Event | None = None) -> T:
    """The result of work in a thread. On cancellation: taken back if it has not begun, else told to stop and waited for."""
    running = asyncio.wrap_future(submitted)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        if not submitted.cancel():
            await asyncio.gather(running, return_exceptions=True)
        raise
