"""No secret stays in a record, wherever a caller, an origin or a worker put it; and nothing else is touched."""

import re
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.secret import MASK
from darner.history.record import JobRecord, from_bytes, to_bytes
from darner.history.redact import redact_args, redact_json, redact_record, redact_text

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


SIGNERS = (
    "X-Amz-Credential={0}%2F20261125&X-Amz-Signature={0}&X-Amz-Security-Token={0}",
    "X-Goog-Credential={0}&X-Goog-Signature={0}",
    "OSSAccessKeyId={0}&Expires=9&Signature={0}&security-token={0}",
    "AccessKeyId={0}&Expires=9&Signature={0}&x-obs-security-token={0}",
    "q-sign-algorithm=sha1&q-ak={0}&q-signature={0}&x-cos-security-token={0}",
    "sv=2024&sig={0}",
    "AWSAccessKeyId={0}&Signature={0}",
    "access_token={0}",
)
HOLDERS = (
    "GET https://s.example/bucket/key?{0} answered 403",
    "{0}",
    "/bucket/key?{0}",
    "url https://u:{1}@s.example/key",
    "redirected to https://s.example/a#{1}",
    "Authorization: Bearer {1}",
    'sent "Authorization": "Basic {1}=="',
    "authorization={1}",
    "Proxy-Authorization: Digest username={1}, response={1}",
    "Cookie: a={1}; b={1}",
    "Set-Cookie: session={1}; Path=/",
    "AWS4-HMAC-SHA256 Credential={1}/20261125, SignedHeaders=host, Signature={1}",
    '{{"password": "{1}", "user": "ann"}}',
    "{{'api_key': '{1}'}}",
    "password={1}",
    "PASSWD: {1}",
    "client_secret = {1}",
    "?next=https%3A%2F%2Fs.example%2F%3Ftoken%3D{1}",
    "bearer {1}",
    "login ann --password={1}",
)
NOISE = st.text(alphabet="abc:=&?/@# .,;{}[]\"'\\\n%é•", max_size=30)


@given(st.sampled_from(SIGNERS), st.sampled_from(HOLDERS), NOISE, NOISE)
def test_no_planted_secret_is_left_in_any_text(signer: str, holder: str, before: str, after: str) -> None:
    said = holder.format(signer.format(CANARY), CANARY)
    # A break before and after: what is glued to a secret's name may be part of another name.
    text = f"{before} {said} {after}"
    found = to_bytes(redact_record(record({"note": text, "urls": [text], "deep": {"er": [{"e": text}]}}, text)))
    assert CANARY.encode() not in found
    assert redact_record(from_bytes(found)) == from_bytes(found)


@given(st.sampled_from(["Authorization", "cookie", "X-Amz-Security-Token", "password", "api-key", "PRIVATE-TOKEN"]), JSON)
def test_nothing_is_left_below_a_key_that_tells_a_secret(key: str, inner: object) -> None:
    for value in (CANARY, [CANARY, inner], {"a": CANARY, "b": [inner, {"c": CANARY}]}):
        assert CANARY.encode() not in to_bytes(redact_record(record({"headers": {key: value}})))


@given(st.text(alphabet='abkey:=/?#@ "{}', max_size=60), st.booleans())
def test_a_document_that_is_passed_by_its_text_would_not_have_changed(text: str, args: bool) -> None:
    document = orjson.dumps({"a": text, text: ["x"]}).decode()
    written = orjson.dumps(redact_json(document, args=args))
    value = orjson.loads(document)
    wanted = redact_args(value) if args else redact_record(record(value)).args
    if "redacted" not in wanted or args:
        assert orjson.loads(written) == wanted


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a://?" * 40_000, "token" * 40_000, "token " * 30_000, "password" + " " * 200_000, "://" * 60_000]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    redact_text(text + "?=")
    ours = time.process_time() - began
    began = time.process_time()
    for _ in range(200):
        re.search("nothing like it", text)
    assert ours < 50 * (time.process_time() - began) + 1
