"""What every download shares: the parts it works with, and who it is. Blocking calls go through `in_thread`.

There is one pool of threads for bodies (parents and origins): its size is the cap over all tasks, its queue their fairness.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
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
from darner.origin import OriginRegistry
from darner.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Randomness:
    """Where chance comes from: numbers in [0, 1), and unique names."""

    draw: Callable[[], float]
    unique: Callable[[], str]


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
    """Threads for short work on disk and for digests."""
    clock: Clock
    chance: Randomness
    meters: Meters

    def new_peer_id(self) -> str:
        """A name for this host in one download."""
        host = self.host()
        return peer_id(host.ip, host.hostname, self.chance.unique(), seed=host.is_seed)

    async def move(self, work: Callable[[], T], stop: threading.Event | None = None) -> T:
        """Run blocking work that moves a body.

        When the caller is cancelled, `stop` is set and the thread is waited for: it writes to a file that is closed afterwards.
        """
        submitted = self.bodies.submit(work)
        running = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if stop is not None:
                stop.set()
            if not submitted.cancel():
                await asyncio.gather(running, return_exceptions=True)
            raise

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Run blocking work on the disk."""
        return await asyncio.get_running_loop().run_in_executor(self.files, work)
