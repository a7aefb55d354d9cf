"""No secret stays in a record, wherever a caller, an origin or a worker put it; and nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.secret import MASK
from darner.history.record import JobRecord, from_bytes, to_bytes
from darner.history.redact import redact_record

CANARY = "CANARY0123456789abcdef"
PLACES = (
    {"headers": {"Authorization": f"Bearer {CANARY}"}},
    {"headers": {"Cookie": f"session={CANARY}"}},
    {"password": CANARY},
    {"headers": {"X-Api-Key": CANARY}},
    {"url": f"https://ann:{CANARY}@store.example/file"},
    {"url": f"https://store.example/file?X-Amz-Signature={CANARY}&X-Amz-Date=1"},
    {"urls": ["https://a.example/", f"https://b.example/?sig={CANARY}"]},
    {"url": f"https://store.example/file?{CANARY}"},
    {"url": f"https://storage.googleapis.com/b/o?X-Goog-Signature={CANARY}"},
    {"url": f"https://b.oss-cn.aliyuncs.com/o?OSSAccessKeyId={CANARY}&Signature={CANARY}"},
    {"object_storage": {"access_key_id": CANARY, "access_key_secret": CANARY}},
)
TEXTS = (
    f"origin answered 401 to https://x.example/a?token={CANARY}: try again",
    f"sent Authorization: Bearer {CANARY}",
    f"Basic {CANARY}==",
    f"password={CANARY}",
    f"token: {CANARY}",
)


def record(args: dict[str, object] | None = None, text: str = "") -> JobRecord:
    job = {"type": "preheat", "created_at": 1, "summary": text, "error": text}
    part = {"id": 1, "url": text, "error": text, "hosts": [{"error": text}]}
    event = {"id": 1, "message": text}
    return JobRecord(
        id=1, job=job, args=args or {}, result={"job_states": [{"error": text}]}, clusters=(1,), parts=(part,), events=(event,)
    )


@pytest.mark.parametrize("args", PLACES, ids=lambda args: next(iter(args)))
def test_secrets_of_a_request_are_gone(args: dict[str, object]) -> None:
    assert CANARY.encode() not in to_bytes(redact_record(record(args)))


@pytest.mark.parametrize("text", TEXTS)
def test_secrets_in_what_people_read_are_gone(text: str) -> None:
    assert CANARY.encode() not in to_bytes(redact_record(record(text=text)))


def test_what_is_no_secret_stays() -> None:
    args = {
        "url": "https://r.example/v2/a/blobs/sha256:" + "a" * 64,
        "filtered_query_params": "X-Amz-Signature&X-Amz-Date&token",
        "headers": {"Accept": "application/json"},
        "tag": "nightly",
        "count": 3,
    }
    kept = record(args, text="no space left on device: 37 hosts")
    assert to_bytes(redact_record(kept)) == to_bytes(kept)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=60), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@given(st.dictionaries(st.sampled_from(["url", "token", "note", "headers"]), JSON), st.text(max_size=80))
def test_doing_it_twice_changes_nothing_more(args: dict[str, object], text: str) -> None:
    once = redact_record(record(args, text))
    assert redact_record(once) == once
    assert from_bytes(to_bytes(once)).args == dict(once.args)


def test_masks_say_that_something_was_there() -> None:
    assert redact_record(record({"password": CANARY})).args == {"password": MASK, "redacted": True}
