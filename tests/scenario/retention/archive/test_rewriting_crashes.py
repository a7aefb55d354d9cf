"""Processes that die while segments are merged, jobs erased, and segments forgotten: nothing is lost, and nothing comes back."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.scenario.retention.archive.dying import World, prepared, world_of

from darner.history.codec import Codec
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.engine import Archive

PARTS = 4
STRIDE = 3


@dataclass
class Prepared:
    """A database with an archive of many small segments, some of whose jobs are to be erased, and some whose time is over."""

    place: Path
    known: dict[int, object]
    ages_h: dict[int, float]
    erased: list[int]
    over: list[int]

    def again(self, place: Path) -> World:
        """A copy of all that."""
        shutil.copytree(self.place / "archive", place / "archive")
        world = world_of(self.place / "darner.db", place / "db", seed=1)
        shutil.move(place / "archive", place / "db" / "archive")
        world.config = small(world)
        world.known, world.ages_h, world.maybe = dict(self.known), dict(self.ages_h), set(self.over)
        return world


def small(world: World) -> ArchiveConfig:
    return ArchiveConfig(url=str(world.root), segment_jobs=1, least_jobs=1)


@pytest.fixture
async def made(tmp_path: Path) -> Prepared:
    world = world_of(await prepared(tmp_path), tmp_path / "first", seed=3)
    world.config = small(world)
    old = [world.history.add("FAILED", ended_h=8, parts=1, url=f"http://x/{number}") for number in range(2)]
    rest = [world.history.add("SUCCEEDED", ended_h=5 + number / 10, parts=1, url=f"http://y/{number}") for number in range(11)]
    rest += [world.history.add("CANCELLED", ended_h=5, parts=1, url="http://z")]
    world.known = dict.fromkeys([*old, *rest])
    world.yes = True
    await world.sweep()
    await world.check()
    codec = Codec()
    async with Archive(world.history.db, world.config, codec, world.storage) as archive:
        await archive.erase([rest[3]], reason="story", by="story")
        await archive.restore(rest[5])
    world.time_passes(53)
    late = world.history.add("SUCCEEDED", ended_h=5, parts=1, url="http://late")
    known = {key: told for key, told in {**world.known, late: None}.items() if key not in {*old, rest[3], rest[5]}}
    known[rest[5]] = None
    world.history.db.close()
    for one in tmp_path.joinpath("first").glob("darner.db-*"):
        assert one.stat().st_size == 0 or one.suffix
    return Prepared(tmp_path / "first", known, world.ages_h, [rest[3]], old)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
async def test_rewriting_may_die_at_any_step(made: Prepared, tmp_path: Path, part: int) -> None:
    step = 1 + part
    while True:
        place = tmp_path / f"step{step}"
        world = made.again(place)
        lived = await world.sweep(after=step)
        await world.check(forgotten=made.erased)
        for _ in range(2):
            assert await world.sweep()
        await world.check(forgotten=[*made.erased, *made.over])
        states = list(world.states().values())
        assert states.count("EXPIRED") == len(made.over)
        assert states.count("LIVE") <= 2, states
        world.time_passes(25)
        for _ in range(2):
            assert await world.sweep()
        await world.check(forgotten=[*made.erased, *made.over])
        world.tidy()
        assert "REPLACED" not in world.states().values()
        world.history.db.close()
        shutil.rmtree(place)
        if lived:
            break
        step += PARTS * STRIDE
    assert step > 100
