"""Connections to other daemons, one per address, shared by all downloads; the least recently used one goes when there are many."""

from collections import OrderedDict
from collections.abc import Callable

from darner.daemon.ports import ParentPort

MAX_CONNECTIONS = 256


class PeerBook:
    """Opens a connection to a daemon's upload port on first use."""

    def __init__(self, connect: Callable[[str], ParentPort]) -> None:
        """`connect` opens one; it must not block."""
        self._connect = connect
        self._open: OrderedDict[str, ParentPort] = OrderedDict()
        self._retired: list[ParentPort] = []

    def at(self, address: str) -> ParentPort:
        """The daemon at `ip:port`."""
        found = self._open.get(address)
        if found is None:
            found = self._open[address] = self._connect(address)
        self._open.move_to_end(address)
        if len(self._open) > MAX_CONNECTIONS:
            self._retired.append(self._open.popitem(last=False)[1])
        return found

    async def tidy(self) -> None:
        """Close the connections that were pushed out; streams still open on them break and their downloads reschedule."""
        while self._retired:
            await self._retired.pop().close()

    async def close(self) -> None:
        """Close everything."""
        self._retired += self._open.values()
        self._open.clear()
        await self.tidy()
