"""Web servers with all kinds of answers, and what each means for the jobs; no secret in any error."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.retention.export.documents import checked, document

from darner.core.secret import Secret
from darner.retention.export.ports import RefusedError, SinkAwayError
from darner.retention.export.sinks import make_sink
from darner.testing.receivers import Answer, HookReceiver, Posted
from darner.testing.tls import make_identity

BATCH = [document(1), document(2, "ß\n")]
CANARY = "canary-4711-geheim"


@pytest.fixture
def hook() -> Iterator[HookReceiver]:
    with HookReceiver() as running:
        yield running


async def test_a_post_says_what_it_carries(hook: HookReceiver) -> None:
    sink = make_sink(
        checked(kind="webhook", url=hook.url, gzip=True, headers={"X-Key": Secret(CANARY)}, authorization=Secret("Bearer t"))
    )
    await sink.deliver(BATCH)
    await sink.close()
    (post,) = hook.accepted
    assert post.body == BATCH[0].body + b"\n" + BATCH[1].body + b"\n"
    assert post.header["content-type"] == "application/x-ndjson"
    assert post.header["content-encoding"] == "gzip"
    assert post.header["authorization"] == "Bearer t"
    assert post.header["x-key"] == CANARY
    assert post.header["idempotency-key"] == hashlib.sha256(b"1:1\n2:1").hexdigest()[:32]


async def test_an_array_is_one_json_text_and_own_headers_win(hook: HookReceiver) -> None:
    sink = make_sink(checked(kind="webhook", url=hook.url, format="array", headers={"content-type": Secret("application/cloud")}))
    await sink.deliver(BATCH)
    await sink.close()
    assert [one["key"] for one in json.loads(hook.accepted[0].body)] == ["1:1", "2:1"]
    assert hook.accepted[0].header["content-type"] == "application/cloud"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_acknowledges(hook: HookReceiver, status: int) -> None:
    hook.answer = lambda _: Answer(status=status, body=b"" if status == 204 else b"thanks")
    sink = make_sink(checked(kind="webhook", url=hook.url))
    await sink.deliver(BATCH)
    await sink.close()


@pytest.mark.parametrize("status", [301, 307, 401, 407, 408, 425, 429, 500, 502, 503, 599])
async def test_what_may_pass_is_away(hook: HookReceiver, status: int) -> None:
    hook.answer = lambda _: Answer(status=status, header={"Location": hook.url}, body=b"sorry")
    sink = make_sink(checked(kind="webhook", url=hook.url))
    with pytest.raises(SinkAwayError, match=str(status)):
        await sink.deliver(BATCH)
    await sink.close()
    assert len(hook.seen) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 413, 415, 422, 451])
async def test_what_will_not_pass_is_refused_with_the_answer(hook: HookReceiver, status: int) -> None:
    hook.answer = lambda _: Answer(status=status, body=b"field x\nis wrong")
    sink = make_sink(checked(kind="webhook", url=hook.url))
    with pytest.raises(RefusedError, match=f"{status}.*field x is wrong") as caught:
        await sink.deliver(BATCH)
    assert caught.value.refused is None
    await sink.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 400}, 999_999_999.0),
        ({}, None),
    ],
)
async def test_the_sink_may_say_when_to_come_again(hook: HookReceiver, header: dict[str, str], seconds: float | None) -> None:
    hook.answer = lambda _: Answer(status=503, header=header)
    sink = make_sink(checked(kind="webhook", url=hook.url))
    with pytest.raises(SinkAwayError) as caught:
        await sink.deliver(BATCH)
    assert caught.value.retry_after_s == seconds
    await sink.close()


async def test_an_answer_that_breaks_off_acknowledges_nothing(hook: HookReceiver) -> None:
    hook.answer = lambda _: Answer(status=200, body=b"x" * 1000, cut=True)
    sink = make_sink(checked(kind="webhook", url=hook.url))
    with pytest.raises(SinkAwayError):
        await sink.deliver(BATCH)
    hook.answer = lambda _: Answer()
    await sink.deliver(BATCH)
    await sink.close()


async def test_an_answer_without_end_is_read_only_so_far(hook: HookReceiver) -> None:
    hook.answer = lambda _: Answer(status=200, body=b"x" * 5_000_000)
    sink = make_sink(checked(kind="webhook", url=hook.url))
    await sink.deliver(BATCH)
    await sink.close()


async def test_a_slow_server_is_waited_for_only_so_long(hook: HookReceiver) -> None:
    hook.answer = lambda _: Answer(after_s=2.0)
    sink = make_sink(checked(kind="webhook", url=hook.url, timeout_s=1.0))
    with pytest.raises(SinkAwayError, match="in time"):
        await sink.deliver(BATCH)
    await sink.close()


async def test_a_server_that_sends_secrets_back_does_not_make_them_known(hook: HookReceiver) -> None:
    def echo(posted: Posted) -> Answer:
        return Answer(status=400, body=f"bad login {posted.header['authorization']} {posted.header['x-key']}".encode())

    hook.answer = echo
    sink = make_sink(
        checked(kind="webhook", url=hook.url, headers={"X-Key": Secret(CANARY)}, authorization=Secret(f"Bearer {CANARY}2"))
    )
    with pytest.raises(RefusedError, match="bad login") as caught:
        await sink.deliver(BATCH)
    assert CANARY not in str(caught.value)
    await sink.close()


async def test_a_token_file_is_read_anew_each_time_and_its_absence_is_said(hook: HookReceiver, tmp_path: Path) -> None:
    path = tmp_path / "token"
    sink = make_sink(checked(kind="webhook", url=hook.url, authorization_file=path))
    with pytest.raises(SinkAwayError, match="cannot be read"):
        await sink.deliver(BATCH)
    for word in ("Bearer one", "Bearer two"):
        path.write_text(word + "\n")
        await sink.deliver(BATCH)
    for wrong in ("", "Bearer\nthree", "Bearer \xff"):
        path.write_text(wrong, encoding="latin-1")
        with pytest.raises(SinkAwayError):
            await sink.deliver(BATCH)
    await sink.close()
    assert [one.header["authorization"] for one in hook.accepted] == ["Bearer one", "Bearer two"]


async def test_a_certificate_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    with HookReceiver(identity=make_identity(tmp_path)) as hook:
        sink = make_sink(checked(kind="webhook", url=hook.url, authorization=Secret(CANARY)))
        with pytest.raises(SinkAwayError, match="certificate") as caught:
            await sink.deliver(BATCH)
        assert CANARY not in str(caught.value)
        await sink.close()
        assert hook.seen == []


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/x", "http://nowhere.invalid/", f"https://user:{CANARY}@127.0.0.1:1/{CANARY}"]
)
async def test_where_nobody_answers_is_said_without_the_secrets_of_the_url(url: str) -> None:
    sink = make_sink(checked(kind="webhook", url=url))
    with pytest.raises(SinkAwayError) as caught:
        await sink.deliver(BATCH)
    assert CANARY not in str(caught.value)
    await sink.close()


async def test_a_delivery_can_be_cancelled(hook: HookReceiver) -> None:
    hook.answer = lambda _: Answer(after_s=0.5)
    sink = make_sink(checked(kind="webhook", url=hook.url))
    task = asyncio.create_task(sink.deliver(BATCH))
    while not hook.seen:  # noqa: ASYNC110  (another thread counts)
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hook.answer = lambda _: Answer()
    await sink.deliver(BATCH)
    await sink.close()
