"""What people may write as a policy, and what they are told when it is wrong."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retention.policies import policies

from darner.core.errors import InvalidInputError
from darner.core.job import Tier
from darner.retention.parse import match_from_json, policy_from_json, policy_from_text, policy_to_json
from darner.retention.policy import FLOOR_MS, HOUR_MS, MAX_RULES, Policy, Stay, check_policy


def one_rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [{"name": "a", **fields}]}


def test_durations_stay_as_they_were_typed() -> None:
    for text in ("6h", "1d12h", "PT90M", "7d", "1.5h", "P1W"):
        assert policy_to_json(policy_from_json(one_rule(hot=text)))["rules"][0]["hot"] == text
    assert policy_to_json(policy_from_json(one_rule(hot=" 7d ")))["rules"][0]["hot"] == "7d"


def test_keep_alone_means_hot_for_six_hours_warm_until_then_and_a_day_to_undo() -> None:
    shown = policy_to_json(policy_from_json({"keep": "36h"}))["rules"]
    assert shown == [{"name": "default", "match": {}, "basis": "finished", "hot": "6h", "warm": "36h", "undo": "24h"}]
    for text in ("90m", "6h"):
        (rule,) = policy_to_json(policy_from_json({"keep": text}))["rules"]
        assert (rule["hot"], rule["undo"], "warm" in rule) == (text, "24h", False)
    (rule,) = policy_to_json(policy_from_json({"keep": "keep"}))["rules"]
    assert (rule["hot"], rule["warm"], "undo" in rule) == ("6h", "keep", False)


def test_a_policy_comes_back_from_its_json() -> None:
    data = {
        "rules": [
            {
                "name": "bad",
                "match": {"types": ["preheat"], "states": ["FAILED"], "clusters": [3], "labels": {"env": ["prod", "dev"]}},
                "basis": "created",
                "hot": "30d",
                "undo": "24h",
                "keep_last": {"count": 3, "per": "image"},
                "export": "siem",
            },
            {"name": "shop", "match": {"applications": ["shop"]}, "basis": "finished", "hot": "6h", "archive": "keep"},
            {"name": "rest", "match": {}, "basis": "finished", "hot": "6h", "warm": "7d", "archive": "180d"},
        ],
        "bookkeeping": {"runs": "90d", "samples": "400d", "audit": "500d"},
    }
    assert policy_to_json(policy_from_json(data)) == data


@pytest.mark.parametrize(
    ("stored", "hot_ms"),
    [
        ({"name": "default", "match": {}, "basis": "finished", "hot": "6h", "then": "delete"}, 6 * HOUR_MS),
        ({"name": "old", "match": {"states": ["FAILED"]}, "basis": "created", "hot": "30d", "then": "delete"}, 720 * HOUR_MS),
        ({"name": "ever", "match": {}, "basis": "finished", "hot": "keep", "then": "keep"}, None),
        ({"name": "held", "match": {}, "basis": "finished", "hot": "3600000000000ns", "then": "delete"}, HOUR_MS),
    ],
)
def test_rows_of_earlier_releases_mean_what_they_meant(stored: dict[str, Any], hot_ms: int | None) -> None:
    (rule,) = policy_from_text(json.dumps({"rules": [stored]})).rules
    assert [stay.tier for stay in rule.stays] == [Tier.HOT]
    assert (rule.stays[0].until and rule.stays[0].until.ms) == hot_ms
    assert rule.undo is None
    assert (rule.name, str(rule.basis)) == (stored["name"], stored["basis"])


def test_upstreams_nanoseconds_are_accepted() -> None:
    (rule,) = policy_from_json(one_rule(hot=6 * HOUR_MS * 1_000_000)).rules
    assert rule.ends is not None
    assert rule.ends.ms == 6 * HOUR_MS
    assert policy_from_json(policy_to_json(Policy(rules=(rule,)))).rules == (rule,)


@pytest.mark.parametrize("value", [None, "keep", "forever", "Keep", -1, "-1"])
def test_for_ever_can_be_said_in_several_ways(value: Any) -> None:
    assert policy_from_json({"keep": value}).rules[0].ends is None
    assert policy_from_json(one_rule(hot=value)).rules[0].ends is None
    assert policy_from_json(one_rule()).rules[0].ends is None


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
        ("9" * 400 + "d", "… is not a duration"),
        (10**400, "… is not a duration"),
        (True, "True is not a duration"),
        (6.5, "6.5 is not a duration"),
        ([], "[] is not a duration"),
    ],
)
def test_a_wrong_duration_is_named_as_typed_with_its_field(value: Any, said: str) -> None:
    for data, field in (({"keep": value}, "keep"), (one_rule(hot=value), "rules[0].hot")):
        with pytest.raises(InvalidInputError) as caught:
            policy_from_json(data)
        assert said in caught.value.message
        assert len(caught.value.message) < 200
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("rule", "field", "said"),
    [
        ({"name": "a", "hott": "6h"}, "rules[0].hott", "did you mean 'hot'"),
        ({"name": "a", "hot": "1m"}, "rules[0].hot", "too short"),
        ({"name": "a b"}, "rules[0].name", "no name for a rule"),
        ({"name": "held"}, "rules[0].name", "choose another"),
        ({"name": "a" * 49}, "rules[0].name", "up to 48"),
        ({}, "rules[0].name", "needs a name"),
        ({"name": "a", "match": {"states": ["RUNNING"]}}, "rules[0].match.states", "'RUNNING' is not known"),
        ({"name": "a", "match": {"states": ["SUCCESS"]}}, "rules[0].match.states", "did you mean SUCCEEDED?"),
        ({"name": "a", "match": {"states": ["failed"]}}, "rules[0].match.states", "did you mean FAILED?"),
        ({"name": "a", "match": {"types": ["Preheat"]}}, "rules[0].match.types", "did you mean preheat?"),
        ({"name": "a", "match": {"states": "FAILED"}}, "rules[0].match.states", "A list"),
        ({"name": "a", "match": {"owners": []}}, "rules[0].match.owners", "leave the field away"),
        ({"name": "a", "match": {"labels": {"env": []}}}, "rules[0].match.labels.env", "leave the field away"),
        ({"name": "a", "match": {"owner": ["x"]}}, "rules[0].match.owner", "did you mean 'owners'"),
        ({"name": "a", "match": {"tags": ["x" * 2000]}}, "rules[0].match.tags", "at most 1024"),
        ({"name": "a", "match": {"tags": ["x"] * 101}}, "rules[0].match.tags", "too many"),
        ({"name": "a", "match": {"clusters": [0]}}, "rules[0].match.clusters", "ids of clusters"),
        ({"name": "a", "match": {"clusters": [True]}}, "rules[0].match.clusters", "cluster ids"),
        ({"name": "a", "match": {"importance": ["urgent"]}}, "rules[0].match.importance", "critical"),
        ({"name": "a", "basis": "updated"}, "rules[0].basis", "finished, created"),
        ({"name": "a", "hot": "6h", "warm": "5h"}, "rules[0].warm", "'5h' ends before hot does (6h)"),
        ({"name": "a", "warm": "5h"}, "rules[0].warm", "hot is for ever"),
        ({"name": "a", "hot": "6h", "warm": None}, "rules[0].warm", "leave the field away"),
        ({"name": "a", "hot": "6h", "undo": "keep"}, "rules[0].undo", "for a time"),
        ({"name": "a", "hot": "6h", "undo": 0}, "rules[0].undo", "would keep nothing"),
        ({"name": "a", "hot": "6h", "undo": "91d"}, "rules[0].undo", "at most 90d"),
        ({"name": "a", "keep_last": 0}, "rules[0].keep_last.count", "1 to 1000"),
        ({"name": "a", "keep_last": {"count": 2, "per": "tag"}}, "rules[0].keep_last.per", "url, image"),
        ({"name": "a", "export": "a b"}, "rules[0].export", "no name for a sink"),
        ("a", "rules[0]", "An object"),
    ],
)
def test_a_wrong_rule_names_its_field(rule: Any, field: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        policy_from_json({"rules": [rule]})
    assert caught.value.field == field
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "keep"),
        ({"rules": []}, "rules"),
        ({"rules": {}}, "rules"),
        ({"rules": [{"name": "a"}] * (MAX_RULES + 1)}, "rules"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "rules[1].name"),
        ({"rules": [{"name": "a"}], "keep": "6h"}, "keep"),
        ({"rules": [{"name": "a"}], "bookeeping": {}}, "bookeeping"),
        ({"rules": [{"name": "a"}], "bookkeeping": {"audit": "keep"}}, "bookkeeping.audit"),
        ({"rules": [{"name": "a"}], "bookkeeping": {"audit": "0h"}}, "bookkeeping.audit"),
        ({"keep": "6h", "hot": "7h"}, "hot"),
        ({"rule": []}, "rule"),
        ([], "policy"),
    ],
)
def test_a_policy_that_is_none_names_its_field(data: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        policy_from_json(data)
    assert caught.value.field == field


json_values = st.recursive(
    st.text(max_size=12)
    | st.integers()
    | st.floats()
    | st.none()
    | st.booleans()
    | st.sampled_from(["0h", "1ns", "-1h", "59m59s"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
fields = st.sampled_from(["hot", "warm", "archive", "undo", "keep_last", "export", "basis", "then", "match"])


@given(value=json_values, rule=st.dictionaries(fields, json_values, max_size=5))
def test_whatever_is_sent_no_policy_keeps_less_than_an_hour(value: Any, rule: dict[str, Any]) -> None:
    for data in ({"keep": value}, {"rules": [{"name": "a", **rule}]}, {"rules": value}, value):
        try:
            made = policy_from_json(data)
        except InvalidInputError:
            continue
        for one in made.rules:
            ages = [*(stay.until for stay in one.stays), one.undo]
            assert all(age is None or age.ms >= FLOOR_MS for age in ages)


@given(made=policies())
def test_what_is_stored_comes_back_the_same(made: Policy) -> None:
    check_policy(made)
    text = json.dumps(policy_to_json(made))
    again = policy_from_text(text)
    assert policy_to_json(again) == policy_to_json(made)
    assert [(one.stays, one.undo, one.keep_last) for one in again.rules] == [
        (one.stays, one.undo, one.keep_last) for one in made.rules
    ]
    assert policy_from_json(json.loads(text)) == again
    for before, after in zip(made.rules, again.rules, strict=True):
        assert set(before.match.labels) == set(after.match.labels)


def test_a_match_of_labels_keeps_all_values_of_a_key() -> None:
    assert match_from_json({"labels": {"env": ["a", "b"]}}, "m").labels == (("env", "a"), ("env", "b"))
    with pytest.raises(InvalidInputError):
        match_from_json({"labels": {"env": "a"}}, "m")


def test_a_rule_that_keeps_for_ever_shows_it() -> None:
    made = policy_from_json(one_rule(hot="6h", warm="keep"))
    assert made.rules[0].stays[-1] == Stay(tier=Tier.WARM, until=None)
    assert policy_to_json(made)["rules"][0]["warm"] == "keep"
