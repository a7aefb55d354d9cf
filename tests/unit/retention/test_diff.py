"""What a change of policy means to people, and that it is judged rightly without looking at any row."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from tests.unit.retention.policies import Facts, age, jobs, keep, matches, policies, policy

from darner.core.job import Tier
from darner.retention.diff import Effect, diff_policies, diff_to_json, remarks, tightens, words
from darner.retention.policy import FLOOR_MS, HOUR_MS, Basis, KeepLast, Match, Policy, Rule, Stay
from darner.retention.presets import default_policy, dragonfly_policy
from darner.retention.rules import Order, fits, rule_for, verdict
from darner.retention.space import Search, UnsureError

FAILED = Match(states=("FAILED",))


def effect(before: Rule, after: Rule) -> Effect:
    return diff_policies(policy(before), policy(after)).effect


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (keep(6), keep(6), "same"),
        (keep(6), keep(7), "loosened"),
        (keep(7), keep(6), "tightened"),
        (keep(6), keep(None), "loosened"),
        (keep(None), keep(900), "tightened"),
        (keep(6, warm=20), keep(3, warm=20), "same"),
        (keep(6, warm=20), keep(6, warm=19), "tightened"),
        (keep(6), keep(6, undo=24), "loosened"),
        (keep(6, undo=24), keep(6, undo=23), "tightened"),
        (keep(6, undo=24), keep(6), "tightened"),
        (keep(6, undo=24), keep(7), "mixed"),
        (keep(6), keep(6, basis=Basis.CREATED), "tightened"),
        (keep(6, basis=Basis.CREATED), keep(6), "loosened"),
        (keep(1), keep(1, basis=Basis.CREATED), "same"),
        (keep(6), replace(keep(6), keep_last=KeepLast(count=2)), "loosened"),
        (replace(keep(6), keep_last=KeepLast(count=2)), replace(keep(6), keep_last=KeepLast(count=1)), "tightened"),
        (replace(keep(6), export="siem"), keep(6), "tightened"),
        (keep(6), replace(keep(6), export="siem"), "loosened"),
        (keep(6), keep(6, match=FAILED), "loosened"),
        (keep(6, match=FAILED), keep(6), "tightened"),
    ],
)
def test_one_rule_changed(before: Rule, after: Rule, expected: str) -> None:
    assert effect(before, after) == expected


def test_a_step_into_the_archive_loosens_and_leaving_it_out_tightens() -> None:
    plain, archived = default_policy(), default_policy(archive=True)
    assert diff_policies(plain, archived).effect == Effect.LOOSENED
    assert diff_policies(archived, plain).effect == Effect.TIGHTENED
    assert tightens(plain, dragonfly_policy())


def test_what_a_new_rule_takes_from_a_later_one_is_said_with_an_example() -> None:
    found = diff_policies(policy(keep(48, name="rest")), policy(keep(5, name="bad", match=FAILED), keep(48, name="rest")))
    assert found.effect == Effect.TIGHTENED
    (lot,) = found.lots
    assert (lot.before, lot.after, lot.tightens) == ("rest", "bad", ("forgotten sooner",))
    assert lot.example is not None
    assert (lot.example.state, lot.example.type) == ("FAILED", "preheat")
    assert words(found) == [
        "Rule bad is new, at place 1: match.states FAILED, basis finished, hot 5h.",
        "Jobs of rule rest, now of rule bad: tightened: forgotten sooner.",
    ]


def test_what_is_archived_stays_with_the_name_of_its_rule() -> None:
    def archived(name: str, hours: float, match: Match) -> Rule:
        stays = (Stay(tier=Tier.HOT, until=age(1)), Stay(tier=Tier.ARCHIVE, until=age(hours)))
        return Rule(name=name, match=match, stays=stays)

    before = policy(archived("a", 90, FAILED))
    after = policy(archived("b", 90, FAILED), archived("a", 9, Match(states=("PARTIAL",))))
    found = diff_policies(before, after)
    assert found.tightens
    assert "Jobs of rule a: tightened: what it archived is forgotten sooner." in words(found)


def test_what_may_not_be_meant_is_remarked() -> None:
    twice = policy(keep(6, name="all", match=FAILED), keep(9, name="never", match=Match(states=("FAILED",), owners=("x",))))
    assert remarks(twice, archive=True) == [
        "Rule never decides about no job: the rules before it fit all of its jobs.",
        "Jobs that no rule fits are kept for ever, like a preheat job that is SUCCEEDED.",
    ]
    assert remarks(default_policy(), archive=False) == []
    (said,) = remarks(default_policy(archive=True), archive=False)
    assert said == "There is no archive here: jobs of success, rest wait in the tier before it."


def test_fields_are_compared_one_by_one() -> None:
    before = policy(keep(6, name="a", warm=20, match=FAILED), keep(6, name="b"), keep(9, name="gone"))
    after = policy(keep(6, name="b"), keep(6, name="a", warm=30, match=Match(states=("FAILED", "PARTIAL"))))
    shown = diff_to_json(diff_policies(before, after))
    assert [(one["rule"], one["change"]) for one in shown["rules"]] == [("b", "moved"), ("a", "changed"), ("gone", "removed")]
    assert shown["rules"][1]["fields"] == [
        {"field": "match.states", "before": ["FAILED"], "after": ["FAILED", "PARTIAL"]},
        {"field": "warm", "before": "20h", "after": "30h"},
    ]
    assert "Rule a: match.states FAILED → FAILED/PARTIAL, warm 20h → 30h." in shown["words"]
    assert shown["tightens"] is True


def test_shorter_books_are_shown_but_are_no_tightening() -> None:
    before = policy(keep(6))
    after = replace(before, bookkeeping=replace(before.bookkeeping, runs=age(48)))
    found = diff_policies(before, after)
    assert words(found) == ["Own records: runs 400d → 48h."]
    assert not found.tightens
    assert words(diff_policies(before, before)) == ["Nothing changes."]


def test_rules_that_can_never_meet_are_not_compared() -> None:
    before = policy(keep(50, name="gc", match=Match(types=("gc",))), keep(20, name="rest"))
    after = policy(keep(50, name="gc", match=Match(types=("gc",))), keep(30, name="rest"))
    assert diff_policies(before, after).effect == Effect.LOOSENED
    covered = policy(
        *(keep(9, name=f"r{n}", match=Match(states=(one,))) for n, one in enumerate(sorted(END))), keep(1, name="never")
    )
    assert not tightens(covered, Policy(rules=(*covered.rules[:-1], keep(1, name="never"))))
    assert diff_policies(covered, Policy(rules=(*covered.rules[:-1], keep(5, name="never")))).effect == Effect.SAME


END = {"SUCCEEDED", "FAILED", "PARTIAL", "TIMED_OUT", "CANCELLED"}


def test_many_rules_are_judged_soon_or_taken_for_a_tightening() -> None:
    hard = [
        keep(5 + n, name=f"r{n}", match=Match(owners=(f"o{n}",), tags=(f"t{n}",), labels=((f"k{n % 9}", "v"),), clusters=(n + 1,)))
        for n in range(63)
    ]
    before = policy(*hard, keep(9, name="rest"))
    assert tightens(before, policy(*reversed(hard), keep(8, name="rest")))
    assert not tightens(before, before)


def stayed_as_long(before: Policy, after: Policy, job: Facts) -> bool:
    was, is_now = verdict(job, Order(policy=before)), verdict(job, Order(policy=after))
    return is_now.forgotten_at is None or (was.forgotten_at is not None and is_now.forgotten_at >= was.forgotten_at)


@settings(max_examples=100)
@given(before=policies(keep_last=False), after=policies(keep_last=False), job=jobs(ended=True))
def test_a_change_that_does_not_tighten_forgets_no_job_sooner(before: Policy, after: Policy, job: Facts) -> None:
    seen = replace(job, held=0, tier=0)
    if not tightens(before, after):
        assert stayed_as_long(before, after, seen)


@settings(max_examples=60)
@given(before=policies(), after=policies())
def test_each_lot_has_an_example_that_bears_it_out(before: Policy, after: Policy) -> None:
    for lot in diff_policies(before, after).lots:
        found = lot.example
        if found is None:
            assert "what it archived" in (*lot.tightens, *lot.loosens)[0]
            continue
        jobs_of_it = [
            Facts(
                type=found.type,
                state=found.state,
                owner=found.owner,
                tag=found.tag,
                application=found.application,
                importance=found.importance,
                labels=found.labels,
                clusters=found.clusters,
                created_at=HOUR_MS,
                finished_at=HOUR_MS + ran_ms,
            )
            for ran_ms in (0, 1000 * HOUR_MS)
        ]
        for name, one in ((lot.before, before), (lot.after, after)):
            rule = rule_for(jobs_of_it[0], one)
            assert (rule.name if rule else "") == name
        if "forgotten sooner" in lot.tightens:
            assert not all(stayed_as_long(before, after, job) for job in jobs_of_it)
        if "forgotten sooner" in lot.loosens:
            assert not all(stayed_as_long(after, before, job) for job in jobs_of_it)


@given(wanted=matches, others=matches, more=matches, job=jobs(ended=True))
def test_a_set_of_jobs_is_empty_only_if_no_job_is_in_it(wanted: Match, others: Match, more: Match, job: Facts) -> None:
    found = Search().jobs([wanted], [others, more])
    if fits(job, wanted) and not fits(job, others) and not fits(job, more):
        assert found is not None


def test_a_search_that_is_too_hard_says_so() -> None:
    many = [Match(owners=(f"o{n}",), tags=(f"t{n}",)) for n in range(40)]
    search = Search()

    def ask_on() -> None:
        for _ in range(100_000):
            search.jobs([], many)

    with pytest.raises(UnsureError):
        ask_on()


def test_the_floor_counts_on_both_sides() -> None:
    stays = (Stay(tier=Tier.HOT, until=age(1)),)
    assert not tightens(policy(Rule(name="a", stays=stays)), policy(Rule(name="a", basis=Basis.CREATED, stays=stays)))
    assert FLOOR_MS == HOUR_MS
