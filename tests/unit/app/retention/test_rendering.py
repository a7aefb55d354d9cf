"""What commands of retention print for people, from answers of the manager."""

from typing import Any

import pytest

from darner.app.cli.jobs import forgotten, print_job
from darner.app.cli.retention.chart import chart
from darner.app.cli.retention.holds import end_of, held, parse_labels
from darner.app.cli.retention.preview import say_preview
from darner.app.cli.retention.runs import RunLine, _ended, _why_held, say_runs
from darner.app.cli.retention.words import counted, ends, kept, matched, rule_table
from darner.app.cli.run import UsageProblem

NOW = 1_800_000_000.0
RUN: dict[str, Any] = {
    "id": 12,
    "policy_version": 3,
    "trigger": "schedule",
    "dry_run": False,
    "state": "HELD",
    "started_at": "2026-11-25T08:00:00.000Z",
    "finished_at": "2026-11-25T08:00:07.000Z",
    "classified": 5,
    "examined": 9000,
    "folded": 4000,
    "archived": 0,
    "hidden": 0,
    "removed": 0,
    "bytes": 2048,
    "error": "5352 jobs (96% of all) fall due because the policy was tightened; that is more than 20%.",
    "report": {"held": {"rows": 5352, "share": 0.9571}},
}
PREVIEW: dict[str, Any] = {
    "token": "tok",
    "policy_version": 3,
    "total": {"rows": 1204, "bytes": 3_000_000},
    "rules": [
        {"rule": "success", "action": "hide", "tier": "warm", "rows": 1204, "bytes": 3_000_000, "oldest": "2026-11-01T00:00:00Z",
         "newest": "2026-11-02T00:00:00Z"},
        {"rule": "rest", "action": "fold", "tier": "hot", "rows": 0, "bytes": 0, "oldest": None, "newest": None},
    ],
    "jobs": 20000,
    "notes": ["Rule rest decides about no job."],
    "diff": {
        "tightens": True,
        "words": ["Rule success: warm 7d → 1d."],
        "rules": [{"rule": "success"}],
        "bookkeeping": [],
        "rows_sooner": 2000,
        "rows_later": 0,
        "removed_in_force": 7,
    },
}  # fmt: skip


def test_counts_read_as_people_write_them() -> None:
    assert [counted(count) for count in (0, 1, 1204)] == ["0 jobs", "1 job", "1,204 jobs"]


def test_a_match_is_said_in_words() -> None:
    match = {"types": ["gc", "sync_peers"], "clusters": [3], "labels": {"team": ["ml", "ops"]}, "importance": ["high"]}
    assert matched(match) == "type gc/sync_peers, cluster 3, importance high, label team=ml/ops"
    assert matched({}) == "all jobs"


def test_rules_end_with_their_last_tier() -> None:
    rules = [{"name": "a", "hot": "6h"}, {"name": "b", "hot": "6h", "warm": "7d", "archive": "180d"}, {"name": "c", "hot": "keep"}]
    assert [ends(rule) for rule in rules] == ["6h", "180d", "for ever"]
    assert kept({"rules": rules}) == "a 6h, b 180d, c for ever"


def test_columns_that_no_rule_uses_are_left_away() -> None:
    headings, rows = rule_table([{"name": "a", "hot": "6h", "basis": "created", "match": {}}])
    assert headings == ["RULE", "HOT UNTIL", "COUNTED FROM", "JOBS"]
    assert rows == [["a", "6h", "its creation", "all jobs"]]
    more, _ = rule_table([{"name": "a", "hot": "6h", "undo": "24h", "keep_last": {"count": 3, "per": "url"}, "export": "siem"}])
    assert more == ["RULE", "HOT UNTIL", "UNDO", "COUNTED FROM", "KEEPS LAST", "EXPORTED TO", "JOBS"]


def test_a_preview_says_what_changes_what_goes_and_what_may_not_be_meant(capsys: pytest.CaptureFixture[str]) -> None:
    say_preview(PREVIEW)
    said = capsys.readouterr().out
    assert "Against version 3, which is in force:\n  - Rule success: warm 7d → 1d." in said
    assert "success  delete  warm  1,204  2.9 MiB" in said
    assert "rest" not in said.partition("Note:")[0]
    assert "Removed: 1,204 jobs, 2.9 MiB; as things are, 7 would be." in said
    assert "2,000 will be forgotten sooner than as things are" in said
    assert "Rule rest decides about no job." in said


def test_a_preview_without_effect_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    calm = {**PREVIEW["diff"], "rules": [], "rows_sooner": 0, "removed_in_force": 0}
    say_preview({**PREVIEW, "rules": [], "total": {"rows": 0, "bytes": 0}, "notes": [], "diff": calm})
    assert capsys.readouterr().out == "Under version 3, which is in force, the next sweep has nothing to do.\n"


def test_a_held_run_is_told_with_its_numbers_and_the_command_that_confirms() -> None:
    said = _why_held(RUN)
    assert "5352 jobs (96% of all)" in said
    assert "darner retention preview" in said
    assert "darner retention runs confirm 12" in said


def test_a_run_held_by_a_clock_names_the_command_that_accepts_it() -> None:
    said = _why_held(
        {**RUN, "report": {"refused": "clock"}, "error": "The database's clock jumped ahead by 7200 s since the last sweep."}
    )
    assert "darner retention run --accept-clock" in said
    assert "confirm" not in said


def test_a_run_tells_how_it_ended() -> None:
    assert _ended(RUN) == "run 12 HELD after 7s: compressed 4,000, 2.0 KiB."
    stopped = {**RUN, "state": "STOPPED", "folded": 0, "bytes": 0, "error": "A person cancelled the sweep."}
    assert _ended(stopped) == "run 12 STOPPED after 7s: nothing to do. A person cancelled the sweep."


def test_runs_are_listed_with_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    say_runs([RUN, {**RUN, "id": 3, "dry_run": True, "folded": 0, "bytes": 0, "error": ""}])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["RUN", "STARTED", "TOOK", "BY", "STATE", "COMPRESSED", "ARCHIVED", "DELETED", "GONE", "SIZE", "WHY"]
    assert "4,000" in second
    assert "dry run" in third


def test_the_line_of_a_running_sweep_counts_jobs() -> None:
    line = RunLine("run 12", shown=False)
    assert line.text(500, 2000, 5.0) == "run 12  25% 500 jobs of 2,000, 100/s, 15s left"
    assert line.text(500, 0, 5.0) == "run 12 500 jobs, 100/s"
    assert line.text(0, 2000, 5.0) == "run 12 is sorting jobs"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("30d", "2026-12-01T00:00:00Z"),
        ("2027-01-31T00:00:00Z", "2027-01-31T00:00:00Z"),
        ("2027-01-31T01:00:00+01:00", "2027-01-31T00:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
    ],
)
def test_a_hold_ends_after_a_time_or_at_one(text: str, at: str) -> None:
    assert end_of(text, "2026-11-01T00:00:00Z") == at


@pytest.mark.parametrize("text", ["never", "", "30", "99999999d"])
def test_another_end_of_a_hold_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageProblem, match="--until"):
        end_of(text, "2026-11-01T00:00:00Z")


def test_labels_are_keys_and_values() -> None:
    assert parse_labels(["a=1", "a=2", "b=x=y"]) == {"a": ["1", "2"], "b": ["x=y"]}
    for wrong in ("a", "=1"):
        with pytest.raises(UsageProblem, match="KEY=VALUE"):
            parse_labels([wrong])


def test_holds_say_what_they_are_on() -> None:
    assert held({"job_id": 5, "match": None}) == "job 5"
    assert held({"job_id": None, "match": {"tags": ["x"]}}) == "tag x"


def _job(**changes: Any) -> dict[str, Any]:
    kept = {"rule": "success", "tier": "hot", "next_tier": "warm", "moves_at": "2099-01-01T00:00:00Z",
            "forgotten_at": "2099-01-08T00:00:00Z", "reason": "Rule success keeps it 7d from its end."}  # fmt: skip
    job = {"id": 4, "type": "preheat", "state": "SUCCESS", "detail_state": "SUCCEEDED", "created_at": "2026-11-25T08:00:00Z"}
    return {
        **job,
        "finished_at": "2026-11-25T08:00:09Z",
        "held": False,
        "retention": {**kept, **changes.pop("kept", {})},
        **changes,
    }


def test_a_list_says_in_a_word_when_a_record_goes_or_what_keeps_it() -> None:
    assert forgotten(_job(), NOW).startswith("in ")
    assert forgotten(_job(held=True), NOW) == "held"
    assert forgotten(_job(kept={"forgotten_at": None}), NOW) == "kept"
    assert forgotten(_job(kept={"forgotten_at": None}, finished_at=None), NOW) == "-"
    assert forgotten(_job(kept={"forgotten_at": "2026-11-25T09:00:00Z"}), NOW) == "with the next sweep"
    assert forgotten(_job(kept={"tier": "deleted"}), NOW).startswith("gone in ")
    assert forgotten(_job(retention=None), NOW) == "-"


def test_a_job_tells_its_rule_tier_next_move_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    print_job(_job(labels={"team": "ml"}, importance="high"))
    said = capsys.readouterr().out
    for line in (
        "rule       success",
        "tier       hot, compressed in ",
        "forgotten  in ",
        "why        Rule success keeps it",
        "labels     team=ml",
        "importance high",
    ):
        assert line in said


def test_a_job_that_stays_tells_why(capsys: pytest.CaptureFixture[str]) -> None:
    gone = {"forgotten_at": None, "moves_at": None, "next_tier": None, "reason": "It is held: audit."}
    print_job(_job(kept=gone))
    said = capsys.readouterr().out
    assert "tier       hot\n" in said
    assert "forgotten  not as things are" in said
    assert "It is held: audit." in said


def test_a_chart_has_a_scale_from_nothing_to_the_most_and_its_days() -> None:
    points = [(f"2026-11-{day:02}T00:00:00Z", day * 1024.0**2) for day in range(1, 21)]
    lines = chart(points, width=10, height=3, plain=False)
    assert len(lines) == 4
    assert lines[0].startswith("20.0 MiB |")
    assert lines[0].endswith("█")
    assert lines[2].split()[:2] == ["0", "B"]
    assert "2026-11-01" in lines[3]
    assert "2026-11-20" in lines[3]


def test_a_chart_of_too_little_or_of_nothing_does_not_break() -> None:
    assert chart([]) == []
    assert chart([("2026-11-01T00:00:00Z", 1.0)]) == []
    flat = chart([("2026-11-01T00:00:00Z", 0.0), ("2026-11-02T00:00:00Z", 0.0)], plain=True)
    assert "█" not in "".join(flat)
