"""Documents: one form for all tiers, without secrets, within their bounds, the same bytes each time."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darner.history.record import JobRecord
from darner.retention.export.document import LEAST_BYTES, document_of, key_of

ENDED = 1_700_000_000_123


def record(*, parts: int = 2, events: int = 3, text: str = "", hosts: int = 1, **row: Any) -> JobRecord:
    job = {
        "id": 42, "uuid": "f3a9c1d2-aaaa", "type": "preheat", "state": "SUCCEEDED", "owner": "ann", "summary": text, "error": text,
        "tag": "", "application": "", "bio": "", "priority": 6, "cluster_count": 1, "part_count": parts, "part_done": parts,
        "part_failed": 0, "bytes_total": 9, "bytes_done": 9, "labels": '{"team":"a"}', "importance": 3, "created_at": ENDED - 5,
        "started_at": None, "finished_at": ENDED, "deadline_at": 0, "updated_at": ENDED, "held": 0, "tier": 0, "class": 17,
        "base_at": ENDED, "hold_reason": "", "idempotency_key": "secret-of-a-client",
    }  # fmt: skip
    host = {"hostname": "h", "ip": "10.0.0.1", "state": "SUCCEEDED", "error": text}
    return JobRecord(
        id=42,
        job={**job, **row},
        args={"url": f"https://h/{text}", "headers": {"Authorization": text}},
        result={"job_states": [text]},
        clusters=(1, 2),
        parts=tuple(
            {"id": n, "cluster_id": 1, "ordinal": n, "url": f"u{text}", "state": "FAILED" if n == parts - 1 else "SUCCEEDED",
             "error": text, "hosts": [host] * hosts, "verified": 1, "created_at": ENDED, "finished_at": ENDED, "started_at": None}
            for n in range(parts)
        ),
        events=tuple({"id": n, "part_id": None, "at": ENDED + n, "kind": "k", "message": f"m{n} {text}"} for n in range(events)),
    )  # fmt: skip


def shown(one: JobRecord, limit: int = 256 * 1024) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document_of(one, instance="here", limit=limit).body)
    return found


def test_a_document_says_all_that_a_log_system_wants() -> None:
    found = shown(record())
    assert (found["schema"], found["key"], found["instance"]) == ("darner.job/1", "42-f3a9c1d2:1", "here")
    assert found["time"] == "2023-11-14T22:13:20.123Z"
    job = found["job"]
    assert (job["state"], job["detail_state"], job["importance"], job["labels"]) == (
        "SUCCESS",
        "SUCCEEDED",
        "critical",
        {"team": "a"},
    )
    assert (job["finished_at"], job["started_at"]) == ("2023-11-14T22:13:20.123Z", None)
    assert found["clusters"] == [1, 2]
    assert [part["verified"] for part in found["parts"]] == [True, True]
    assert found["events"][2] == {"id": 2, "part_id": None, "kind": "k", "message": "m2 ", "at": "2023-11-14T22:13:20.125Z"}
    assert "truncated" not in found


def test_what_changes_after_the_end_changes_no_byte() -> None:
    changed: dict[str, Any] = {"tier": 1, "held": 1, "hold_reason": "audit", "updated_at": 5, "class": 1, "base_at": 7}
    later = record(**changed)
    assert document_of(later, instance="", limit=9_999).body == document_of(record(), instance="", limit=9_999).body
    assert "secret-of-a-client" not in document_of(record(), instance="", limit=9_999).body.decode()


def test_two_jobs_with_the_same_number_have_different_keys() -> None:
    assert key_of(record()) != key_of(record(uuid="00000000-x"))
    assert key_of(record(uuid="")) == "42:1"


@pytest.mark.parametrize("state", ["FAILED", "PARTIAL", "TIMED_OUT", "CANCELLED"])
def test_what_did_not_succeed_is_failed(state: str) -> None:
    one = document_of(record(state=state), instance="", limit=9_999)
    assert one.failed
    assert one.facts["detail_state"] == state


def test_secrets_are_nowhere() -> None:
    words = "canary-1 https://u:canary-2@h/?X-Amz-Signature=canary-3 Bearer canary-4-long token=canary-5"
    one = replace(
        record(text=words.removeprefix("canary-1 ")), args={"headers": {"Authorization": "canary-1", "X-Api-Key": "canary-6"}}
    )
    assert "canary" not in document_of(one, instance="", limit=99_999).body.decode()


def test_too_many_parts_are_cut_failed_ones_last() -> None:
    found = shown(record(parts=2000, events=500, text="some words", hosts=3), limit=20_000)
    assert found["truncated"]["bytes"] > 20_000
    assert found["truncated"]["hosts"] == 6000
    assert len(found["parts"]) == 2000 - found["truncated"]["parts"] > 10
    assert found["parts"][-1]["state"] == "FAILED"
    assert found["events"][-1]["message"] == "m499 some words"
    assert len(found["events"]) == 500 - found["truncated"]["events"] > 5
    assert found["job"]["summary"] == "some words"


def test_hosts_alone_are_left_away_when_that_is_enough() -> None:
    found = shown(record(parts=3, hosts=500), limit=10_000)
    assert (len(found["parts"]), found["truncated"]["hosts"]) == (3, 1500)
    assert "parts" not in found["truncated"]


@settings(max_examples=150, deadline=None)
@given(
    parts=st.integers(0, 60),
    events=st.integers(0, 60),
    text=st.text(max_size=1_500),
    limit=st.integers(LEAST_BYTES, 30_000),
    labels=st.one_of(st.just(""), st.just("{broken"), st.just('["x"]'), st.text(max_size=1_000)),
)
def test_no_document_is_larger_than_allowed_and_every_one_is_a_line_of_json(
    parts: int, events: int, text: str, limit: int, labels: str
) -> None:
    made = record(parts=parts, events=events, text=text, labels=labels, tag=text[:1024], application=text[:1024], bio=text[:1000])
    body = document_of(made, instance="i" * 32, limit=limit).body
    assert len(body) <= limit
    assert b"\n" not in body
    found = json.loads(body)
    assert (found["key"], found["job"]["id"], found["job"]["detail_state"]) == ("42-f3a9c1d2:1", 42, "SUCCEEDED")
    assert document_of(made, instance="i" * 32, limit=limit).body == body


@pytest.mark.parametrize("at", [-(2**62), 2**62, 0])
def test_a_moment_that_no_calendar_has_is_none(at: int) -> None:
    assert shown(record(started_at=at))["job"]["started_at"] is None
