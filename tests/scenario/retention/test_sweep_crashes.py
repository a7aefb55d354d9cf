"""Sweeps that die at any statement or commit: nothing lost, nothing early, nothing twice, and the next sweep goes on.

`DARNER_CRASHES=1000` lets more of them die.
"""

import os
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.scenario.retention.crashing import Deaths, begun

from darner.db.tables.retention import retention_run

STORIES = 10
CRASHES = int(os.environ.get("DARNER_CRASHES", "500"))


@pytest.mark.parametrize("seed", range(STORIES))
async def test_sweeps_die_anywhere(tmp_path: Path, seed: int) -> None:
    story = await begun(tmp_path / "story.db", seed)
    deaths = Deaths(story.history.db)
    number = 0
    while story.deaths_met < CRASHES // STORIES:
        number += 1
        story.ended(story.dice.randrange(6))
        if story.dice.random() < 0.5:
            story.time_passes(story.dice.choice((0.3, 1, 2, 4)))
        await story.sweep(f"m{number}", deaths, after=story.dice.randrange(1, 160))
        story.check()
    for _ in range(3):
        assert await story.sweep(f"last{story.now_h}")
        story.check()
    story.settled()
    failed = select(retention_run.c.state).where(retention_run.c.state.in_(("FAILED", "RUNNING")))
    states = story.history.db.read_sync(lambda conn: list(conn.execute(failed).scalars()))
    assert "RUNNING" not in states
    assert len(states) <= story.deaths_met
    story.history.db.close()
