"""The virtual clock wakes sleepers as the real one would."""

import asyncio

from darner.testing.clock import VirtualClock


async def test_sleepers_wake_in_order_and_see_their_own_time() -> None:
    clock = VirtualClock(now=1000.0, monotonic=50.0)
    seen: list[tuple[str, float, float]] = []

    async def ticker(name: str, period_s: float) -> None:
        while True:
            await clock.sleep(period_s)
            seen.append((name, clock.now(), clock.monotonic()))

    tasks = [asyncio.create_task(ticker("slow", 3)), asyncio.create_task(ticker("fast", 2))]
    await clock.advance(6.5)
    assert seen == [
        ("fast", 1002, 52),
        ("slow", 1003, 53),
        ("fast", 1004, 54),
        ("slow", 1006, 56),
        ("fast", 1006, 56),
    ]
    assert (clock.now(), clock.monotonic(), clock.sleeper_count()) == (1006.5, 56.5, 2)
    clock.jump_wall(-100)
    assert (clock.now(), clock.monotonic()) == (906.5, 56.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await clock.advance(10)
    assert clock.sleeper_count() == 0
