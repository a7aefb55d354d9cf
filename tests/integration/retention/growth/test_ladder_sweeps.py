"""What a stage of the ladder makes of a sweep."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, select
from tests.integration.retention.history import History

from darner.core.job import Tier
from darner.db import acquire_lease, db_now_ms
from darner.db.tables.jobs import job
from darner.history.codec import Codec
from darner.retention.engine import RetentionEngine
from darner.retention.growth import store
from darner.retention.growth.budget import parse_budget
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.growth import Growth
from darner.retention.growth.ladder import Stage
from darner.retention.growth.watch import LEASE
from darner.retention.policy import Policy
from darner.retention.ports import RetentionParts
from darner.retention.rules import Order
from darner.retention.sql import marks
from darner.retention.sql.facts import FACTS, facts_of
from darner.retention.works.fold import fold_work
from darner.testing.clock import VirtualClock

RULES = [
    {"name": "success", "match": {"states": ["SUCCEEDED"]}, "hot": "20h", "warm": "30d"},
    {"name": "rest", "hot": "20h", "warm": "30d"},
]


def at(conn: Connection, stage: Stage, cut: int, shorten: str | None) -> None:
    """Another manager watches, and has come so far up the ladder."""
    now_ms = db_now_ms(conn)
    body: dict[str, Any] = {"stage": int(stage), "since": 1, "calm_since": None, "cut": cut, "cut_at": 0}
    marks.set_mark(conn, store.LADDER, {"ladder": body, "seen_at": now_ms, "history": []}, by="x")
    store.set_budget(conn, parse_budget("1 GiB", shorten=shorten), by="x", reason="", now_ms=now_ms)
    acquire_lease(conn, LEASE, "another", ttl_s=600)


def tiers(history: History) -> dict[str, int]:
    by = select(job.c.tier, func.count()).group_by(job.c.tier)
    return history.db.read_sync(lambda conn: {Tier(tier).word: count for tier, count in conn.execute(by)})


@pytest.mark.parametrize(
    ("stage", "cut", "shorten", "expected"),
    [
        (Stage.VACUUM, 0, None, {"hot": 4, "warm": 4}),
        (Stage.FOLD, 0, None, {"hot": 2, "warm": 6}),  # 5 hours old: not before six
        (Stage.REFUSE, 6, None, {"hot": 2, "warm": 6}),
        (Stage.SHORTEN, 3, "7d", {"hot": 2, "warm": 5}),  # the success of 20 days; the failure stays
        (Stage.SHORTEN, 6, "7d", {"hot": 2, "warm": 4}),  # both of 20 days; those of 2 days are below the floor
    ],
)
async def test_stages_fold_earlier_and_remove_earlier_only_where_that_was_opted_into(
    history: History, stage: Stage, cut: int, shorten: str | None, expected: dict[str, int]
) -> None:
    for hours in (5, 10, 48, 480):
        history.add("SUCCEEDED", ended_h=hours)
        history.add("FAILED", ended_h=hours)
    held = history.add("SUCCEEDED", ended_h=900, held=1)
    growth = Growth(history.db, clock=VirtualClock(), config=GrowthConfig(reserve_bytes=0))
    codec = Codec()
    await history.db.read(codec.refresh)
    parts = RetentionParts(adjust=growth.adjusted, works=[partial(fold_work, codec)])
    async with RetentionEngine(history.db, parts=parts) as engine:
        await engine.set_policy({"rules": RULES}, by="x")
        history.db.write_sync(lambda conn: at(conn, stage, cut, shorten))
        assert not await growth.tick()
        run = await engine.run(dry_run=False, by="x", yes=True)
    assert run.state == "DONE", run.error
    assert held in history.left()
    found = tiers(history)
    found["hot"] -= 1  # the held one
    assert found == expected


async def test_a_job_says_when_it_is_forgotten_while_room_runs_short(history: History) -> None:
    history.add("SUCCEEDED", ended_h=48)
    (row,) = history.db.read_sync(lambda conn: facts_of(conn, conn.execute(select(*FACTS)).all(), Order(policy=Policy(rules=()))))
    growth = Growth(history.db, clock=VirtualClock(), config=GrowthConfig(reserve_bytes=0))
    told = []
    async with RetentionEngine(history.db, parts=RetentionParts(adjust=growth.adjusted)) as engine:
        await engine.set_policy({"rules": RULES}, by="x")
        for stage, cut in ((Stage.CALM, 0), (Stage.SHORTEN, 6)):
            history.db.write_sync(partial(at, stage=stage, cut=cut, shorten="7d"))
            await growth.tick()
            (found,) = await engine.explain([row])
            told.append(datetime.fromisoformat(found["forgotten_at"]))
    assert told[0] - told[1] > timedelta(days=7)
