"""Versions of the policy on each database: numbered without gaps, never two from the same base."""

import json
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, insert
from tests.unit.retention.policies import keep, policy

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError
from darner.db import Database
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_policy
from darner.retention import records
from darner.retention.engine import RetentionEngine
from darner.retention.ports import RetentionParts
from darner.retention.presets import SEED_ORIGIN, default_policy


def at_once(database: Database, *changes: Callable[[Connection], object]) -> list[object]:
    """What each transaction gave, or the ConflictError that it got."""
    found: list[object] = [None] * len(changes)
    start = threading.Barrier(len(changes))

    def run(index: int, change: Callable[[Connection], object]) -> None:
        start.wait()
        try:
            found[index] = database.write_sync(change)
        except ConflictError as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index, change)) for index, change in enumerate(changes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_of_changes_from_the_same_version_one_wins(database: Database) -> None:
    database.write_sync(lambda conn: records.seed_policy(conn, default_policy(), SEED_ORIGIN))

    def change(hours: int) -> Callable[[Connection], object]:
        return lambda conn: records.add_policy(
            conn, policy(keep(hours)), origin="user", by=f"p{hours}", reason="why", base_version=1
        )

    found = at_once(database, *(change(hours) for hours in (5, 6, 7)))
    assert sum(not isinstance(one, ConflictError) for one in found) == 1
    versions = database.read_sync(lambda conn: records.policy_history(conn, 9))
    assert [one.version for one in versions] == [2, 1]
    with pytest.raises(ConflictError, match=r"Version 2 is in force, made by p\d "):
        database.write_sync(change(9))


def test_managers_that_start_together_seed_once(database: Database) -> None:
    def seed(conn: Connection) -> object:
        return records.seed_policy(conn, default_policy(), SEED_ORIGIN)

    found = at_once(database, seed, seed, seed)
    assert found.count(True) == 1
    assert len(database.read_sync(lambda conn: records.policy_history(conn, 9))) == 1


def test_versions_go_on_after_those_of_earlier_releases(database: Database) -> None:
    body = json.dumps({"rules": [{"name": "held", "match": {}, "basis": "finished", "hot": "6h", "then": "delete"}]})
    row = {"body": body, "origin": "user", "created_at": 5, "created_by": "ann", "reason": "old"}
    for _ in range(2):
        database.write_sync(lambda conn: conn.execute(insert(retention_policy).values(**row)))
    made = database.write_sync(lambda conn: records.add_policy(conn, policy(keep(9)), origin="user", by="b", reason=""))
    assert made.version == 3
    old = database.read_sync(lambda conn: records.policy_version(conn, 1))
    assert (old.policy.rules[0].name, old.policy.rules[0].ends and old.policy.rules[0].ends.text) == ("held", "6h")
    with pytest.raises(NotFoundError):
        database.read_sync(lambda conn: records.policy_version(conn, 9))


def test_a_database_with_jobs_and_no_policy_is_left_without(database: Database) -> None:
    times = {"created_at": 1, "finished_at": 2, "base_at": 2, "updated_at": 2}
    database.write_sync(lambda conn: conn.execute(insert(job).values(type="preheat", state="FAILED", **times)))
    assert not database.write_sync(lambda conn: records.seed_policy(conn, default_policy(), SEED_ORIGIN))
    assert database.read_sync(records.policy_in_force) is None


async def test_a_rule_that_may_not_come_anew_is_not_brought_back_either(database: Database) -> None:
    body = json.dumps({"rules": [{"name": "held", "match": {}, "basis": "finished", "hot": "6h", "then": "delete"}]})
    row = {"version": 1, "body": body, "origin": "user", "created_at": 5, "created_by": "ann", "reason": "old"}
    database.write_sync(lambda conn: conn.execute(insert(retention_policy).values(**row)))
    engine = RetentionEngine(database)
    assert (await engine.preview({"version": 1}, by="ann"))["policy"]["rules"][0]["name"] == "held"
    await engine.set_policy({"keep": "36h"}, by="ann")
    with pytest.raises(InvalidInputError, match="choose another name"):
        await engine.rollback(1, by="ann")
    assert (await engine.policy()).version == 2


async def test_a_sink_that_nobody_knows_is_refused(database: Database) -> None:
    engine = RetentionEngine(database, parts=RetentionParts(known_sinks=frozenset({"loki"})))
    rule = {"name": "all", "hot": "6h", "export": "lokki"}
    with pytest.raises(InvalidInputError, match="known are: loki") as refused:
        await engine.set_policy({"rules": [rule]}, by="ann")
    assert refused.value.field == "rules[0].export"
    made = await engine.set_policy({"rules": [{**rule, "export": "loki"}]}, by="ann")
    assert made.policy.rules[0].export == "loki"
