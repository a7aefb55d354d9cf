from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from darner.core.job import Tier
from darner.retention.growth.adjust import Pressure, adjusted, archives_earlier, folds_earlier
from darner.retention.growth.ladder import MAX_CUTS, Stage
from darner.retention.policy import DAY_MS, HOUR_MS, Age, Basis, KeepLast, Match, Policy, Rule, Stay, check_policy
from darner.retention.presets import default_policy
from darner.retention.rules import Order, moves, scheme_of

FLOOR = Age(text="7d", ms=7 * DAY_MS)


def age(hours: int) -> Age:
    return Age(text=f"{hours}h", ms=hours * HOUR_MS)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    tiers = draw(st.sampled_from([[0], [0, 1], [0, 2], [0, 1, 2]]))
    ends = sorted(draw(st.lists(st.integers(1, 900), min_size=len(tiers), max_size=len(tiers))))
    for_ever = draw(st.booleans())
    stays = [Stay(tier=Tier(tier), until=age(end)) for tier, end in zip(tiers, ends, strict=True)]
    if for_ever:
        stays[-1] = replace(stays[-1], until=None)
    return Rule(
        name=f"r{draw(st.integers(0, 9**9))}",
        match=Match(states=draw(st.sampled_from([(), ("SUCCEEDED",), ("FAILED",), ("FAILED", "SUCCEEDED")]))),
        basis=draw(st.sampled_from(list(Basis))),
        stays=tuple(stays),
        undo=draw(st.sampled_from([None, age(24)])),
        keep_last=draw(st.sampled_from([None, KeepLast(count=3)])),
    )


policies = st.lists(rules(), min_size=1, max_size=4, unique_by=lambda rule: rule.name).map(lambda some: Policy(rules=tuple(some)))
stages = st.sampled_from(list(Stage))


@given(policy=policies, stage=stages, cut=st.integers(0, MAX_CUTS))
def test_without_opting_in_no_stage_removes_anything_earlier(policy: Policy, stage: Stage, cut: int) -> None:
    found = adjusted(policy, Pressure(stage=stage, cut=cut))
    for before, after in zip(policy.rules, found.rules, strict=True):
        assert after.ends == before.ends
        assert after.undo == before.undo
        removing = [(move.start, move.to, move.age) for move in moves(before) if move.removes]
        assert [(move.start, move.to, move.age) for move in moves(after) if move.removes] == removing


@given(policy=policies, stage=stages, cut=st.integers(0, MAX_CUTS), opted=st.booleans())
def test_what_is_carried_out_is_a_policy_with_the_same_classes(policy: Policy, stage: Stage, cut: int, opted: bool) -> None:
    found = adjusted(policy, Pressure(stage=stage, cut=cut, floor=FLOOR if opted else None))
    check_policy(found)
    assert scheme_of(Order(policy=found)) == scheme_of(Order(policy=policy))
    for before, after in zip(policy.rules, found.rules, strict=True):
        assert [stay.tier for stay in after.stays] == [stay.tier for stay in before.stays]
        assert after.keep_last == before.keep_last


@given(policy=policies, stage=stages, cut=st.integers(0, MAX_CUTS), opted=st.booleans())
def test_no_job_leaves_hot_before_six_hours_unless_its_rule_says_so(policy: Policy, stage: Stage, cut: int, opted: bool) -> None:
    found = adjusted(policy, Pressure(stage=stage, cut=cut, floor=FLOOR if opted else None))
    for before, after in zip(policy.rules, found.rules, strict=True):
        was, now = before.stays[0].until, after.stays[0].until
        assert (was is None) == (now is None)
        if was is not None and now is not None and now != was:
            assert 6 * HOUR_MS <= now.ms < was.ms


@given(policy=policies, cut=st.integers(0, MAX_CUTS))
def test_shortening_stops_at_the_floor_and_takes_failures_last(policy: Policy, cut: int) -> None:
    found = adjusted(policy, Pressure(stage=Stage.SHORTEN, cut=cut, floor=FLOOR))
    for before, after in zip(policy.rules, found.rules, strict=True):
        if before.ends is None or after.ends is None:
            assert after.ends is None
            continue
        assert min(before.ends.ms, FLOOR.ms) <= after.ends.ms <= before.ends.ms
        if before.match.states != ("SUCCEEDED",) and cut <= MAX_CUTS // 2:
            assert after.ends == before.ends


def test_the_seeded_policy_with_an_archive() -> None:
    policy = default_policy(archive=True)
    assert not folds_earlier(policy)
    assert archives_earlier(policy)
    assert adjusted(policy, Pressure(stage=Stage.VACUUM)) is policy
    success = adjusted(policy, Pressure(stage=Stage.ARCHIVE)).rules[1]
    assert [stay.until.text if stay.until else "" for stay in success.stays] == ["6h", "24h", "180d"]
    shorter = adjusted(policy, Pressure(stage=Stage.SHORTEN, cut=2, floor=FLOOR))
    assert [rule.ends.ms // DAY_MS if rule.ends else 0 for rule in shorter.rules] == [1, 90, 400]
    last = adjusted(policy, Pressure(stage=Stage.REFUSE, cut=MAX_CUTS, floor=FLOOR))
    assert [rule.ends.ms // DAY_MS if rule.ends else 0 for rule in last.rules] == [1, 45, 100]
