"""The guard against a plain model: random stories of changes, time, sweeps, confirmations and ways back.

In the model a job may go only if it was due under what was settled last, or if a person confirmed the version in force, or if fewer
than 1,000 jobs were due that were not before.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import Boot, engine_of, until_done
from tests.integration.retention.test_sweep_guard import BIG, many
from tests.integration.retention.test_sweep_guard_settled import by_clock, let_pass

from darner.core.errors import ConflictError
from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.retention import retention_policy
from darner.retention.engine import RetentionEngine
from darner.retention.guard import LEAST_ROWS
from darner.retention.policy import DAY_MS, HOUR_MS, Policy
from darner.retention.rules import Order, verdict
from darner.retention.sql.facts import FACTS, JobRow, facts_of
from darner.retention.values import RunState

AGES = ("2d", "7d", "20d", "30d", "60d", "keep")
STEPS = ("change", "change", "time", "sweep", "sweep", "sweep", "confirm", "back", "jobs", "token", "manager")


@dataclass
class Story:
    """What happened so far, and what the model knows. `settled`: the policy that was settled last."""

    history: History
    chance: random.Random
    boot: Boot = field(default_factory=Boot)
    settled: Policy | None = None
    told: list[str] = field(default_factory=list)

    def policy(self) -> dict[str, Any]:
        """One of a few forms: durations, undo and rules of their own for failures differ."""
        rest: dict[str, Any] = {"name": "rest", "hot": self.chance.choice(AGES)}
        if rest["hot"] != "keep" and self.chance.random() < 0.5:
            rest["undo"] = self.chance.choice(("24h", "5d", "20d"))
        if self.chance.random() < 0.5:
            return {"rules": [rest]}
        first = {"name": "failures", "match": {"states": ["FAILED"]}, "hot": self.chance.choice(AGES)}
        return {"rules": [first, rest]}

    def jobs(self) -> dict[int, JobRow]:
        """All that are there."""

        def look(conn: Connection) -> dict[int, JobRow]:
            order = Order(policy=Policy(rules=()))
            return {one.id: one for one in facts_of(conn, conn.execute(select(*FACTS)).all(), order)}

        return self.history.db.read_sync(look)

    def now(self) -> int:
        """By the database."""
        return self.history.db.read_sync(db_now_ms)


def due(one: JobRow, policy: Policy, now_ms: int) -> bool:
    """Whether a policy removes a job, from where it is."""
    found = verdict(one, Order(policy=policy))
    at = found.moves_at if one.tier == Tier.DELETED else found.forgotten_at
    return at is not None and at <= now_ms


@pytest.mark.parametrize("seed", range(6))
async def test_no_job_goes_that_was_not_due_before_unless_few_or_confirmed(history: History, seed: int) -> None:
    story = Story(history=history, chance=random.Random(seed))  # noqa: S311
    first, second = (engine_of(history.db, config=BIG, boot=story.boot, holder=name) for name in ("m1", "m2"))
    async with first as one, second as two:
        engine: RetentionEngine = one
        await engine.set_policy({"rules": [{"name": "rest", "hot": "30d"}]}, by="t")
        await sweep(story, engine)
        for _ in range(14):
            step = story.chance.choice(STEPS)
            story.told.append(step)
            engine = two if step == "manager" and engine is one else one
            await happen(story, engine, step)


async def happen(story: Story, engine: RetentionEngine, step: str) -> None:
    """One step of a story."""
    chance = story.chance
    if step == "change":
        await engine.set_policy(story.policy(), by="t")
    elif step == "token":
        data = story.policy()
        token = (await engine.preview(data, by="t"))["token"]
        await engine.set_policy(data, by="t", preview_token=token)
    elif step == "back":
        version = chance.randint(1, (await engine.policy()).version)
        try:
            await engine.rollback(version, by="t")
        except ConflictError:
            return
    elif step == "time":
        later(story, chance.choice((HOUR_MS, 7 * HOUR_MS, 30 * HOUR_MS)))
    elif step == "jobs":
        many(story.history, chance.choice((500, 1500)), from_h=1, to_h=25 * 24, state=chance.choice(("SUCCEEDED", "FAILED")))
    elif step == "confirm":
        await confirm(story, engine)
    else:
        await sweep(story, engine)


def later(story: Story, ms: int) -> None:
    """Time goes by, for policies too."""
    let_pass(story.history, story.boot, ms, jobs=True)
    columns = retention_policy.c
    moved = {"created_at": columns.created_at - ms, "confirmed_at": columns.confirmed_at - ms}
    story.history.db.write_sync(lambda conn: conn.execute(update(retention_policy).values(moved)))


async def confirm(story: Story, engine: RetentionEngine) -> None:
    """A person confirms the latest held run, if it still can be."""
    held = [run for run in await engine.runs(limit=50) if run.state == RunState.HELD]
    if not held:
        return
    version = (await engine.policy()).version
    try:
        run = await engine.confirm_run(held[0].id, by="t")
    except ConflictError:
        assert held[0].policy_version != version
        return
    assert held[0].policy_version == version
    assert (await until_done(engine, run)).state == RunState.DONE
    story.settled = (await engine.policy()).policy


async def sweep(story: Story, engine: RetentionEngine) -> None:
    """A sweep by the clock, and what it removed held against the model."""
    before, began = story.jobs(), story.now()
    in_force = await engine.policy()
    run = await until_done(engine, await by_clock(engine))
    assert run.state in {RunState.DONE, RunState.HELD}, run
    ended, after = story.now(), story.jobs()
    gone = {key: one for key, one in before.items() if key not in after or after[key].tier != one.tier}
    for one in gone.values():
        assert due(one, in_force.policy, ended), story.told
    settled = story.settled or in_force.policy
    anew = [one for one in before.values() if due(one, in_force.policy, began) and not due(one, settled, began)]
    if in_force.confirmed_at is None and len(anew) >= LEAST_ROWS and gone:
        allowed(story, in_force.created_at, anew, before, ended)
    if run.state == RunState.HELD or (await engine.status())["removal_held"] is not None:
        assert not gone, story.told
    else:
        left = [one for one in story.jobs().values() if due(one, in_force.policy, began)]
        assert not left, story.told
        story.settled = in_force.policy


def allowed(story: Story, changed_at: int, anew: list[JobRow], all_jobs: Mapping[int, JobRow], now_ms: int) -> None:
    """So many may go only if they are a small part, and the change is older than a day."""
    assert len(anew) / len(all_jobs) <= 0.20, story.told
    assert now_ms - changed_at >= DAY_MS, story.told
