"""Workers that die, and messages that double and come late, over real SQLite with a clock that the test moves: no end is wrong."""

import asyncio
import random
import uuid
from pathlib import Path

import pytest

from darner.core.job import END_STATES, DetailState, JobType
from darner.core.work import HostResult, HostState, Outcome, WorkReport
from darner.db import Database, migrate
from darner.jobs.events import Cancel, Content, LeasedPart, Limits, NewJob, Plan
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.jobs.state import check_job

LIMITS = Limits(lease_ms=1_000, max_attempts=50, patience_ms=0, retry_first_ms=100, retry_cap_ms=400)
PARTS = 4


class Story:
    """One random story. `truth`: parts whose hosts really hold the content."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)  # noqa: S311  (a test's dice)
        self.now = 1_000
        self.db = Database.open(f"sqlite:///{directory / 'd.db'}")
        migrate(self.db)
        self.book = SqlJobBook(self.db, LIMITS, now=lambda _: self.now)
        self.work = SqlWorkBook(self.db, LIMITS, now=lambda _: self.now)
        self.history = SqlHistory(self.db)
        self.doomed = {ordinal for ordinal in range(PARTS) if self.random.random() < 0.2}
        self.truth: set[int] = set()
        self.leased: list[LeasedPart] = []
        self.post: list[tuple[str, WorkReport]] = []
        self.cancelled = False

    async def create(self) -> int:
        new = NewJob(
            uuid=str(uuid.UUID(int=self.random.getrandbits(128))), type=JobType.PREHEAT, owner="t", summary="s", bio="", tag="",
            application="", priority=6, timeout_ms=60_000, cluster_ids=(1,), args={}, sealed=b"sealed",
        )  # fmt: skip
        job_id, _ = await self.book.create(new)
        plans = [Plan(contents=tuple(Content(url=f"http://o/{number}") for number in range(PARTS)))] * 2
        assert [await self.book.plan(job_id, plan) for plan in plans] == [True, False], "planned twice, written once"
        return job_id

    def finish_of(self, leased: LeasedPart) -> WorkReport:
        ordinal = leased.part.ordinal
        good = ordinal not in self.doomed and self.random.random() < 0.7
        if good:
            self.truth.add(ordinal)
        state = HostState.SUCCEEDED if good else HostState.FAILED
        host = HostResult(
            host_id="h", hostname="h", ip="i", seed=True, state=state, verified=good, bytes_done=9 * good,
            error="" if good else "disk full", retryable=ordinal not in self.doomed,
        )  # fmt: skip
        return WorkReport(size_bytes=9, target_count=1, bytes_done=9 * good, hosts=(host,), outcome=Outcome.DONE)

    async def step(self, job_id: int, *, calm: bool) -> None:
        roll = self.random.random()
        self.now += self.random.choice((0, 1, 50, 300, 1_500)) if not calm else 500
        if calm or roll < 0.3:
            self.leased += await self.work.lease(1, f"w{self.random.randrange(3)}", [str(self.random.random()) for _ in range(2)])
        if self.leased and (calm or roll < 0.55):
            part = self.leased.pop(self.random.randrange(len(self.leased)))
            self.post.append((part.part.lease_id, self.finish_of(part)))
            if self.random.random() < 0.3:
                self.leased.append(part)  # its worker says it again, perhaps otherwise
        if self.leased and 0.5 < roll < 0.7:
            part = self.random.choice(self.leased)
            self.post.append((part.part.lease_id, WorkReport(size_bytes=9, target_count=1, bytes_done=self.random.randrange(9))))
        if not calm and 0.7 < roll < 0.78 and self.leased:
            self.leased.pop()  # a worker dies
        if not calm and roll > 0.995:
            await self.cancel(job_id)
        await self.deliver(calm=calm)
        if calm or roll > 0.8:
            await self.work.tick()

    async def cancel(self, job_id: int) -> None:
        if (await self.history.details(job_id)).job.finished_at is None:
            self.cancelled = True
            await self.book.act(job_id, Cancel(), by="x")

    async def deliver(self, *, calm: bool) -> None:
        """Bring some of the messages on the way, in any order, some twice."""
        self.random.shuffle(self.post)
        while self.post and (calm or self.random.random() < 0.6):
            message = self.post.pop()
            await self.work.report(*message)
            if self.random.random() < 0.2:
                await self.work.report(*message)


@pytest.mark.parametrize("seed", range(12))
async def test_no_story_ends_wrong(seed: int, tmp_path: Path) -> None:
    story = Story(seed, tmp_path)
    job_id = await story.create()
    steps = 0
    while (details := await story.history.details(job_id)).job.state not in END_STATES:
        steps += 1
        await story.step(job_id, calm=steps > 60)
        assert steps < 400, "the job does not end"
        parts = await story.history.parts(job_id)
        check_job((await story.history.details(job_id)).job, parts)
        assert {part.ordinal for part in parts if part.state == "SUCCEEDED"} <= story.truth
    ended = details.job.state
    if ended == DetailState.SUCCEEDED:
        assert story.truth == set(range(PARTS))
    elif ended == DetailState.CANCELLED:
        assert story.cancelled
    elif ended == DetailState.TIMED_OUT:
        assert story.now >= details.job.deadline_at
    else:
        assert story.doomed
        assert (ended == DetailState.FAILED) == (not any(part.state == "SUCCEEDED" for part in await story.history.parts(job_id)))
    for message in story.post * 2:
        await story.work.report(*message)
    story.now += 1_000_000
    await story.work.tick()
    assert (await story.history.details(job_id)) == details, "an end is never left"
    await asyncio.to_thread(story.db.close)
