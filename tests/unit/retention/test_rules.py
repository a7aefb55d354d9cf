"""Which job is due when: examples that people can read, and what must hold for every job and policy."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.job import END_STATES, DetailState, JobType
from darner.retention.policy import FLOOR_MS, HOUR_MS, SEED_POLICY, Age, Basis, Match, Policy, Rule
from darner.retention.rules import HELD, class_of, forgotten_at, scheme_of, stale_classes, verdict


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A job as the rules see it."""

    type: str = "preheat"
    state: str = "SUCCEEDED"
    owner: str = "ann"
    tag: str = "nightly"
    application: str = "shop"
    created_at: int = 10 * HOUR_MS
    finished_at: int | None = 13 * HOUR_MS
    held: bool | int = False
    tier: str = "hot"


def keep(hours: float, *, name: str = "r", basis: Basis = Basis.FINISHED, match: Match | None = None) -> Rule:
    return Rule(name=name, basis=basis, hot=Age(text=f"{hours}h", ms=int(hours * HOUR_MS)), match=match or Match())


def policy(*rules: Rule) -> Policy:
    return Policy(rules=rules)


def test_a_fresh_installation_keeps_six_hours_from_the_end() -> None:
    assert forgotten_at(Facts(), SEED_POLICY) == 19 * HOUR_MS
    assert verdict(Facts(), SEED_POLICY).reason == "Rule default keeps it 6h from its end."


def test_upstreams_basis_counts_from_creation_but_never_cuts_into_the_hour_after_the_end() -> None:
    created = policy(keep(6, basis=Basis.CREATED))
    assert forgotten_at(Facts(), created) == 16 * HOUR_MS
    late = verdict(Facts(finished_at=40 * HOUR_MS), created)
    assert late.forgotten_at == 41 * HOUR_MS
    assert "not before 1h after its end" in late.reason


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Facts(state="RUNNING", finished_at=None), "not ended"),
        (Facts(state="CANCELLING"), "not ended"),
        (Facts(finished_at=None), "not ended"),
        (Facts(held=1), "held"),
    ],
)
def test_what_must_stay_says_why(job: Facts, said: str) -> None:
    found = verdict(job, SEED_POLICY)
    assert found.forgotten_at is None
    assert said in found.reason
    assert not found.due(10**18)


def test_the_first_rule_that_fits_decides() -> None:
    failures = keep(48, name="failures", match=Match(states=("FAILED", "PARTIAL")))
    shop = Rule(name="shop", match=Match(applications=("shop",), owners=("ann", "bob")))
    rules = policy(failures, shop, keep(2, name="rest"))
    assert verdict(Facts(state="FAILED"), rules).rule == "failures"
    assert verdict(Facts(), rules).reason == "Rule shop keeps it for ever."
    assert verdict(Facts(owner="eve"), rules).rule == "rest"


def test_a_job_that_no_rule_fits_is_kept() -> None:
    found = verdict(Facts(), policy(keep(2, match=Match(types=("gc",)))))
    assert (found.rule, found.forgotten_at) == ("", None)
    assert "kept" in found.reason


def test_a_change_of_durations_moves_no_job_to_another_class() -> None:
    assert scheme_of(policy(keep(6))) == scheme_of(policy(keep(600)))
    assert scheme_of(policy(keep(6))) != scheme_of(policy(keep(6, match=Match(types=("gc",)))))
    assert scheme_of(policy(keep(6, name="a"), keep(6, name="b"))) != scheme_of(policy(keep(6, name="b"), keep(6, name="a")))


def test_held_jobs_have_a_class_of_their_own() -> None:
    assert class_of(Facts(held=1), SEED_POLICY, scheme_of(SEED_POLICY)) == HELD


def test_classes_of_an_older_sorting_are_stale_and_present_ones_are_not() -> None:
    scheme = scheme_of(SEED_POLICY)
    current = class_of(Facts(), SEED_POLICY, scheme)
    assert stale_classes([current, HELD, "00000000:default", f"{scheme}:gone"], SEED_POLICY, scheme) == sorted(
        ["00000000:default", f"{scheme}:gone"]
    )


moments = st.integers(min_value=1, max_value=10**13)
jobs = st.builds(
    Facts,
    type=st.sampled_from([str(one) for one in JobType]),
    state=st.sampled_from([str(one) for one in DetailState]),
    owner=st.sampled_from(["ann", "bob", ""]),
    tag=st.sampled_from(["nightly", ""]),
    application=st.sampled_from(["shop", ""]),
    created_at=moments,
    finished_at=st.none() | moments,
    held=st.booleans() | st.integers(0, 1),
)
matches = st.builds(
    Match,
    types=st.lists(st.sampled_from([str(one) for one in JobType]), max_size=2).map(tuple),
    states=st.lists(st.sampled_from(sorted(END_STATES)), max_size=2).map(tuple),
    owners=st.lists(st.sampled_from(["ann", "bob"]), max_size=1).map(tuple),
)
ages = st.none() | st.integers(min_value=-(10**9), max_value=10**12).map(lambda ms: Age(text="any", ms=ms))
rules = st.builds(Rule, name=st.sampled_from(["a", "b", "c"]), match=matches, basis=st.sampled_from(list(Basis)), hot=ages)
policies = st.lists(rules, min_size=0, max_size=4).map(lambda found: Policy(rules=tuple(found)))


@given(job=jobs, rules=policies, now_ms=st.integers(min_value=0, max_value=2 * 10**13))
def test_no_job_that_is_unfinished_held_or_young_is_ever_due_whatever_the_policy(job: Facts, rules: Policy, now_ms: int) -> None:
    if not verdict(job, rules).due(now_ms):
        return
    assert job.state in END_STATES
    assert job.finished_at is not None
    assert not job.held
    assert now_ms - job.finished_at >= FLOOR_MS


@given(job=jobs, rules=policies)
def test_a_longer_age_never_forgets_earlier(job: Facts, rules: Policy) -> None:
    longer = Policy(rules=tuple(replace(one, hot=one.hot and Age(text="more", ms=one.hot.ms + 1)) for one in rules.rules))
    before, after = forgotten_at(job, rules), forgotten_at(job, longer)
    assert (before is None) == (after is None)
    assert before is None or after is None or after >= before
