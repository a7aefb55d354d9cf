"""Time as a value that is passed in, so that tests can move it. Wall time in unix seconds, monotonic time in seconds."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where a service reads the time and waits."""

    def now(self) -> float:
        """Unix seconds; may jump."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""


async def sleep_unless(clock: Clock, seconds: float, event: asyncio.Event) -> None:
    """Wait that long, or until the event is set."""
    waiting = {asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(event.wait())}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await asyncio.sleep(seconds)
