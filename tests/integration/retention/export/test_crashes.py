"""Exporters that die anywhere, and in the end nothing is missing: what came twice has the same key and the same bytes."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.retention.export.jobs import QUICK, Jobs, until

from darner.core.errors import UnavailableError
from darner.retention.export.ports import Limits, RefusedError, SinkAwayError
from darner.retention.export.sinks.memory import MemorySink
from darner.retention.export.values import Document
from darner.testing.receivers import Answer, HookReceiver, Posted

CANARIES = ("canary-token-77", "canary-password-88", "canary-signature-99")


class Moody(MemorySink):
    """Fails in all ways by chance, and may be left hanging before or after it took a batch."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(Limits(documents=7))
        self.dice = dice
        self.hanging = asyncio.Event()
        self.may_hang = True

    async def deliver(self, batch: Sequence[Document]) -> None:
        mood = self.dice.random()
        if mood < 0.1:
            await self._hang()
        if mood < 0.25:
            raise SinkAwayError("moody")
        if mood < 0.35:
            self.taken += batch[: len(batch) // 2]
            raise SinkAwayError("moody in the middle")
        if mood < 0.45 and len(batch) > 1:
            raise RefusedError("moody about something in it")
        if mood < 0.5:
            raise ValueError("very moody")
        await super().deliver(batch)
        if mood > 0.85:
            await self._hang()

    async def _hang(self) -> None:
        if self.may_hang:
            self.hanging.set()
            await asyncio.Event().wait()


@pytest.mark.parametrize("seed", range(6))
async def test_an_exporter_that_is_killed_at_every_point_loses_nothing(jobs: Jobs, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    ids = jobs.add(60)
    taken: list[Document] = []
    pace = replace(QUICK, grace_s=0.0, retry_first_s=0.001, retry_cap_s=0.002)
    for _ in range(12):
        sink = Moody(dice)
        sink.taken = taken
        async with jobs.twin(sink, pace=pace):
            await asyncio.wait({asyncio.create_task(sink.hanging.wait())}, timeout=0.2)
        assert set(jobs.acknowledged()) <= {one.job_id for one in taken}, "what is acknowledged was delivered"
    sink = Moody(dice)
    sink.taken, sink.may_hang = taken, False
    async with jobs.twin(sink, pace=pace) as exporter:
        for _ in range(200):
            await exporter.retry("log", by="test")
            if jobs.acknowledged() == ids:
                break
            await asyncio.sleep(0.01)
    assert jobs.acknowledged() == ids
    assert {one.job_id for one in taken} == set(ids)
    assert len({one.key for one in taken}) == len({one.body for one in taken}) == len(ids)


async def test_a_database_that_fails_at_the_acknowledgement_only_costs_a_second_delivery(jobs: Jobs) -> None:
    ids = jobs.add(10)
    sink = MemorySink()
    exporter = jobs.twin(sink)
    write, failures = jobs.db.write, iter([False, True, True, False])

    async def failing(fn: object, *, durable: bool = True) -> object:
        if next(failures, False):
            raise UnavailableError("The database is away.")
        return await write(fn, durable=durable)  # type: ignore[arg-type]

    jobs.db.write = failing  # type: ignore[assignment,method-assign]
    async with exporter:
        await until(lambda: jobs.acknowledged() == ids)
    assert len(sink.taken) >= 20
    assert {one.job_id for one in sink.taken} == set(ids)


PROCESS = Path(__file__).with_name("process.py")


def started(tmp_path: Path, hook: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(PROCESS), f"sqlite:///{tmp_path / 'darner.db'}", str(tmp_path / "out"), hook]
    with (tmp_path / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stderr=log)


def kill_until_done(jobs: Jobs, tmp_path: Path, ids: list[int], hook: str = "") -> None:
    """Kill it a little after each time it has got somewhere, until all is acknowledged."""
    dice = random.Random(1)  # noqa: S311
    done = -1
    deadline = time.monotonic() + 90
    for _ in range(6):
        process = started(tmp_path, hook)
        while len(jobs.acknowledged()) <= done + 40 and len(jobs.acknowledged()) < len(ids) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(dice.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = len(jobs.acknowledged())
        if not hook:
            assert set(jobs.acknowledged()) <= {json.loads(one)["job"]["id"] for one in in_files(tmp_path)}
    process = started(tmp_path, hook)
    while jobs.acknowledged() != ids and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert jobs.acknowledged() == ids


def in_files(tmp_path: Path) -> list[bytes]:
    """Whole documents in export files."""
    found = []
    for path in (tmp_path / "out").glob("log*.ndjson"):
        found += [line for line in path.read_bytes().split(b"\n") if line.startswith(b"{") and line.endswith(b"}")]
    return found


def secrets_in_jobs(jobs: Jobs, count: int) -> list[int]:
    """Jobs that carry secrets wherever people and origins can put them."""
    signed = f"https://u:{CANARIES[1]}@host/x?X-Amz-Signature={CANARIES[2]}"
    facts = {"summary": signed, "error": f"GET {signed} said Authorization: Bearer {CANARIES[0]}", "bio": f"token={CANARIES[0]}"}
    return jobs.add(count, text=f"password: {CANARIES[1]} {signed}", parts=3, **facts)


def assert_whole(documents: list[bytes], ids: list[int]) -> None:
    by_key: dict[str, set[bytes]] = {}
    for one in documents:
        by_key.setdefault(json.loads(one)["key"], set()).add(one)
    assert {int(key.partition("-")[0]) for key in by_key} == set(ids)
    assert all(len(bodies) == 1 for bodies in by_key.values()), "the same key has the same bytes"
    assert not [one for one in documents for canary in CANARIES if canary.encode() in one]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_kill_9_of_an_exporter_to_files_loses_nothing(jobs: Jobs, tmp_path: Path) -> None:
    ids = secrets_in_jobs(jobs, 1500)
    kill_until_done(jobs, tmp_path, ids)
    assert_whole(in_files(tmp_path), ids)
    assert not [canary for canary in CANARIES if canary in (tmp_path / "log.txt").read_text()]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_kill_9_of_an_exporter_to_a_moody_webhook_loses_nothing(jobs: Jobs, tmp_path: Path) -> None:
    ids = secrets_in_jobs(jobs, 1500)
    dice = random.Random(2)  # noqa: S311

    def answer(_: Posted) -> Answer:
        mood = dice.random()
        if mood < 0.1:
            return Answer(status=dice.choice((408, 429, 500, 503)))
        if mood < 0.2:
            return Answer(status=200, body=b"half an answer", cut=True)
        return Answer(after_s=0.01)

    with HookReceiver(answer) as hook:
        kill_until_done(jobs, tmp_path, ids, hook.url)
        assert_whole([line for post in hook.accepted for line in post.body.splitlines()], ids)
    assert not [canary for canary in CANARIES if canary in (tmp_path / "log.txt").read_text()]
