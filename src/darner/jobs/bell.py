"""Tells waiting tasks of this process that something changed. Only a hint: who waits also looks by itself from time to time."""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

PLAN = "plan"
WORK = "work"


class Bell:
    """Keys are job ids, PLAN (a job waits to be planned) and WORK (a part may be leased). For one event loop."""

    def __init__(self) -> None:
        """Nobody listens."""
        self._listeners: dict[Hashable, set[asyncio.Event]] = {}
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether waiting is over because the process stops."""
        return self._stopped

    def ring(self, *keys: Hashable) -> None:
        """Wake all who listen to one of the keys."""
        for key in keys:
            for event in self._listeners.get(key, ()):
                event.set()

    def stop(self) -> None:
        """Wake everybody; from now on nobody waits."""
        self._stopped = True
        self.ring(*list(self._listeners))

    @contextmanager
    def listen(self, key: Hashable) -> Iterator["Ear"]:
        """Listen from now on, so that nothing is missed between looking and waiting."""
        event = asyncio.Event()
        self._listeners.setdefault(key, set()).add(event)
        try:
            yield Ear(self, event)
        finally:
            kept = self._listeners[key]
            kept.discard(event)
            if not kept:
                del self._listeners[key]


class Ear:
    """One listener."""

    def __init__(self, bell: Bell, event: asyncio.Event) -> None:
        """Made by `Bell.listen`."""
        self._bell = bell
        self._event = event

    async def wait(self, timeout_s: float) -> None:
        """Until the bell rings (also if it rang since the last wait), the time is over, or the process stops."""
        if not self._bell.stopped:
            try:
                async with asyncio.timeout(max(timeout_s, 0.0)):
                    await self._event.wait()
            except TimeoutError:
                pass
        self._event.clear()
