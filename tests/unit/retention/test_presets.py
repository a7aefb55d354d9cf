"""The presets are what they are called, and each could come into force."""

import pytest
from hypothesis import given
from tests.unit.retention.policies import Facts, jobs

from darner import __version__
from darner.core.errors import NotFoundError
from darner.core.job import END_STATES, JobType, Tier
from darner.retention.diff import Effect, diff_policies
from darner.retention.parse import policy_from_json, policy_to_json
from darner.retention.policy import DAY_MS, HOUR_MS, check_policy
from darner.retention.presets import SEED_ORIGIN, default_policy, dragonfly_policy, forensic_policy, frugal_policy, preset, presets
from darner.retention.rules import Order, rule_for, verdict
from darner.retention.suggestions import suggestions
from darner.retention.values import PolicyVersion


@pytest.mark.parametrize("archive", [False, True])
def test_all_presets_may_come_into_force_and_survive_being_stored(archive: bool) -> None:
    for one in presets(archive=archive):
        check_policy(one.policy)
        assert policy_from_json(policy_to_json(one.policy)) == one.policy
        assert one.about.endswith(".")
    with pytest.raises(NotFoundError, match="Did you mean forensic"):
        preset("forensics", archive=archive)


def gone_after_h(job: Facts, order: Order) -> tuple[float, float]:
    """Hours from the end until a job leaves the hot tier, and until it is forgotten."""
    found = verdict(job, order)
    assert job.finished_at is not None
    assert found.moves_at is not None
    assert found.forgotten_at is not None
    return (found.moves_at - job.finished_at) / HOUR_MS, (found.forgotten_at - job.finished_at) / HOUR_MS


def test_the_default_keeps_what_the_table_of_the_specification_says() -> None:
    plain, archived = Order(policy=default_policy()), Order(policy=default_policy(archive=True))
    for state in sorted(END_STATES):
        good = state == "SUCCEEDED"
        assert gone_after_h(Facts(state=state), plain) == (6, 24 * (7 if good else 30))
        assert gone_after_h(Facts(state=state), archived) == (6, 24 * (180 if good else 400))
        for kind in (JobType.GC, JobType.SYNC_PEERS):
            for order in (plain, archived):
                assert gone_after_h(Facts(state=state, type=str(kind)), order) == (6, 24)
    rule = rule_for(Facts(), plain.policy)
    assert rule is not None
    assert rule.undo is not None
    assert rule.undo.ms == DAY_MS


@given(job=jobs(ended=True))
def test_each_job_falls_under_a_rule_of_each_preset(job: Facts) -> None:
    for one in presets(archive=True):
        assert rule_for(job, one.policy) is not None


def test_dragonfly_deletes_for_good_six_hours_after_creation() -> None:
    (rule,) = dragonfly_policy().rules
    assert ([stay.tier for stay in rule.stays], rule.undo, str(rule.basis)) == ([Tier.HOT], None, "created")
    assert verdict(Facts(), Order(policy=dragonfly_policy())).moves_at == Facts().created_at + 6 * HOUR_MS


def test_frugal_and_forensic_are_on_either_side_of_the_default() -> None:
    for archive in (False, True):
        default = default_policy(archive=archive)
        assert diff_policies(default, frugal_policy()).effect == Effect.TIGHTENED
        assert diff_policies(default, forensic_policy(archive=archive)).effect == Effect.LOOSENED


def version(origin: str, policy: object) -> PolicyVersion:
    assert policy is not None
    return PolicyVersion(version=3, policy=policy, origin=origin, created_at=1, created_by="x", reason="")  # type: ignore[arg-type]


def test_only_what_nobody_chose_is_told_of_todays_default() -> None:
    old, today = frugal_policy(), default_policy()
    for origin, told in (("seed", 1), ("seed:0.0.1", 1), ("grandfathered", 1), (SEED_ORIGIN, 0), ("user", 0), ("rollback", 0)):
        found = suggestions(version(origin, old), archive=False)
        assert len(found) == told
        assert all(one.policy == today for one in found)
    assert suggestions(version("seed", today), archive=False) == []
    assert f"seed:{__version__}" == SEED_ORIGIN
