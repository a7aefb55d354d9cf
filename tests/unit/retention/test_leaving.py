"""What a sweep asks of each job is what its verdict says."""

from hypothesis import given
from tests.unit.retention.policies import Facts, jobs, orders

from darner.core.job import Tier
from darner.retention.rules import NO_RULE, Order, class_of, class_under, leaving, rule_for, verdict


@given(jobs(), orders())
def test_leaving_is_the_rule_and_the_moment_of_the_verdict(job: Facts, order: Order) -> None:
    told = verdict(job, order)
    nobodys = NO_RULE if job.tier == Tier.DELETED else ""  # people are told no name of a rule that there is not
    assert leaving(job, order) == (told.rule or nobodys, told.moves_at)
    assert class_under(job, rule_for(job, order.policy), order) == class_of(job, order)
