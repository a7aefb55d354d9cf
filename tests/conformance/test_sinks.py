"""What every sink must do; run on each with a real receiver, and on the twin."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from darner.retention.export.config import SinkConfig, check_sinks
from darner.retention.export.ports import Limits, Sink, SinkAwayError
from darner.retention.export.sinks import make_sink
from darner.retention.export.sinks.memory import MemorySink
from darner.retention.export.values import Document
from darner.testing.receivers import HookReceiver, SyslogReceiver
from darner.testing.tls import Identity, make_identity

LIMIT = 6_000


@dataclass
class Rig:
    """A sink and its receiver."""

    sink: Sink
    bodies: Callable[[], list[bytes]]
    down: Callable[[], None]
    up: Callable[[], None]

    def wait_for(self, count: int) -> list[bytes]:
        """The bodies, once there are that many: datagrams take a moment after they were sent."""
        self._until(lambda: len(self.bodies()) >= count)
        return self.bodies()

    def has(self, body: bytes) -> bool:
        """Whether a body is there, or soon will be."""
        return self._until(lambda: body in self.bodies())

    def _until(self, reached: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 10
        while not reached() and time.monotonic() < deadline:
            time.sleep(0.005)
        return reached()


def document(number: int, text: str = "x") -> Document:
    body = json.dumps({"key": f"{number}:1", "text": text}, ensure_ascii=False, sort_keys=True).encode()
    facts = {"job": str(number), "type": "preheat", "state": "SUCCESS", "detail_state": "SUCCEEDED"}
    return Document(key=f"{number}:1", job_id=number, at=1_700_000_000_000 + number, failed=False, facts=facts, body=body)


def made(**values: object) -> Sink:
    config = SinkConfig(name="log", timeout_s=5.0, max_record_bytes=LIMIT, **values)  # type: ignore[arg-type]
    check_sinks([config])
    return make_sink(config)


def memory_rig(_: Path) -> Iterator[Rig]:
    sink = MemorySink(Limits(document_bytes=LIMIT))

    def set_away(error: SinkAwayError | None) -> None:
        sink.away = error

    yield Rig(sink, lambda: [one.body for one in sink.taken], lambda: set_away(SinkAwayError("away")), lambda: set_away(None))


def ndjson_rig(path: Path) -> Iterator[Rig]:
    directory, hidden = path / "export", path / "hidden"

    def down() -> None:
        if directory.exists():
            directory.rename(hidden)
        directory.write_text("in the way")

    def up() -> None:
        directory.unlink()
        if hidden.exists():
            hidden.rename(directory)

    def bodies() -> list[bytes]:
        file = directory / "log.ndjson"
        return file.read_bytes().splitlines() if file.exists() else []

    yield Rig(made(kind="ndjson", dir=directory, min_free_bytes=0), bodies, down, up)
    if directory.is_dir():
        shutil.rmtree(directory)


def syslog_rig(receiver: SyslogReceiver, **values: object) -> Iterator[Rig]:
    with receiver:
        sink = made(kind="syslog", url=receiver.url, **values)
        yield Rig(sink, lambda: [one.body for one in receiver.messages()], receiver.stop, receiver.start)


def hook_rig(identity: Identity | None = None, **values: object) -> Iterator[Rig]:
    def bodies() -> list[bytes]:
        found = [one.body for one in receiver.accepted]
        if values.get("format") == "array":
            return [json.dumps(one, ensure_ascii=False, sort_keys=True).encode() for body in found for one in json.loads(body)]
        return [line for body in found for line in body.splitlines()]

    with HookReceiver(identity=identity) as receiver:
        yield Rig(made(kind="webhook", url=receiver.url, **values), bodies, receiver.stop, receiver.start)


def tls_syslog_rig(path: Path, **values: object) -> Iterator[Rig]:
    identity = make_identity(path / "tls")
    yield from syslog_rig(SyslogReceiver(identity=identity), ca_file=identity.ca_file, **values)


def https_rig(path: Path) -> Iterator[Rig]:
    identity = make_identity(path / "tls")
    yield from hook_rig(identity, ca_file=identity.ca_file, gzip=True)


RIGS: dict[str, Callable[[Path], Iterator[Rig]]] = {
    "memory": memory_rig,
    "ndjson": ndjson_rig,
    "syslog-tcp": lambda _: syslog_rig(SyslogReceiver()),
    "syslog-tcp-sent": lambda _: syslog_rig(SyslogReceiver(), confirm="sent"),
    "syslog-tls": tls_syslog_rig,
    "syslog-tls-sent": lambda path: tls_syslog_rig(path, confirm="sent"),
    "syslog-udp": lambda _: syslog_rig(SyslogReceiver(datagrams=True)),
    "syslog-unix": lambda path: syslog_rig(SyslogReceiver(path / "s")),
    "syslog-unix-datagrams": lambda path: syslog_rig(SyslogReceiver(path / "d", datagrams=True)),
    "webhook": lambda _: hook_rig(),
    "webhook-array": lambda _: hook_rig(format="array"),
    "webhook-https-gzip": https_rig,
}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    yield from RIGS[request.param](tmp_path)


async def test_a_batch_arrives_whole_and_in_order(rig: Rig) -> None:
    batch = [document(number) for number in range(300)]
    await rig.sink.deliver(batch[:200])
    await rig.sink.deliver(batch[200:])
    assert rig.wait_for(300) == [one.body for one in batch]
    await rig.sink.close()


async def test_one_document_as_large_as_the_sink_takes_arrives(rig: Rig) -> None:
    one = document(1, "ß" * ((rig.sink.limits.document_bytes - 100) // 2))
    await rig.sink.deliver([one])
    assert rig.wait_for(1) == [one.body]
    await rig.sink.close()


async def test_text_of_all_kinds_stays_one_document(rig: Rig) -> None:
    one = document(1, 'line\nbreak\r\0"quote" ] \\ {"key": "2:1"} 日本 \U0001f409')
    await rig.sink.deliver([one])
    assert rig.wait_for(1) == [one.body]
    await rig.sink.close()


async def test_a_receiver_that_is_away_is_told_and_found_again(rig: Rig) -> None:
    await rig.sink.deliver([document(1)])
    rig.wait_for(1)
    rig.down()
    for _ in range(2):
        with pytest.raises(SinkAwayError) as caught:
            await rig.sink.deliver([document(2)])
        assert caught.value.message
        assert "document" not in caught.value.message
    rig.up()
    await rig.sink.deliver([document(2)])
    assert {one for one in rig.wait_for(2) if b'"2:1"' in one} == {document(2).body}
    await rig.sink.close()


async def test_a_cancelled_delivery_harms_no_later_one(rig: Rig) -> None:
    for _ in range(3):
        task = asyncio.create_task(rig.sink.deliver([document(number) for number in range(50)]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await rig.sink.deliver([document(99)])
    assert rig.has(document(99).body)
    await rig.sink.close()


async def test_closing_gives_everything_back(rig: Rig) -> None:
    before = open_files()
    await rig.sink.deliver([document(1)])
    await rig.sink.close()
    await rig.sink.close()
    deadline = time.monotonic() + 5
    while open_files() > before and time.monotonic() < deadline:  # noqa: ASYNC110  (the receiver's threads close theirs)
        await asyncio.sleep(0.01)
    assert open_files() <= before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
