"""What people may write as a policy, and what they are told when it is wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.errors import InvalidInputError
from darner.retention.parse import policy_from_json, policy_to_json
from darner.retention.policy import HOUR_MS


def test_durations_stay_as_they_were_typed() -> None:
    for text in ("6h", "1d12h", "PT90M", "7d"):
        assert policy_to_json(policy_from_json({"keep": text}))["rules"][0]["hot"] == text


def test_a_policy_comes_back_from_its_json() -> None:
    data = {
        "rules": [
            {
                "name": "bad",
                "match": {"states": ["FAILED"], "types": ["preheat"]},
                "basis": "created",
                "hot": "30d",
                "then": "delete",
            },
            {"name": "shop", "match": {"applications": ["shop"]}, "basis": "finished", "hot": "keep", "then": "keep"},
            {"name": "rest", "match": {}, "basis": "finished", "hot": "6h", "then": "delete"},
        ]
    }
    assert policy_to_json(policy_from_json(data)) == data


def test_upstreams_nanoseconds_are_accepted() -> None:
    hot = policy_from_json({"keep": 6 * HOUR_MS * 1_000_000}).rules[0].hot
    assert hot is not None
    assert hot.ms == 6 * HOUR_MS


@pytest.mark.parametrize("value", [None, "keep", "forever", -1, "-1"])
def test_for_ever_can_be_said_in_several_ways(value: Any) -> None:
    assert policy_from_json({"keep": value}).rules[0].hot is None
    assert policy_from_json({"rules": [{"name": "a"}]}).rules[0].hot is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("59m", "'59m' is too short: a job is kept for 1h"),
        ("0h", "'0h' would keep nothing"),
        (0, "'0ns' would keep nothing"),
        ("-5h", "'-5h' would keep nothing"),
        (-7, "would keep nothing"),
        ("soon", "'soon' is not a duration"),
        ("6", "'6' is not a duration"),
        ("11000d", "'11000d' is too long: at most 10 years"),
        (True, "True is not a duration"),
        (6.5, "6.5 is not a duration"),
    ],
)
def test_a_wrong_duration_is_named_as_typed_with_its_field(value: Any, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        policy_from_json({"keep": value})
    assert said in caught.value.message
    assert caught.value.field == "keep"


@pytest.mark.parametrize(
    ("rule", "field", "said"),
    [
        ({"name": "a", "hott": "6h"}, "rules[0].hott", "did you mean 'hot'"),
        ({"name": "a", "hot": "1m"}, "rules[0].hot", "too short"),
        ({"name": "a b"}, "rules[0].name", "no name for a rule"),
        ({}, "rules[0].name", "needs a name"),
        ({"name": "a", "match": {"states": ["RUNNING"]}}, "rules[0].match.states", "'RUNNING' is not known"),
        ({"name": "a", "match": {"states": "FAILED"}}, "rules[0].match.states", "A list"),
        ({"name": "a", "basis": "updated"}, "rules[0].basis", "finished, created"),
        ("a", "rules[0]", "An object"),
    ],
)
def test_a_wrong_rule_names_its_field(rule: Any, field: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        policy_from_json({"rules": [rule]})
    assert caught.value.field == field
    assert said in caught.value.message


@pytest.mark.parametrize("data", [{}, {"rules": []}, {"rules": {}}, {"rules": [{"name": "a"}, {"name": "a"}]}])
def test_a_policy_without_rules_or_with_twins_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        policy_from_json(data)


words = st.text(max_size=12) | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans()


@given(value=words)
def test_whatever_is_sent_no_policy_keeps_less_than_an_hour(value: Any) -> None:
    try:
        hot = policy_from_json({"keep": value}).rules[0].hot
    except InvalidInputError:
        return
    assert hot is None or hot.ms >= HOUR_MS
