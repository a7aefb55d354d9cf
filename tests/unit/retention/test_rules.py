"""Which job moves when: examples that people can read, and what must hold for every job and policy."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retention.policies import Facts, age, jobs, keep, order, orders, policies, policy

from darner.core.job import END_STATES, Tier
from darner.retention.policy import FLOOR_MS, HOUR_MS, Age, Basis, KeepLast, Match, Policy, Rule, Stay
from darner.retention.presets import default_policy
from darner.retention.rules import (
    HELD_BY_SELECTOR,
    NO_RULE,
    Order,
    Selector,
    class_names,
    class_of,
    moves,
    rule_for,
    scheme_of,
    verdict,
)

FRESH = Order(policy=default_policy())
END = 13 * HOUR_MS


def test_a_fresh_installation_keeps_jobs_hot_for_six_hours_from_their_end_then_warm() -> None:
    found = verdict(Facts(), FRESH)
    assert (found.rule, found.tier, found.moves_at, found.next_tier) == ("success", Tier.HOT, END + 6 * HOUR_MS, Tier.WARM)
    assert found.forgotten_at == END + 7 * 24 * HOUR_MS
    assert found.reason == "Rule success keeps it 7d from its end."
    failed = verdict(Facts(state="FAILED", tier=1), FRESH)
    assert (failed.moves_at, failed.next_tier) == (END + 30 * 24 * HOUR_MS, Tier.DELETED)


def test_upstreams_basis_counts_from_creation_but_never_cuts_into_the_hour_after_the_end() -> None:
    created = order(keep(6, basis=Basis.CREATED))
    assert verdict(Facts(), created).forgotten_at == 16 * HOUR_MS
    late = verdict(Facts(finished_at=40 * HOUR_MS), created)
    assert late.forgotten_at == late.moves_at == 41 * HOUR_MS
    assert "not before 1h after its end" in late.reason


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Facts(state="RUNNING", finished_at=None), "not ended"),
        (Facts(state="CANCELLING"), "not ended"),
        (Facts(finished_at=None), "not ended"),
        (Facts(held=1), "held"),
        (Facts(held=1, tier=3), "held"),
    ],
)
def test_what_must_stay_says_why(job: Facts, said: str) -> None:
    found = verdict(job, FRESH)
    assert found.moves_at is None
    assert said in found.reason
    assert not found.due(10**18)


def test_a_selector_holds_whatever_rule_fits() -> None:
    held = replace(FRESH, selectors=(Selector(id=1, match=Match(owners=("ann",)), reason="law suit"),))
    assert verdict(Facts(), held).reason == "It is held with others: law suit."
    assert verdict(Facts(), held).moves_at is None
    assert verdict(Facts(owner="bob"), held).moves_at is not None


def test_the_first_rule_that_fits_decides() -> None:
    failures = keep(48, name="failures", match=Match(states=("FAILED", "PARTIAL")))
    shop = keep(None, name="shop", match=Match(applications=("shop",), owners=("ann", "bob")))
    rules = order(failures, shop, keep(2, name="rest"))
    assert verdict(Facts(state="FAILED"), rules).rule == "failures"
    assert verdict(Facts(), rules).reason == "Rule shop keeps it for ever."
    assert verdict(Facts(owner="eve"), rules).rule == "rest"


def test_rules_look_at_labels_clusters_and_importance() -> None:
    def which(job: Facts) -> str:
        rule = rule_for(job, rules)
        return rule.name if rule else ""

    rules = policy(
        keep(2, name="prod", match=Match(labels=(("env", "prod"), ("env", "stage"), ("team", "a")))),
        keep(3, name="far", match=Match(clusters=(7, 8))),
        keep(4, name="vital", match=Match(importance=("high", "critical"))),
    )
    assert which(Facts(labels={"env": "stage", "team": "a", "more": "x"})) == "prod"
    assert which(Facts(labels={"env": "stage"})) == ""
    assert which(Facts(clusters=(1, 8))) == "far"
    assert which(Facts(importance=3)) == "vital"
    assert which(Facts()) == ""


def test_a_job_that_no_rule_fits_is_kept() -> None:
    found = verdict(Facts(), order(keep(2, match=Match(types=("gc",)))))
    assert (found.rule, found.forgotten_at) == ("", None)
    assert "kept" in found.reason


def test_a_hidden_job_is_gone_after_its_undo_time_whatever_the_rule_says_of_those_that_are_not() -> None:
    hidden = Facts(tier=3, base_at=20 * HOUR_MS)
    assert verdict(hidden, order(keep(6, undo=5))).moves_at == 25 * HOUR_MS
    for rule in (keep(6), keep(None)):
        found = verdict(hidden, order(rule))
        assert (found.moves_at, found.next_tier, found.forgotten_at) == (44 * HOUR_MS, None, 20 * HOUR_MS)
        assert found.reason == "It was deleted; it can be restored for 24h after that."
        assert [(move.start, move.to, move.age.ms) for move in moves(rule)][-1] == (Tier.DELETED, None, 24 * HOUR_MS)
    left_out = verdict(hidden, order(keep(1, match=Match(types=("gc",)))))
    assert (left_out.rule, left_out.moves_at) == ("", 44 * HOUR_MS)


def test_the_steps_of_a_rule_with_all_tiers() -> None:
    stays = (Stay(tier=Tier.HOT, until=age(6)), Stay(tier=Tier.WARM, until=age(9)), Stay(tier=Tier.ARCHIVE, until=age(20)))
    found = [(one.start, one.to, one.age.text, one.before and one.before.text) for one in moves(Rule(name="a", stays=stays))]
    assert found == [
        (Tier.HOT, Tier.WARM, "6h", "9h"),
        (Tier.HOT, Tier.ARCHIVE, "9h", "20h"),
        (Tier.WARM, Tier.ARCHIVE, "9h", "20h"),
        (Tier.HOT, None, "20h", None),
        (Tier.WARM, None, "20h", None),
        (Tier.DELETED, None, "24h", None),
    ]


def test_a_change_of_durations_moves_no_job_to_another_class() -> None:
    assert scheme_of(order(keep(6))) == scheme_of(order(keep(600)))
    assert scheme_of(order(keep(6))) != scheme_of(order(keep(6, match=Match(types=("gc",)))))
    assert scheme_of(order(keep(6, name="a"), keep(6, name="b"))) != scheme_of(order(keep(6, name="b"), keep(6, name="a")))
    held = (Selector(id=1, match=Match(), reason="x"),)
    assert scheme_of(order(keep(6))) != scheme_of(order(keep(6), selectors=held))


def test_the_classes_of_held_jobs_and_of_those_that_no_rule_fits() -> None:
    rules = order(keep(6, match=Match(types=("gc",))), selectors=(Selector(id=1, match=Match(owners=("eve",)), reason="x"),))
    assert class_of(Facts(held=1), rules) == ""
    assert class_of(Facts(owner="eve"), rules) == HELD_BY_SELECTOR
    assert class_of(Facts(), rules) == NO_RULE
    assert class_of(Facts(type="gc"), rules) == "r"
    last = replace(keep(6), keep_last=KeepLast(count=2))
    assert list(class_names(policy(last))) == ["-", ":held", "r", "kept:r"]


@given(job=jobs(), rules=orders(), now_ms=st.integers(min_value=0, max_value=2 * 10**12))
def test_no_job_that_is_unfinished_held_or_young_is_ever_due_whatever_the_policy(job: Facts, rules: Order, now_ms: int) -> None:
    if not verdict(job, rules).due(now_ms):
        return
    assert job.state in END_STATES
    assert job.finished_at is not None
    assert not job.held
    assert job.tier == Tier.DELETED or rule_for(job, rules.policy) is not None
    assert class_of(job, rules) not in {"", HELD_BY_SELECTOR, *(() if job.tier == Tier.DELETED else (NO_RULE,))}
    assert now_ms - job.finished_at >= FLOOR_MS


def with_longer(rule: Rule, more_ms: int) -> Rule:
    stays = [replace(one, until=one.until and Age(text="more", ms=one.until.ms + more_ms)) for one in rule.stays]
    return replace(rule, stays=tuple(stays), undo=rule.undo and Age(text="more", ms=rule.undo.ms + more_ms))


@given(job=jobs(), rules=policies(), more_ms=st.integers(0, 10**9))
def test_a_longer_age_never_forgets_or_moves_earlier(job: Facts, rules: Policy, more_ms: int) -> None:
    longer = Policy(rules=tuple(with_longer(one, more_ms) for one in rules.rules))
    before, after = verdict(job, Order(policy=rules)), verdict(job, Order(policy=longer))
    for one, other in ((before.forgotten_at, after.forgotten_at), (before.moves_at, after.moves_at)):
        assert (one is None) == (other is None)
        assert one is None or other is None or other >= one


@given(job=jobs(), rules=policies())
def test_the_first_match_wins_and_later_rules_change_nothing(job: Facts, rules: Policy) -> None:
    first = rule_for(job, rules)
    position = rules.rules.index(first) if first else len(rules.rules)
    assert rule_for(job, Policy(rules=rules.rules[:position])) is None
    assert rule_for(job, Policy(rules=rules.rules[: position + 1])) == first


@given(job=jobs(ended=True), rules=orders(), now_ms=st.integers(0, 2 * 10**12))
def test_a_job_is_due_just_when_one_step_of_its_rule_takes_it(job: Facts, rules: Order, now_ms: int) -> None:
    """The steps, worked out from nothing but their own values."""
    found = verdict(job, rules)
    rule = rule_for(job, rules.policy)
    assert job.finished_at is not None
    taking = []
    for move in moves(rule) if rule and class_of(job, rules) == rule.name else []:
        end = job.finished_at if rule and rule.basis == Basis.FINISHED else job.created_at
        base = job.base_at if move.start == Tier.DELETED else end
        assert base is not None
        old = now_ms - base
        if job.tier == move.start and old >= move.age.ms and (move.before is None or old < move.before.ms):
            taking.append(move)
    young = now_ms - job.finished_at < FLOOR_MS
    assert len(taking) <= 1
    assert found.due(now_ms) == (bool(taking) and not young)
