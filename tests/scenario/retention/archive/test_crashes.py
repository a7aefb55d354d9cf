"""Processes that die at every step of a handover: each job is seen exactly once, whenever that is, and the next sweep goes on.

`DARNER_CRASHES=1000` lets more of them die.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenario.retention.archive.dying import World, prepared, world_of

CRASHES = int(os.environ.get("DARNER_CRASHES", "500"))
SEEDS = 10
JOBS = 4
PARTS = 4


@pytest.fixture
async def made(tmp_path: Path) -> Path:
    return await prepared(tmp_path)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / f"world{number}" for number in range(10_000))


async def dies(world: World, after: int) -> bool:
    """One death, and what follows; whether the sweep died at all."""
    world.ended(JOBS, ages=(5, 8))
    lived = await world.sweep(after=after)
    await world.check()
    world.change_something()
    assert await world.sweep()
    await world.check()
    world.tidy()
    return not lived


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
async def test_a_sweep_may_die_at_any_step(made: Path, places: Iterator[Path], part: int) -> None:
    step = 1 + part
    while True:
        place = next(places)
        world = world_of(made, place, seed=4)
        died = await dies(world, after=step)
        world.history.db.close()
        shutil.rmtree(place)
        if not died:
            break
        step += PARTS
    assert step > 120


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_lives_of_many_deaths(made: Path, places: Iterator[Path], seed: int) -> None:
    world = world_of(made, next(places), seed)
    while world.crashes < CRASHES // SEEDS:
        world.ended(world.dice.randrange(4))
        if world.dice.random() < 0.4:
            world.time_passes(world.dice.choice((0.5, 1, 2)))
        if world.dice.random() < 0.3:
            world.change_something()
        await world.sweep(after=world.dice.randrange(1, 260))
        await world.check()
    for _ in range(2):
        assert await world.sweep()
        await world.check()
    world.tidy()
    world.history.db.close()
