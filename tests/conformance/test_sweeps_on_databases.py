"""What sweeps do, on every database: tiers, holds, groups, the sink's gate, the guard, the fence, and plans by index."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Connection, insert, select, text, update

from darner.core.job import Tier
from darner.db import Database, LeaseLostError, acquire_lease, db_now_ms
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job
from darner.db.tables.retention import lease
from darner.history.codec import Codec
from darner.retention.config import SweepConfig
from darner.retention.policy import HOUR_MS
from darner.retention.ports import RetentionParts
from darner.retention.rules import Order, moves
from darner.retention.sql.classes import class_ids, make_classes
from darner.retention.sql.classify import ended_statement
from darner.retention.sql.due import due_statement
from darner.retention.sql.fence import LEASE, pass_fence
from darner.retention.sql.groups import newest_statement, older_statement
from darner.retention.values import Cursor
from darner.retention.works.fold import fold_work

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.integration.retention.history import ENDED, History  # noqa: E402
from tests.integration.retention.sweeping import engine_of, seeded  # noqa: E402

FULL = {
    "rules": [
        {"name": "failures", "match": {"states": ["FAILED"]}, "hot": "6h", "warm": "48h", "undo": "3h"},
        {"name": "last", "match": {"owners": ["bob"]}, "hot": "6h", "keep_last": 2},
        {"name": "sent", "match": {"owners": ["cid"]}, "hot": "6h", "export": "logs"},
        {"name": "rest", "hot": "6h"},
    ]
}


def enqueue(conn: Connection, ids: Sequence[int], sink: str, now_ms: int) -> None:
    there = set(conn.execute(select(export_outbox.c.job_id).where(export_outbox.c.job_id.in_(ids))).scalars())
    rows = [{"job_id": key, "sink": sink, "created_at": now_ms} for key in ids if key not in there]
    if rows:
        conn.execute(insert(export_outbox), rows)


def parts() -> RetentionParts:
    codec = Codec()
    return RetentionParts(works=[lambda: fold_work(codec)], enqueue=enqueue)


@pytest.fixture
async def history(database: Database) -> History:
    await seeded(database, FULL)
    return History(database)


async def test_every_step_of_every_rule(history: History) -> None:
    fails = [history.add("FAILED", ended_h=hours, owner="ann") for hours in (5, 7, 49)]
    bobs = [history.add("SUCCEEDED", ended_h=hours, owner="bob", url="http://x/ä") for hours in (9, 8, 7)]
    cids = [history.add("SUCCEEDED", ended_h=9, owner="cid") for _ in range(2)]
    rest = history.add("CANCELLED", ended_h=9, owner="ann")
    async with engine_of(history.db, parts=parts()) as engine:
        run = await engine.run(dry_run=False, by="t")
        assert (run.state, run.error) == ("DONE", "")
        assert (run.folded, run.hidden, run.removed) == (1, 1, 2)
        assert run.bytes > 0
        tiers = history.tiers()
        assert [tiers[key] for key in fails] == [Tier.HOT, Tier.WARM, Tier.DELETED]
        assert set(tiers) == {*fails, *bobs[1:], *cids}
        assert rest not in tiers
        acknowledge = update(export_outbox).where(export_outbox.c.job_id == cids[0]).values(acked_at=1)
        history.db.write_sync(lambda conn: conn.execute(acknowledge))
        newer = history.add("SUCCEEDED", ended_h=1, owner="bob", url="http://x/ä")
        for _ in range(2):
            run = await engine.run(dry_run=False, by="t")
        assert set(history.tiers()) == {*fails, bobs[2], newer, cids[1]}
        hold = await engine.restore(fails[2], by="ann")
        assert history.tiers()[fails[2]] == Tier.HOT
        assert (await engine.batches(run.id, limit=5))[0].epoch == run.epoch
        await engine.remove_hold(hold.id, by="ann")
        await engine.run(dry_run=False, by="t")
        long_ago = update(job).where(job.c.tier == int(Tier.DELETED)).values(base_at=job.c.base_at - 4 * HOUR_MS)
        history.db.write_sync(lambda conn: conn.execute(long_ago))
        await engine.run(dry_run=False, by="t")
        assert fails[2] not in history.left()
        assert history.orphans() == 0


async def test_a_hold_by_selector_and_its_end(history: History) -> None:
    keys = [history.add("CANCELLED", ended_h=9, owner=f"größe-{n}") for n in range(2)]
    async with engine_of(history.db) as engine:
        until = history.db.read_sync(db_now_ms) + HOUR_MS
        made = await engine.add_hold(reason="Prüfung", by="ann", match={"owners": ["größe-1"]}, until=until)
        assert (await engine.run(dry_run=False, by="t")).removed == 1
        assert history.left() == keys[1:]
        await engine.remove_hold(made.id, by="ann")
        assert (await engine.run(dry_run=False, by="t")).removed == 1


async def test_the_guard_holds_and_a_person_confirms(history: History) -> None:
    def put(conn: Connection) -> None:
        now = db_now_ms(conn)
        times = {"created_at": now - 6 * HOUR_MS, "updated_at": now, "finished_at": now - 5 * HOUR_MS, "base_at": now - 5 * HOUR_MS}
        conn.execute(insert(job), [{"type": "preheat", "state": ENDED[n % 5], "owner": "ann", **times} for n in range(1100)])

    history.db.write_sync(put)
    config = SweepConfig(min_pause_s=0.0001, first_batch=500)
    async with engine_of(history.db, config=config) as engine:
        await engine.set_policy({"rules": [{"name": "rest", "hot": "2h"}]}, by="ann")
        held = await engine.run(dry_run=False, by="t")
        assert (held.state, held.report) == ("HELD", {"held": {"rows": 1100, "share": 1.0}})
        assert (await engine.confirm_run(held.id, by="ann")).removed == 1100


async def test_the_fence_stops_a_holder_whose_lease_was_taken(history: History) -> None:
    db = history.db
    first = db.write_sync(lambda conn: acquire_lease(conn, LEASE, "first", ttl_s=30))
    assert first is not None
    assert db.write_sync(lambda conn: pass_fence(conn, first, 0, ttl_ms=30_000)).policy_version == 2
    db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)))
    with pytest.raises(LeaseLostError):
        db.write_sync(lambda conn: pass_fence(conn, first, 0, ttl_ms=30_000))
    assert db.write_sync(lambda conn: acquire_lease(conn, LEASE, "second", ttl_s=30)) is not None
    with pytest.raises(LeaseLostError):
        db.write_sync(lambda conn: pass_fence(conn, first, 0, ttl_ms=30_000))


async def test_plans_walk_the_index(history: History) -> None:
    def put(conn: Connection) -> None:
        now = db_now_ms(conn)
        rows: list[dict[str, Any]] = []
        for n in range(9000):
            ended = now - n * 60_000
            times = {"created_at": ended - 5, "updated_at": ended, "finished_at": ended, "base_at": ended}
            rows.append({"type": "preheat", "state": ENDED[n % 5], "owner": f"o{n % 9}", "class": 16 + n % 3, **times})
        conn.execute(insert(job), rows)

    db = history.db
    db.write_sync(put)
    async with engine_of(db) as engine:
        policy = (await engine.policy()).policy
    if db.dialect == "postgresql":
        db.write_sync(lambda conn: conn.execute(text("ANALYZE job")) and None)
    now, after = db.read_sync(db_now_ms), Cursor(base_at=7, id=9)
    for rule in policy.rules:
        for move in moves(rule):
            told = plan(db, due_statement(move, 17, now, after=after, limit=50))
            assert "ix_job_class" in told, told
            assert "filesort" not in told, told
            if move.start == Tier.HOT and move.before is None:  # for a few rows PostgreSQL rather sorts
                assert "Sort" not in told, told
    told = plan(db, ended_statement(17, Tier.HOT, after=after, limit=50))
    assert "ix_job_class" in told, told
    for statement in (newest_statement([5, -6], 3), older_statement({5: (7, 8, 9), -6: (7, 8, 9)})):
        assert "filesort" not in plan(db, statement)


def plan(db: Database, statement: ClauseElement | str) -> str:
    written = {"literal_binds": True}
    compiled = (
        statement if isinstance(statement, str) else str(statement.compile(dialect=db.engine.dialect, compile_kwargs=written))
    )
    explain = "EXPLAIN QUERY PLAN" if db.dialect == "sqlite" else "EXPLAIN"
    rows = db.read_sync(lambda conn: conn.exec_driver_sql(f"{explain} {compiled.replace('%', '%%')}").all())
    return " | ".join(" ".join(str(one) for one in row) for row in rows)


async def test_classes_are_made_once(history: History) -> None:
    async with engine_of(history.db) as engine:
        found = await engine.policy()
    order = Order(policy=found.policy)
    made = history.db.write_sync(lambda conn: make_classes(conn, order))
    assert history.db.read_sync(lambda conn: class_ids(conn, order)) == made
    assert min(made.values()) >= 16
