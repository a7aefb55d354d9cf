import asyncio

import pytest

from darner.core.errors import DigestMismatchError, UnavailableError
from darner.core.piece import Piece
from darner.core.progress import FetchedPiece
from darner.core.task import TaskInfo
from darner.daemon.anchor import BUDGET_S, FIRST_PATIENCE_S, FIRST_SILENCE_S, PATIENCE_S, Anchor

GOOD = FetchedPiece(length=3, crc32=17, blake3=b"\x01" * 32)
BAD = FetchedPiece(length=3, crc32=18, blake3=b"\x02" * 32)


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Scheduler:
    """Vouches for `digests`; `later` appear only from the given time on."""

    def __init__(self, clock: Clock, digests: dict[int, str], later: dict[int, tuple[float, str]] | None = None) -> None:
        self.clock, self.digests, self.later, self.asked = clock, digests, later or {}, 0
        self.away = False

    async def __call__(self) -> TaskInfo:
        self.asked += 1
        if self.away:
            raise UnavailableError
        due = {number: digest for number, (at, digest) in self.later.items() if at <= self.clock.at}
        known = self.digests | due
        return TaskInfo(
            id="t",
            url="u",
            state="Running",
            content_length=9,
            pieces=tuple(Piece(number=number, offset=0, length=3, digest=digest) for number, digest in known.items()),
        )


@pytest.mark.parametrize("digest", [f"blake3:{GOOD.blake3.hex()}", f"crc32:{GOOD.crc32}"])
async def test_bytes_are_held_against_the_vouched_digest(digest: str) -> None:
    anchor = Anchor(Scheduler(clock := Clock(), {0: digest}), clock)
    await anchor.judge(0, GOOD)
    with pytest.raises(DigestMismatchError, match="piece 0"):
        await anchor.judge(0, BAD)
    assert not anchor.contradicts(0, crc32=GOOD.crc32, blake3=GOOD.blake3)
    assert anchor.contradicts(0, crc32=BAD.crc32, blake3=BAD.blake3)


async def test_a_digest_that_is_a_little_late_is_waited_for() -> None:
    clock = Clock()
    scheduler = Scheduler(clock, {0: "crc32:1"}, later={1: (101.0, f"crc32:{GOOD.crc32}")})
    anchor = Anchor(scheduler, clock)
    with pytest.raises(DigestMismatchError):
        await anchor.judge(1, BAD)


async def test_a_digest_that_is_milliseconds_late_delays_a_small_download_by_milliseconds() -> None:
    clock = Clock()
    scheduler = Scheduler(clock, {}, later={0: (100.005, f"crc32:{GOOD.crc32}")})
    anchor = Anchor(scheduler, clock)
    await anchor.refresh()
    await anchor.judge(0, GOOD)
    assert clock.at - 100.0 < 0.010


async def test_the_scheduler_is_asked_ever_less_often_while_a_download_goes_on() -> None:
    clock = Clock()
    scheduler = Scheduler(clock, {}, later={number: (100.0 + number, f"crc32:{GOOD.crc32}") for number in range(10)})
    anchor = Anchor(scheduler, clock)
    for number in range(10):
        await anchor.judge(number, GOOD)
    assert scheduler.asked <= 10 * 10 + 10


async def test_a_piece_nobody_vouches_for_is_accepted_after_a_bounded_wait() -> None:
    clock = Clock()
    anchor = Anchor(Scheduler(clock, {0: "crc32:1"}), clock)
    await anchor.judge(1, GOOD)
    assert PATIENCE_S <= clock.at - 100 <= PATIENCE_S + 0.2


async def test_a_task_without_any_vouched_piece_costs_the_short_wait_once() -> None:
    clock = Clock()
    anchor = Anchor(Scheduler(clock, {}), clock)
    for number in range(20):
        await anchor.judge(number, GOOD)
    assert clock.at - 100 <= FIRST_PATIENCE_S + 0.2


async def test_digests_that_never_come_cost_a_bounded_time_and_those_that_are_there_still_count() -> None:
    clock = Clock()
    anchor = Anchor(Scheduler(clock, {0: f"crc32:{GOOD.crc32}"}), clock)
    for number in range(1, 50):
        await anchor.judge(number, GOOD)
    assert clock.at - 100 <= BUDGET_S + PATIENCE_S
    with pytest.raises(DigestMismatchError):
        await anchor.judge(0, BAD)


async def test_a_scheduler_that_is_away_does_not_hold_up_anything() -> None:
    clock = Clock()
    scheduler = Scheduler(clock, {})
    scheduler.away = True
    anchor = Anchor(scheduler, clock)
    for number in range(20):
        await anchor.judge(number, GOOD)
    assert scheduler.asked == 1
    assert clock.at == 100.0


async def test_a_scheduler_that_comes_back_is_asked_again() -> None:
    clock = Clock()
    scheduler = Scheduler(clock, {1: "crc32:1"})
    scheduler.away = True
    anchor = Anchor(scheduler, clock)
    await anchor.judge(0, GOOD)
    scheduler.away = False
    clock.at += FIRST_SILENCE_S
    with pytest.raises(DigestMismatchError):
        await anchor.judge(1, GOOD)


async def test_a_scheduler_that_hangs_is_waited_for_once_and_not_by_every_piece() -> None:
    asked = 0

    async def hang() -> TaskInfo:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    anchor = Anchor(hang, Clock(), ask_timeout_s=0.01)
    async with asyncio.timeout(10):
        await asyncio.gather(*(anchor.judge(number, GOOD) for number in range(20)))
    assert asked == 1
