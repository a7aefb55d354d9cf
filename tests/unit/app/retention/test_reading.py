"""A policy as a person gives it: files, changes of one rule, and errors that name the rule."""

import io
from pathlib import Path
from typing import Any

import pytest

from darner.app.cli.retention.reading import change_rule, named, parse_policy, read_policy, to_yaml
from darner.app.cli.run import UsageProblem
from darner.core.errors import DarnerError, InvalidInputError, NotFoundError

POLICY: dict[str, Any] = {
    "version": 7,
    "origin": "user",
    "created_by": "ann",
    "rules": [
        {"name": "success", "match": {"states": ["SUCCEEDED"]}, "basis": "finished", "hot": "6h", "warm": "7d", "undo": "24h"},
        {"name": "rest", "match": {}, "basis": "finished", "hot": "6h", "warm": "30d", "undo": "12h"},
    ],
    "bookkeeping": {"runs": "400d", "samples": "401d", "audit": "402d"},
}
ASKED = dict.fromkeys(("hot", "warm", "archive", "undo", "keep_last", "export", "basis"))


def test_what_is_shown_as_yaml_can_be_read_back() -> None:
    assert parse_policy(to_yaml(POLICY), "p").data == {"rules": POLICY["rules"], "bookkeeping": POLICY["bookkeeping"]}


def test_what_show_json_printed_is_a_policy_made_from_its_version() -> None:
    import json

    found = parse_policy(json.dumps(POLICY), "p")
    assert set(found.data) == {"rules", "bookkeeping"}
    assert found.base_version == 7


def test_a_bare_list_is_a_list_of_rules() -> None:
    assert parse_policy("- {name: all, hot: 6h}", "p").data == {"rules": [{"name": "all", "hot": "6h"}]}


def test_a_policy_comes_from_stdin_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("keep: 36h\n"))
    assert read_policy("-").data == {"keep": "36h"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [", "neither YAML nor JSON"),
        ("", "is no policy"),
        ("6h", "is no policy"),
        ("rules: [{name: a, hot: 2026-01-01}]", "in quotes"),
        ("rules: [{name: a, hot: .nan}]", "in quotes"),
        ("a: &a [*a]", "in quotes"),
    ],
)
def test_a_file_that_is_no_policy_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(DarnerError, match=said) as told:
        read_policy(str(path))
    assert "policy.yaml" in told.value.message


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(DarnerError, match=r"cannot read .*gone"):
        read_policy(str(tmp_path / "gone"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DarnerError, match="no text"):
        read_policy(str(tmp_path / "bytes"))


def test_one_rule_changes_and_all_else_stays() -> None:
    made = change_rule(POLICY, "rest", {**ASKED, "warm": "14d", "archive": "180d", "keep_last": "3/image", "undo": "none"})
    assert made["rules"][0] == POLICY["rules"][0]
    assert made["rules"][1] == {
        "name": "rest",
        "match": {},
        "basis": "finished",
        "hot": "6h",
        "warm": "14d",
        "archive": "180d",
        "keep_last": {"count": 3, "per": "image"},
    }
    assert made["bookkeeping"] == POLICY["bookkeeping"]
    assert POLICY["rules"][1]["undo"] == "12h"


def test_a_rule_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="did you mean success"):
        change_rule(POLICY, "sucess", {**ASKED, "warm": "1d"})
    with pytest.raises(NotFoundError, match="there are success, rest"):
        change_rule(POLICY, "x", {**ASKED, "warm": "1d"})


@pytest.mark.parametrize(
    "wanted", [{}, {"hot": "none"}, {"basis": "none"}, {"keep_last": "three"}, {"keep_last": "-1"}, {"keep_last": "²"}]
)
def test_a_change_that_means_nothing_is_wrong_usage(wanted: dict[str, str]) -> None:
    with pytest.raises(UsageProblem):
        change_rule(POLICY, "rest", {**ASKED, **wanted})


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("rules[1].warm", "rule rest, warm: too short"),
        ("rules[1].keep_last.count", "rule rest, keep_last.count: too short"),
        ("rules[0].name", "rule number 1, name: too short"),
        ("rules[9].warm", "too short"),
        ("rules", "too short"),
        ("keep", "too short"),
        (None, "too short"),
    ],
)
def test_errors_name_the_rule_and_not_its_place(field: str | None, said: str) -> None:
    assert named(InvalidInputError("too short", field=field), POLICY).message == said


def test_errors_about_data_that_is_no_policy_are_left_alone() -> None:
    error = InvalidInputError("x", field="rules[0].name")
    for rules in (None, "text", [], ["text"]):
        assert named(error, {"rules": rules}).message in {"x", "rule number 1, name: x"}
