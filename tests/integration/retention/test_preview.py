"""What a policy would do is shown before it does it, by the predicate that sweeps act by."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, update
from tests.integration.retention.history import History
from tests.unit.retention.policies import Facts, jobs, keep, order, orders, policy

from darner.core.errors import ConflictError
from darner.core.job import Tier
from darner.db import Database
from darner.db.tables.archive import archive_segment
from darner.db.tables.jobs import job, job_cluster, job_payload
from darner.retention.policy import HOUR_MS, KeepLast, Match
from darner.retention.presets import default_policy, dragonfly_policy
from darner.retention.preview import TOKEN_TTL_MS, check_run_token, check_token, preview, put_token, removal_count
from darner.retention.rules import NO_RULE, Order, Selector, moves, verdict
from darner.retention.sql.classes import class_ids, make_classes
from darner.retention.sql.classify import Sorting, classify_batch
from darner.retention.sql.preview import Sight, heaps
from darner.retention.values import Cursor

NOW = 10**12


def put(conn: Connection, found: Facts, key: int) -> None:
    values = {name: getattr(found, name) for name in ("type", "state", "owner", "tag", "application", "importance", "created_at")}
    times = {"finished_at": found.finished_at, "base_at": found.base_at, "updated_at": found.created_at, "deadline_at": 7}
    labels = json.dumps(dict(found.labels), sort_keys=True) if found.labels else ""
    conn.execute(insert(job).values(id=key, **values, **times, labels=labels, held=int(found.held), tier=found.tier))
    conn.execute(insert(job_payload).values(job_id=key, args='{"url": "http://x"}'))
    for cluster in found.clusters:
        conn.execute(insert(job_cluster).values(job_id=key, cluster_id=cluster))


def add(history: History, *found: Facts, start: int = 1) -> None:
    def write(conn: Connection) -> None:
        for key, one in enumerate(found, start=start):
            put(conn, one, key)

    history.db.write_sync(write, durable=False)


def ended(hours: float, **facts: Any) -> Facts:
    end = NOW - int(hours * HOUR_MS)
    return Facts(**{"created_at": end - 600_000, "finished_at": end, "base_at": end, "clusters": (), **facts})


def ask(history: History, wanted: Order, present: Order | None = None) -> dict[str, Any]:
    return history.db.read_sync(lambda conn: preview(conn, wanted, present, NOW))


def sort(history: History, by: Order) -> None:
    """As a sweep would."""

    def classify(conn: Connection) -> None:
        ids = make_classes(conn, by)
        for tier in (Tier.HOT, Tier.WARM, Tier.DELETED):
            sorting = Sorting(order=by, ids=ids, stale=0, tier=tier)
            classify_batch(conn, sorting, after=Cursor(), limit=1000, now_ms=NOW)

    history.db.write_sync(classify, durable=False)


def test_rows_bytes_ages_and_samples_of_each_step(history: History) -> None:
    add(history, ended(2), ended(7), ended(8), ended(30 * 24, tier=1), ended(31 * 24, tier=1, state="FAILED"), ended(9, held=1))
    found = ask(history, Order(policy=default_policy()))
    steps = {(one["rule"], one["action"], one["tier"]): one for one in found["rules"]}
    assert {key: (one["rows"], one["samples"]) for key, one in steps.items()} == {
        ("success", "fold", "hot"): (2, [2, 3]),
        ("success", "hide", "warm"): (1, [4]),
        ("rest", "hide", "warm"): (1, [5]),
    }
    folded = steps["success", "fold", "hot"]
    assert (folded["oldest"], folded["newest"]) == (NOW - 8 * HOUR_MS, NOW - 7 * HOUR_MS)
    assert folded["bytes"] > 2 * 400
    assert found["total"]["rows"] == 2
    assert found["actions"]["fold"]["rows"] == 2
    assert found["jobs"] == 6
    assert "estimated" in found["bytes_are"]


def test_the_difference_to_the_policy_in_force(history: History) -> None:
    add(history, *(ended(hours) for hours in (2, 3, 5, 20, 40)), ended(50, held=1), ended(50, tier=3))
    present, wanted = order(keep(48, name="a", undo=30)), order(keep(4, name="a", undo=30))
    difference = ask(history, wanted, present)["diff"]
    assert (difference["removed"], difference["removed_in_force"], difference["removed_only_now"]) == (4, 1, 3)
    assert (difference["rows_sooner"], difference["rows_later"]) == (5, 0)
    assert difference["effect"] == "tightened"
    assert difference["by_rule"] == [{"rule": "a", "rows_sooner": 5, "rows_later": 0}]
    back = ask(history, present, wanted)["diff"]
    assert (back["removed_only_now"], back["rows_later"], back["effect"]) == (0, 5, "loosened")
    assert ask(history, wanted)["diff"]["removed_in_force"] == 1  # hidden jobs need no rule


def test_another_basis_counts_from_another_moment_though_jobs_are_sorted_by_the_present_one(history: History) -> None:
    add(history, ended(3, created_at=NOW - 7 * HOUR_MS), ended(0.5, created_at=NOW - 7 * HOUR_MS), ended(3))
    present = order(keep(6, name="all"))
    sort(history, present)
    found = ask(history, Order(policy=dragonfly_policy()), present)
    assert [(one["action"], one["samples"]) for one in found["rules"]] == [("delete", [1])]


def test_selectors_hold_in_a_preview_too(history: History) -> None:
    add(history, ended(9), ended(9, owner="eve"))
    held = (Selector(id=1, match=Match(owners=("eve",)), reason="law"),)
    assert ask(history, order(keep(6), selectors=held))["total"]["rows"] == 1


def test_archived_jobs_fall_due_by_segment(history: History) -> None:
    def seal(conn: Connection) -> None:
        for rule, age_h, rows, state in (
            ("success", 200 * 24, 7, "LIVE"),
            ("success", 100 * 24, 5, "SEALED"),
            ("rest", 9999, 3, "EXPIRED"),
        ):
            at = NOW - age_h * HOUR_MS
            facts = {"rule": rule, "row_count": rows, "max_base_at": at, "state": state, "bytes": rows * 11}
            conn.execute(insert(archive_segment).values(**facts, policy_version=1, epoch=1, created_at=at))

    history.db.write_sync(seal)
    present = Order(policy=default_policy(archive=True))
    found = ask(history, present, present)
    assert [(one["action"], one["tier"], one["rows"], one["bytes"]) for one in found["rules"]] == [("expire", "archive", 7, 77)]
    assert found["diff"]["removed_only_now"] == 0
    shorter = ask(history, Order(policy=default_policy()), present)["diff"]
    assert (shorter["removed"], shorter["removed_only_now"], shorter["rows_sooner"]) == (12, 5, 12)


def test_a_token_is_for_one_policy_one_hour_and_about_that_many_jobs(history: History) -> None:
    add(history, ended(9))
    wanted = order(keep(6))

    def token_of(conn: Connection) -> str:
        return put_token(conn, wanted.policy, preview(conn, wanted, None, NOW), by="ann", now_ms=NOW)

    token = history.db.write_sync(token_of)

    def good(policy_now: Any, at: int = NOW, text: str = token) -> bool:
        return history.db.read_sync(lambda conn: check_token(conn, text, policy_now, at))

    assert good(wanted.policy)
    assert good(wanted.policy, NOW + TOKEN_TTL_MS - 1)
    assert not good(wanted.policy, NOW + TOKEN_TTL_MS)
    assert not good(policy(keep(5)))
    assert not good(wanted.policy, text="other")
    history.db.read_sync(lambda conn: check_run_token(conn, token, wanted, NOW))
    add(history, *[ended(9)] * 101, start=10)
    with pytest.raises(ConflictError, match="counted 1 jobs to remove, and now it would be 102"):
        history.db.read_sync(lambda conn: check_run_token(conn, token, wanted, NOW))
    with pytest.raises(ConflictError, match="not known"):
        history.db.read_sync(lambda conn: check_run_token(conn, token, order(keep(9)), NOW))


def test_the_last_successes_are_kept_where_they_are_known_and_it_is_said_where_not(history: History) -> None:
    add(history, ended(9))
    kept = order(replace(keep(6), keep_last=KeepLast(count=1)))
    assert "counted as if not kept" in ask(history, kept)["notes"][0]


def test_the_last_of_a_group_are_folded_but_not_removed_where_jobs_are_sorted(history: History) -> None:
    made = order(replace(keep(6, name="a", warm=7), keep_last=KeepLast(count=1)))
    add(history, ended(6.5), ended(9), ended(9, tier=1), ended(9, tier=1))
    sort(history, made)

    def keep_some(conn: Connection) -> None:
        kept = class_ids(conn, made)["kept:a"]
        conn.execute(update(job).where(job.c.id.in_([1, 2, 3])).values({"class": kept}))

    history.db.write_sync(keep_some)
    found = ask(history, made)
    assert [(one["action"], one["samples"]) for one in found["rules"]] == [("fold", [1]), ("delete", [4])]
    assert found["notes"] == []


@pytest.fixture
def shelf(database: Database) -> History:
    return History(database)


def told(by: Order, found: Facts, now_ms: int) -> tuple[str, str] | None:
    """(rule, tier) of the step that the rules would let a job take."""
    judged = verdict(found, by)
    return (judged.rule or NO_RULE, judged.tier.word) if judged.due(now_ms) else None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stored=st.lists(jobs(ended=True), min_size=1, max_size=6),
    wanted=orders(),
    present=orders(),
    sorted_by=st.sampled_from("wp-"),
    late_h=st.integers(0, 90),
)
def test_sql_and_the_rules_agree_about_every_job(
    shelf: History, stored: list[Facts], wanted: Order, present: Order, sorted_by: str, late_h: int
) -> None:
    now_ms = max(one.finished_at or 0 for one in stored) + late_h * HOUR_MS

    def clear(conn: Connection) -> None:
        for table in (job, job_cluster, job_payload):
            conn.execute(delete(table))

    shelf.db.write_sync(clear, durable=False)
    add(shelf, *stored)
    wanted, present = without_last(wanted), without_last(present)
    if sorted_by != "-":
        sort(shelf, wanted if sorted_by == "w" else present)

    def look(conn: Connection) -> Any:
        sight, other = (Sight(order=one, classes=class_ids(conn, one)) for one in (wanted, present))
        return heaps(conn, sight, other, now_ms), preview(conn, wanted, present, now_ms), removal_count(conn, wanted, now_ms)

    found, shown, count = shelf.db.read_sync(look)
    counted: Counter[Any] = Counter()
    before: Counter[Any] = Counter()
    for heap in found:
        counted[heap.move and (heap.move.rule.name, heap.move.start.word)] += heap.rows
        before[heap.before and (heap.before.rule.name, heap.before.start.word)] += heap.rows
    assert counted == Counter(told(wanted, one, now_ms) for one in stored)
    assert before == Counter(told(present, one, now_ms) for one in stored)
    shifts = Counter(shift(wanted, present, one) for one in stored)
    assert (shown["diff"]["rows_sooner"], shown["diff"]["rows_later"]) == (shifts[-1], shifts[1])
    assert count == shown["diff"]["removed"]
    for entry in shown["rules"]:
        assert len(entry["samples"]) == entry["rows"]
        for key in entry["samples"]:
            assert told(wanted, stored[key - 1], now_ms) == (entry["rule"], entry["tier"])
    assert all(len(moves(rule)) < 16 for rule in wanted.policy.rules)


def without_last(one: Order) -> Order:
    """SQL knows the last of a group only where jobs are sorted."""
    rules = tuple(replace(rule, keep_last=None) for rule in one.policy.rules)
    return replace(one, policy=replace(one.policy, rules=rules))


def shift(wanted: Order, present: Order, found: Facts) -> int:
    if found.held or found.tier == Tier.DELETED:
        return 0
    is_now, was = (verdict(found, one).forgotten_at or 2**62 for one in (wanted, present))
    return (is_now > was) - (is_now < was)
