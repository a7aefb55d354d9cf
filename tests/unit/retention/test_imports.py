"""What upstream was told to keep stays kept: never less, and never dropped without a word."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.errors import InvalidInputError
from darner.retention.imports import policy_from_configs, policy_from_manager_yaml
from darner.retention.policy import DAY_MS, HOUR_MS, Basis, check_policy

NS = 1_000_000


@pytest.mark.parametrize(
    ("job", "text", "ms"),
    [
        ({"ttl": 24 * HOUR_MS * NS}, "86400000000000ns", DAY_MS),
        ({"ttl": 3 * HOUR_MS * NS + 1}, "10800000000001ns", 3 * HOUR_MS),
        ({"ttl": 1}, "1h", HOUR_MS),
        ({"ttl": "30m"}, "1h", HOUR_MS),
        ({"ttl": "168h0m0s"}, "168h0m0s", 7 * DAY_MS),
        ({"ttl": 8.64e13}, "86400000000000ns", DAY_MS),
        ({"ttl": 0}, None, None),
        ({"ttl": "0"}, None, None),
        ({"ttl": "0s"}, None, None),
        ({"ttl": -1}, None, None),
        ({"ttl": -5}, None, None),
        ({"ttl": "-5h"}, None, None),
        ({"ttl": None}, None, None),
        ({}, None, None),
        ({"ttl": 2**63 - 1}, None, None),
    ],
)
def test_the_ttl_of_jobs_becomes_a_rule_of_upstreams_form(job: dict[str, Any], text: str | None, ms: int | None) -> None:
    for found in (policy_from_configs({"job": job}), policy_from_manager_yaml({"job": {"gc": job}, "server": {"port": 1}})):
        assert found is not None
        check_policy(found.policy)
        (rule,) = found.policy.rules
        assert (rule.basis, rule.undo, len(rule.stays)) == (Basis.CREATED, None, 1)
        assert (rule.ends and rule.ends.text) == text
        assert (rule.ends and rule.ends.ms) == ms
        assert found.notes


def test_what_is_raised_or_kept_is_said() -> None:
    raised = policy_from_configs('{"job": {"ttl": 1}}')
    assert raised is not None
    assert raised.notes == ("job.ttl is 1ns, raised to 1h: clients ask for a job up to half an hour after its end.",)
    assert raised.fields == ("job.ttl",)
    kept = policy_from_manager_yaml({"job": {"gc": {"interval": "3h"}}})
    assert kept is not None
    assert kept.notes == ("job.gc.ttl is not set, so jobs are kept.",)


def test_the_audits_ttl_goes_with_it() -> None:
    found = policy_from_configs('{"audit": {"ttl": 604800000000000}, "job": {"ttl": 21600000000000}}')
    assert found is not None
    assert found.policy.bookkeeping.audit.ms == 7 * DAY_MS
    alone = policy_from_configs(b'{"audit": {"ttl": 604800000000000}}')
    assert alone is not None
    assert alone.policy.rules[0].ends is None
    assert alone.notes[0] == "Nothing is said about jobs, so they are kept."
    zero = policy_from_configs({"audit": {"ttl": 0}})
    assert zero is not None
    assert zero.policy.bookkeeping.audit.text == "400d"


@pytest.mark.parametrize("data", [{}, {"server": {"port": 8080}}, {"job": 5}, {"job": {"rateLimit": 3}}])
def test_a_file_that_says_nothing_gives_no_policy(data: dict[str, Any]) -> None:
    assert policy_from_manager_yaml(data) is None


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("{", "value"),
        ("[]", "value"),
        ('{"job": {"ttl": "soon"}}', "job.ttl"),
        ('{"job": {"ttl": true}}', "job.ttl"),
        (b"\xff", "value"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_field(value: str | bytes, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        policy_from_configs(value)
    assert caught.value.field == field


@given(ttl=st.integers() | st.floats() | st.text(max_size=8) | st.none() | st.booleans())
def test_whatever_the_ttl_jobs_are_kept_an_hour_and_never_less_than_was_said(ttl: Any) -> None:
    try:
        found = policy_from_configs({"job": {"ttl": ttl}})
    except InvalidInputError:
        return
    assert found is not None
    check_policy(found.policy)
    ends = found.policy.rules[0].ends
    assert ends is None or ends.ms >= HOUR_MS
    if isinstance(ttl, int) and not isinstance(ttl, bool) and ends is not None:
        assert ends.ms >= round(ttl / NS) - 1
