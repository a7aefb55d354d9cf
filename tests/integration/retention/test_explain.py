"""What a job's page says will happen to it, and why not."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import insert, update
from tests.integration.retention.history import History
from tests.unit.retention.policies import keep, policy

from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job, job_cluster
from darner.retention import records
from darner.retention.explain import explain
from darner.retention.parse import match_from_json, policy_from_json
from darner.retention.policy import HOUR_MS, Match, Policy
from darner.retention.presets import default_policy
from darner.retention.rules import Order, Verdict
from darner.retention.sql.classes import make_classes
from darner.retention.sql.holds import hold_matching


class Known:
    """A job as a list of jobs knows it: nothing but its number counts, the rest is read."""

    def __init__(self, key: int, **facts: Any) -> None:
        self.id = key
        self.type, self.state, self.owner, self.tag, self.application = "preheat", "SUCCEEDED", "", "", ""
        self.labels: Mapping[str, str] = {}
        self.importance, self.held, self.tier = 0, 0, 0
        self.clusters = ()
        self.created_at, self.finished_at, self.base_at = 1, HOUR_MS, HOUR_MS
        self.__dict__.update(facts)


def force(history: History, made: Policy) -> None:
    history.db.write_sync(lambda conn: records.add_policy(conn, made, origin="user", by="ann", reason=""))


def ask(history: History, key: int, *, archive: bool = True, **facts: Any) -> Verdict:
    (found,) = history.db.read_sync(lambda conn: explain(conn, [Known(key, **facts)], archive=archive))
    return found


def change(history: History, key: int, **values: Any) -> None:
    history.db.write_sync(lambda conn: conn.execute(update(job).where(job.c.id == key).values(**values)))


def test_without_a_policy_all_is_kept(history: History) -> None:
    found = ask(history, history.add("FAILED", ended_h=9))
    assert (found.moves_at, found.reason) == (None, "There is no retention policy, so it is kept.")


def test_rule_tier_next_step_and_end(history: History) -> None:
    force(history, default_policy(archive=True))
    key = history.add("FAILED", ended_h=2)
    found = ask(history, key)
    now = history.db.read_sync(db_now_ms)
    assert (found.rule, found.tier, found.next_tier) == ("rest", Tier.HOT, Tier.WARM)
    assert found.moves_at is not None
    assert found.forgotten_at is not None
    assert found.moves_at == pytest.approx(now + 4 * HOUR_MS, abs=60_000)
    assert found.forgotten_at == pytest.approx(now + (400 * 24 - 2) * HOUR_MS, abs=60_000)
    assert ask(history, history.add("RUNNING", ended_h=None)).reason == "It has not ended."


def test_a_held_job_says_why(history: History) -> None:
    force(history, default_policy())
    key = history.add("FAILED", ended_h=9, held=1)
    change(history, key, hold_reason="audit 7.")
    assert ask(history, key).reason == "It is held: audit 7."
    other = history.add("FAILED", ended_h=9)
    match = match_from_json({"states": ["FAILED"]}, "match")
    history.db.write_sync(lambda conn: hold_matching(conn, match, reason="law suit", by="ann", until=None, now_ms=1))
    assert ask(history, other).reason == "It is held with others: law suit."


def test_clusters_are_looked_up_where_a_rule_asks_for_them(history: History) -> None:
    force(history, policy(keep(2, name="far", match=Match(clusters=(9,))), keep(3, name="rest")))
    near, far = history.add("FAILED", ended_h=1), history.add("FAILED", ended_h=1)
    history.db.write_sync(lambda conn: conn.execute(insert(job_cluster).values(job_id=far, cluster_id=9)))
    assert (ask(history, near).rule, ask(history, far).rule) == ("rest", "far")


def test_the_last_success_of_a_group_is_kept_but_still_folded(history: History) -> None:
    made = policy_from_json({"rules": [{"name": "a", "hot": "6h", "warm": "7h", "keep_last": 1}]})
    force(history, made)
    key = history.add("SUCCEEDED", ended_h=9)
    ids = history.db.write_sync(lambda conn: make_classes(conn, Order(policy=made)))
    change(history, key, **{"class": ids["kept:a"]})
    found = ask(history, key)
    assert found.reason == "It is the last successful job of its URL, which rule a keeps."
    assert (found.forgotten_at, found.next_tier) == (None, Tier.WARM)
    change(history, key, tier=1)
    assert ask(history, key).moves_at is None


def test_a_job_waits_for_its_sink_and_for_the_archive(history: History) -> None:
    rule = {"name": "a", "hot": "6h", "archive": "30d", "export": "siem"}
    force(history, policy_from_json({"rules": [rule]}))
    young, key = history.add("FAILED", ended_h=1), history.add("FAILED", ended_h=9)
    assert "It stays longer if the sink siem" in ask(history, young).reason
    waiting = ask(history, key)
    assert (waiting.reason, waiting.moves_at, waiting.forgotten_at) == ("It waits until the sink siem has it.", None, None)
    row = {"job_id": key, "sink": "siem", "created_at": 1, "acked_at": 2}
    history.db.write_sync(lambda conn: conn.execute(insert(export_outbox).values(**row)))
    assert ask(history, key).reason == "It waits to be archived."
    assert "there is no archive here" in ask(history, key, archive=False).reason


def test_a_hidden_job_can_be_restored_for_a_time_and_an_archived_one_is_judged_as_it_is(history: History) -> None:
    force(history, default_policy(archive=True))
    key = history.add("FAILED", ended_h=900)
    now = history.db.read_sync(db_now_ms)
    change(history, key, tier=3, base_at=now - HOUR_MS)
    found = ask(history, key)
    assert (found.tier, found.moves_at, found.forgotten_at) == (Tier.DELETED, now + 23 * HOUR_MS, now - HOUR_MS)
    archived = ask(history, 4711, tier=2, finished_at=now, created_at=now)
    assert (archived.rule, archived.tier, archived.next_tier) == ("success", Tier.ARCHIVE, Tier.DELETED)
    assert archived.forgotten_at == now + 180 * 24 * HOUR_MS
