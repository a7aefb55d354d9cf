"""Records as bytes are read back as they were, and other bytes are refused."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.errors import DarnerError
from darner.history.record import VERSION, JobRecord, from_bytes, to_bytes

VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=40)
COLUMNS = st.dictionaries(st.text(max_size=12), VALUES | st.lists(VALUES, max_size=3), max_size=5)
RECORDS = st.builds(
    JobRecord,
    id=st.integers(1, 2**63 - 1),
    job=COLUMNS,
    args=COLUMNS,
    result=st.none() | COLUMNS,
    clusters=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    parts=st.lists(COLUMNS, max_size=2).map(tuple),
    events=st.lists(COLUMNS, max_size=2).map(tuple),
)


@given(RECORDS)
def test_a_record_is_read_back_as_it_was(record: JobRecord) -> None:
    assert from_bytes(to_bytes(record)) == record


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b'{"v":1}', b"\xff", b'{"v":1,"id":"x","job":{}}'])
def test_other_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(DarnerError, match="no job record"):
        from_bytes(data)


def test_a_newer_version_says_what_is_needed() -> None:
    with pytest.raises(DarnerError, match=f"version {VERSION + 1}; this Darner reads up to {VERSION}"):
        from_bytes(orjson.dumps({"v": VERSION + 1}))
