"""Jobs on every database: stored once, planned, handed out once each, reported, listed, held, removed."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection

from darner.core.errors import ConflictError, NotFoundError
from darner.core.job import DetailState, JobType, PartState
from darner.core.work import HostResult, HostState, Outcome, WorkReport
from darner.db import Database, db_now_ms
from darner.jobs.events import Cancel, Content, Describe, Hold, JobQuery, Limits, NewJob, Plan, Release, Remove
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook

LIMITS = Limits(lease_ms=60_000)
URL = "https://registry.example.com/größe/🐉"


class Scene:
    """The three books of one database; `ahead_ms`: how far their clock is moved."""

    def __init__(self, db: Database) -> None:
        self.ahead_ms = 0
        self.book = SqlJobBook(db, LIMITS, now=self._now)
        self.work = SqlWorkBook(db, LIMITS, now=self._now)
        self.history = SqlHistory(db)

    def _now(self, conn: Connection) -> int:
        return db_now_ms(conn) + self.ahead_ms

    async def create(self, number: int = 1, **more: Any) -> int:
        facts: dict[str, Any] = {
            "uuid": f"u-{number}", "type": JobType.PREHEAT, "owner": f"o{number % 3}", "summary": f"{URL}-{number}", "bio": "",
            "tag": "", "application": "", "priority": 6, "timeout_ms": 3_600_000, "cluster_ids": (1, 2), "args": {"n": number},
            "sealed": b"\x00\xff\x80",
        }  # fmt: skip
        return (await self.book.create(NewJob(**{**facts, **more})))[0]

    async def planned(self, number: int = 1, *, contents: int = 1, **more: Any) -> int:
        job_id = await self.create(number, **more)
        assert await self.book.plan(job_id, Plan(contents=tuple(Content(url=f"{URL}/{at}") for at in range(contents))))
        return job_id

    async def end(self, cluster_id: int, outcome: Outcome = Outcome.DONE, *, good: bool = True) -> None:
        """Take one part of a cluster and end it."""
        lease_id = f"lease-{cluster_id}-{id(object())}"
        (part,) = await self.work.lease(cluster_id, "w1", [lease_id])
        state = HostState.SUCCEEDED if good else HostState.FAILED
        host = HostResult(
            host_id="h", hostname="größe", ip="10.0.0.9", seed=True, state=state, verified=good, error="" if good else "404"
        )
        report = WorkReport(
            size_bytes=7, target_count=1, bytes_done=7, piece_count=1, pieces_done=1, hosts=(host,), outcome=outcome
        )
        assert (await self.work.report(lease_id, report)).accepted, part


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


async def test_a_job_from_its_creation_to_its_removal(scene: Scene) -> None:
    job_id = await scene.create()
    assert await scene.book.unplanned(10) == [job_id]
    assert await scene.book.sealed(job_id) == b"\x00\xff\x80"
    plan = Plan(contents=(Content(url=f"{URL}/a", size_bytes=7),), sealed=b"packed", notes=("seen",))
    assert await scene.book.plan(job_id, plan)
    assert not await scene.book.plan(job_id, plan)
    await scene.end(1)
    await scene.end(2)
    done = await scene.history.details(job_id)
    assert (done.job.state, done.job.part_done, done.cluster_ids) == (DetailState.SUCCEEDED, 2, (1, 2))
    assert done.job.finished_at == done.job.base_at
    assert await scene.book.sealed(job_id) is None
    assert [part.url for part in await scene.history.parts(job_id)] == [f"{URL}/a"] * 2
    kinds = [event.kind for event in await scene.history.events(job_id)]
    assert kinds[:3] == ["created", "planned", "note"]
    held = await scene.book.act(job_id, Hold(reason="größer"), by="ann")
    assert (held.held, held.hold_reason) == (True, "größer")
    with pytest.raises(ConflictError):
        await scene.book.act(job_id, Remove(), by="ann")
    await scene.book.act(job_id, Release(), by="ann")
    assert (await scene.book.act(job_id, Describe(bio="🐉"), by="ann")).bio == "🐉"


async def test_a_failed_host_is_told(scene: Scene) -> None:
    job_id = await scene.planned()
    await scene.end(1)
    await scene.end(2, good=False)
    assert (await scene.history.details(job_id)).job.state in {DetailState.PARTIAL, DetailState.FAILED, DetailState.RUNNING}


async def test_an_idempotency_key_makes_one_job_however_often_it_comes(scene: Scene) -> None:
    made = await asyncio.gather(*(scene.create(idempotency_key="k", uuid=f"u{n}") for n in range(8)), return_exceptions=True)
    ids = {one for one in made if isinstance(one, int)}
    assert len(ids) == 1
    assert all(isinstance(one, int | ConflictError) for one in made)
    assert await scene.create(idempotency_key="k", uuid="later") in ids
    with pytest.raises(ConflictError, match="Idempotency-Key"):
        await scene.create(idempotency_key="k", args={"n": "other"})
    assert await scene.create(2) != await scene.create(3)


async def test_each_part_is_handed_out_once_though_many_ask(scene: Scene) -> None:
    for number in range(3):
        await scene.planned(number, contents=10, cluster_ids=(1,))
    asked = [scene.work.lease(1, f"w{n}", [f"l-{n}-{m}" for m in range(5)]) for n in range(8)]
    given = [part.part.id for parts in await asyncio.gather(*asked) for part in parts]
    while more := await scene.work.lease(1, "w9", [f"l-9-{len(given)}-{m}" for m in range(5)]):
        given += [part.part.id for part in more]
    assert len(given) == len(set(given)) == 30


async def test_reports_and_cancels_at_the_same_time_leave_one_truth(scene: Scene) -> None:
    job_id = await scene.planned(contents=6, cluster_ids=(1,))
    leases = [f"l-{n}" for n in range(6)]
    assert len(await scene.work.lease(1, "w", leases)) == 6
    ends = [
        scene.work.report(lease, WorkReport(target_count=1, outcome=Outcome.CANCELLED if n % 2 else Outcome.DONE, error="x"))
        for n, lease in enumerate(leases)
    ]
    await asyncio.gather(scene.book.act(job_id, Cancel(), by="ann"), *ends, *(scene.work.tick() for _ in range(3)))
    parts = await scene.history.parts(job_id)
    job = (await scene.history.details(job_id)).job
    ended = [part for part in parts if part.state not in {PartState.WAITING, PartState.LEASED}]
    assert job.part_done == len(ended)
    assert job.part_failed == sum(part.state != PartState.SUCCEEDED for part in ended)


async def test_a_lease_that_ran_out_and_a_deadline_that_passed_are_seen(scene: Scene) -> None:
    silent = await scene.planned(1, cluster_ids=(1,))
    assert len(await scene.work.lease(1, "w", ["l-1"])) == 1
    assert await scene.work.tick() == []
    scene.ahead_ms = LIMITS.lease_ms + 1_000
    assert await scene.work.tick() == [silent]
    assert (await scene.history.parts(silent))[0].state == PartState.WAITING
    scene.ahead_ms = 4_000_000
    await scene.work.tick()
    assert (await scene.history.details(silent)).job.state == DetailState.TIMED_OUT


async def test_lists_walk_all_jobs_once_and_filter(scene: Scene) -> None:
    ids = [await scene.create(number, cluster_ids=(1 + number % 2,)) for number in range(25)]
    for job_id in ids[::5]:
        await scene.book.act(job_id, Cancel(), by="ann")
    seen: list[int] = []
    while page := await scene.history.page(JobQuery(before_id=seen[-1] if seen else None, limit=4)):
        seen += [job.id for job, _ in page]
    assert seen == sorted(ids, reverse=True)
    both = (DetailState.CANCELLED, DetailState.QUEUED)
    assert [job.id for job, _ in await scene.history.page(JobQuery(states=both, limit=50))] == seen

    async def of(**wanted: Any) -> set[int]:
        return {job.id for job, _ in await scene.history.page(JobQuery(limit=50, **wanted))}

    assert await of(states=(DetailState.CANCELLED,)) == set(ids[::5])
    assert await of(owner="o1") == set(ids[1::3])
    assert await of(cluster_id=2) == set(ids[1::2])
    assert await of(text="🐉-7") == {ids[7]}
    assert await of(text="GRÖSSE") == set()
    assert await of(text="100%") == await of(type="gc") == set()
    assert await scene.history.count(JobQuery(), at_most=20) == 20
    assert await scene.history.count(JobQuery(states=both), at_most=99) == 25


async def test_what_is_not_there_is_not_found(scene: Scene) -> None:
    with pytest.raises(NotFoundError):
        await scene.history.details(99)
    with pytest.raises(NotFoundError):
        await scene.book.act(99, Cancel(), by="ann")
