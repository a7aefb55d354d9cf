"""Seeds over gRPC: the adapter of `SeedPort`. One connection per address, opened on first use and kept."""

import asyncio
from contextlib import aclosing

from darner.client.dfdaemon import DaemonClient
from darner.core.errors import DarnerError, TimedOutError
from darner.core.host import Host
from darner.core.task import Download


class DaemonSeeds:
    """Seeds as their daemons answer. `timeout_s` bounds one download of a seed."""

    def __init__(self, *, timeout_s: float) -> None:
        """Nothing is connected yet."""
        self._timeout_s = timeout_s
        self._clients: dict[str, DaemonClient] = {}

    async def load(self, seed: Host, download: Download) -> None:
        """Have the seed load and read its progress to the end, as it would stop otherwise."""
        try:
            async with asyncio.timeout(self._timeout_s), aclosing(self._client(seed).download_task(download)) as events:
                async for _ in events:
                    pass
        except TimeoutError as late:
            raise TimedOutError(f"seed {seed.address} did not finish within {self._timeout_s:.0f} s") from late

    async def healthy(self, seed: Host) -> bool:
        """Ask for its health; an address that cannot be dialled is not healthy."""
        try:
            return await self._client(seed).healthy()
        except DarnerError:
            return False

    async def close(self) -> None:
        """Close all connections."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    def _client(self, seed: Host) -> DaemonClient:
        client = self._clients.get(seed.address)
        if client is None:
            client = self._clients[seed.address] = DaemonClient(seed.address)
        return client
