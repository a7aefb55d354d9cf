"""A clock that stands still until a test moves it (the twin of `kit.clock.SystemClock`)."""

import asyncio
import heapq
import itertools

_SETTLE_ROUNDS = 20  # how often the loop runs after each wake-up, so that what was woken can fall asleep again


class VirtualClock:
    """Wall and monotonic time that only `advance` moves. Sleepers wake in the order of their time, ties in the order they came."""

    def __init__(self, *, now: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        """`now` in unix seconds, `monotonic` in seconds; different on purpose, so that a mix-up shows."""
        self._now = now
        self._monotonic = monotonic
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Unix seconds."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has passed that much time; 0 or less lets others run once."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Move both times on, stopping at each sleeper's time to let it run; what it then waits for within the span wakes too."""
        end = self._monotonic + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, wake = heapq.heappop(self._sleepers)
            self._move_to(max(at, self._monotonic))
            if not wake.done():
                wake.set_result(None)
            await self._settle()
        self._move_to(end)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or a time server may; sleepers do not notice."""
        self._now += seconds

    def sleeper_count(self) -> int:
        """How many wait."""
        return sum(not wake.done() for _, _, wake in self._sleepers)

    def _move_to(self, monotonic: float) -> None:
        self._now += monotonic - self._monotonic
        self._monotonic = monotonic

    async def _settle(self) -> None:
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)
