"""Hidden jobs: those that a person removed are gone after a time, whatever the policy is."""

from typing import Any

import pytest
from sqlalchemy import Connection, select
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import GONE, engine_of, seeded

from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.jobs import job
from darner.retention.explain import explain
from darner.retention.parse import policy_from_json
from darner.retention.policy import HOUR_MS, UNDO_MS
from darner.retention.rules import Order
from darner.retention.sql.classes import class_ids
from darner.retention.sql.facts import FACTS, facts_of
from darner.retention.sql.holds import selectors
from darner.retention.sql.report import due_count

FAILURES = {"rules": [{"name": "failures", "match": {"states": ["FAILED"]}, "hot": "6h"}]}
FOR_EVER = {"rules": [{"name": "default", "hot": "keep"}]}
NO_UNDO = {"rules": [{"name": "default", "hot": "30d"}]}


def hidden(history: History, *, hours: float, **facts: Any) -> int:
    """A job that a person removed so many hours ago."""
    since = history.db.read_sync(db_now_ms) - int(hours * HOUR_MS)
    return history.add("SUCCEEDED", ended_h=50, tier=int(Tier.DELETED), **{"base_at": since, **facts})


@pytest.mark.parametrize("policy", [FAILURES, FOR_EVER, NO_UNDO], ids=["no-rule", "for-ever", "no-undo"])
async def test_a_job_that_a_person_removed_is_gone_after_a_day(history: History, policy: dict[str, Any]) -> None:
    await seeded(history.db, policy)
    over = hidden(history, hours=24.01)
    waiting, held = hidden(history, hours=23.9), hidden(history, hours=99, held=1)
    seen = history.add("SUCCEEDED", ended_h=500) if policy != NO_UNDO else history.add("SUCCEEDED", ended_h=5)
    async with engine_of(history.db) as engine:
        shown = await engine.preview({"version": (await engine.policy()).version}, by="t")
        assert (shown["total"]["rows"], shown["diff"]["removed"]) == (1, 1)
        dry = await engine.run(dry_run=True, by="t")
        assert dry.report is not None
        assert dry.report["total"] == 1
        assert ((await engine.status())["due"], (await engine.status())["due_or_more"]) == (1, False)
        assert (await engine.run(dry_run=False, by="t")).removed == 1
    assert history.left() == [one for one in (over, waiting, held, seen) if one != over]


async def test_when_it_is_gone_is_told(history: History) -> None:
    await seeded(history.db, FAILURES)
    key, policy = hidden(history, hours=1), policy_from_json(FAILURES)

    def tell(conn: Connection) -> tuple[int, Any]:
        order = Order(policy=policy, selectors=selectors(conn))
        rows = conn.execute(select(*FACTS).where(job.c.id == key)).all()
        found = facts_of(conn, rows, order)
        return found[0].base_at or 0, explain(conn, found, archive=False)[0]

    since, told = history.db.read_sync(tell)
    assert (told.rule, told.moves_at, told.next_tier) == ("", since + UNDO_MS, None)
    assert "restored for 24h" in told.reason


async def test_what_is_due_is_counted_to_a_limit(history: History) -> None:
    await seeded(history.db)
    for _ in range(5):
        history.add("FAILED", ended_h=7)
    await sweep_nothing(history)
    order = Order(policy=policy_from_json(GONE))
    counted = [
        history.db.read_sync(lambda conn, most=most: due_count(conn, order, class_ids(conn, order), db_now_ms(conn), at_most=most))  # type: ignore[misc]
        for most in (3, 5, 9)
    ]
    assert counted == [3, 5, 5]


async def sweep_nothing(history: History) -> None:
    """Jobs are sorted, and none is removed."""
    async with engine_of(history.db) as engine:
        await engine.run(dry_run=True, by="t")
