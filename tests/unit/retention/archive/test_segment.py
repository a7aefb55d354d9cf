"""Segments: what goes in comes out, and what does not is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darner.core.errors import DarnerError
from darner.history.record import JobRecord
from darner.history.rows import FOLDED, blob_of
from darner.retention.archive.segment import (
    LEFT,
    NAMES,
    Facts,
    Writer,
    digest_of,
    entries_of,
    record_of,
    row_of,
    row_of_fold,
    rows,
    verify,
)

TEXTS = st.text(max_size=20)
IDS = st.integers(1, 2**48)
TIMES = st.integers(1, 2**41)


def record_with(number: int, **more: Any) -> JobRecord:
    plain = {
        "id": number, "uuid": f"u{number}", "type": "preheat", "state": "FAILED", "owner": "ann", "tag": "t", "application": "a",
        "labels": '{"k":"v"}', "importance": 2, "created_at": 1_000 + number, "finished_at": 2_000 + number,
        "base_at": 3_000 + number, "summary": f"s{number}", "error": "e", "held": 0, "hold_reason": "", "tier": 1, "class": 17,
        "idempotency_key": None,
    }  # fmt: skip
    return JobRecord(
        id=number, job={**FOLDED, **plain, **more}, args={"url": "http://x"}, result={"n": number}, clusters=(3, 5),
        parts=({"id": number * 10, "url": "p", "created_at": 1_500, "hosts": []},),
        events=({"id": number * 100, "at": 1_600, "kind": "k", "message": "m"},),
    )  # fmt: skip


def written(file: Path, *records: JobRecord) -> Facts:
    writer = Writer(file)
    for one in records:
        writer.add(row_of(one))
    return writer.close()


def told(record: JobRecord) -> str:
    """All that a segment keeps of a record."""
    job = {name: value for name, value in record.job.items() if name not in {"tier", "class", "idempotency_key"}}
    return repr((sorted(job.items()), record.args, record.result, sorted(record.clusters), record.parts, record.events))


RECORDS = st.builds(
    lambda number, created, texts, clusters, args, events: replace(
        record_with(number, created_at=created, summary=texts[0], error=texts[1], owner=texts[2], bio=texts[3]),
        clusters=tuple(clusters),
        args=args,
        events=tuple({"id": key, "at": at, "kind": "k", "message": text} for key, at, text in events),
    ),
    IDS,
    TIMES,
    st.lists(TEXTS, min_size=4, max_size=4),
    st.lists(IDS, max_size=3),
    st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS, max_size=4),
    st.lists(st.tuples(IDS, TIMES, TEXTS), max_size=3),
)


@given(st.lists(RECORDS, min_size=1, max_size=4, unique_by=lambda one: one.id))
@settings(max_examples=60, deadline=None)
def test_records_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, records: list[JobRecord]) -> None:
    file = tmp_path_factory.mktemp("segment") / "one.parquet"
    facts, entries = verify(file, written(file, *records)), entries_of(file)
    assert [told(record_of(row)) for row in rows(file)] == [told(one) for one in records]
    assert [one.digest for one in entries] == [digest_of(row_of(one)) for one in records]
    assert [one.id for one in entries] == [one.id for one in records]
    assert (facts.min_id, facts.max_id) == (min(one.id for one in records), max(one.id for one in records))
    assert facts.bytes == file.stat().st_size


def test_the_facts_of_a_segment(tmp_path: Path) -> None:
    one, two = record_with(7, owner="bob"), record_with(9, base_at=99_999, state="SUCCEEDED")
    facts = verify(tmp_path / "f", written(tmp_path / "f", one, two))
    first, _ = entries_of(tmp_path / "f")
    assert (facts.rows, facts.min_id, facts.max_id, facts.max_base_at) == (2, 7, 9, 99_999)
    assert (facts.min_created_at, facts.max_created_at) == (1_007, 1_009)
    assert facts.facets["owners"] == ["ann", "bob"]
    assert facts.facets["clusters"] == [3, 5]
    assert (first.id, first.digest) == (7, digest_of(row_of(one)))


def test_too_many_owners_are_no_facet(tmp_path: Path) -> None:
    facts = written(tmp_path / "f", *(record_with(number, owner=f"o{number}") for number in range(1, 70)))
    assert "owners" not in facts.facets
    assert facts.facets["types"] == ["preheat"]


@pytest.mark.parametrize("fault", [{"rows": 2}, {"digest": "0" * 16}])
def test_a_file_that_does_not_hold_what_was_put_in_is_told(tmp_path: Path, fault: dict[str, Any]) -> None:
    facts = written(tmp_path / "f", record_with(7))
    wrong = Facts(**{"rows": facts.rows, "digest": facts.digest, **fault})
    with pytest.raises(DarnerError, match="does not read back"):
        verify(tmp_path / "f", wrong)


def test_what_was_put_in_is_compared_group_by_group(tmp_path: Path) -> None:
    other, writer = Writer(tmp_path / "g"), Writer(tmp_path / "f")
    for one in (other, writer):
        one.add(row_of(record_with(7 if one is writer else 9)))
        one.close()
    assert verify(tmp_path / "f", Facts(rows=1), writer.tables).sha256 != ""
    with pytest.raises(DarnerError, match="does not read back"):
        verify(tmp_path / "f", Facts(rows=1), other.tables)
    assert writer.entries == entries_of(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"PAR1")
    with pytest.raises(DarnerError, match="cannot be read"):
        verify(tmp_path / "f", Facts(rows=1), writer.tables)


@given(st.dictionaries(st.sampled_from([*FOLDED]), TEXTS), st.dictionaries(TEXTS, TEXTS, max_size=3), st.booleans())
def test_a_folded_job_is_the_same_row(texts: dict[str, str], args: dict[str, str], spaced: bool) -> None:
    record = replace(record_with(7, **{name: f'{text}}},"a":' for name, text in texts.items() if FOLDED[name] == ""}), args=args)
    blob = blob_of(record)
    text = json.dumps(json.loads(blob)).encode() if spaced else blob
    plain = row_of(record)
    folded = row_of_fold([plain[NAMES.index(name)] for name in LEFT], record.clusters, text)
    assert told(record_of(folded)) == told(record_of(plain))
    assert spaced or folded == plain


@pytest.mark.parametrize("text", [b"", b"{}", b'{"v":1,"j":{"x"},"a":1', b'{"v":1,"j":{},"a":\xff', b'{"v":99,"j":{},"a":{}}'])
def test_a_damaged_blob_is_told(text: bytes) -> None:
    with pytest.raises(DarnerError):
        row_of_fold([7] * len(LEFT), [], text)


def test_every_field_counts_for_the_digest() -> None:
    plain = record_with(7)
    same = digest_of(row_of(plain))
    for name, other in (("state", "SUCCEEDED"), ("error", "x"), ("hold_reason", "y"), ("bytes_done", 5), ("finished_at", 1)):
        assert digest_of(row_of(replace(plain, job={**plain.job, name: other}))) != same
    for changed in (replace(plain, args={}), replace(plain, result=None), replace(plain, clusters=()), replace(plain, events=())):
        assert digest_of(row_of(changed)) != same
    assert digest_of(row_of(replace(plain, job={**plain.job, "tier": 0, "class": 3}))) == same


def test_a_record_that_cannot_be_written_is_told() -> None:
    with pytest.raises(DarnerError, match="Job 7"):
        row_of(replace(record_with(7), args={"n": 2**70}))


def test_a_row_can_be_carried_over(tmp_path: Path) -> None:
    facts = written(tmp_path / "f", record_with(7), record_with(9))
    writer = Writer(tmp_path / "g")
    for row in rows(tmp_path / "f"):
        writer.add(row)
    assert writer.close().digest == facts.digest


@pytest.mark.parametrize("body", ["", "{", "[]", '{"v": 99}', '{"v": 1}'])
def test_a_damaged_row_is_told(tmp_path: Path, body: str) -> None:
    written(tmp_path / "f", record_with(7))
    (row,) = rows(tmp_path / "f")
    with pytest.raises(DarnerError):
        record_of((*row[:-1], body))
