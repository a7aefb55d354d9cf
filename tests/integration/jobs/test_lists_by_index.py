"""Every list, sweep and lease walks an index; pages neither repeat nor lose a job, also while others are removed."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, SelectBase, insert

from darner.core.job import DetailState, Tier
from darner.db import Database, migrate
from darner.db.tables.jobs import job, job_cluster, job_payload
from darner.jobs.events import JobQuery
from darner.jobs.sql import SqlHistory
from darner.jobs.sql.lists import page_statement
from darner.jobs.sql.work import late_jobs, lost_leases, waiting

STATES = [DetailState.SUCCEEDED, DetailState.FAILED, DetailState.SUCCEEDED, DetailState.PARTIAL, DetailState.RUNNING]


def fill(conn: Connection) -> None:
    rows = [
        {
            "id": number, "uuid": str(number), "type": "preheat" if number % 7 else "delete_task", "state": STATES[number % 5],
            "summary": f"http://o/{number}.bin", "created_at": 1_000_000 + number // 3, "updated_at": 1, "deadline_at": 9,
        }
        for number in range(1, 1001)
    ]  # fmt: skip
    conn.execute(insert(job), rows)
    conn.execute(insert(job_payload), [{"job_id": row["id"], "args": "{}"} for row in rows])
    conn.execute(insert(job_cluster), [{"job_id": number, "cluster_id": 1 + number % 2} for number in range(1, 1001)])
    conn.exec_driver_sql("ANALYZE")


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(f"sqlite:///{tmp_path / 'd.db'}")
    migrate(database)
    await database.write(fill)
    yield database
    database.close()


async def plan_of(db: Database, statement: SelectBase) -> str:
    def explain(conn: Connection) -> str:
        compiled = statement.compile(conn.engine, compile_kwargs={"literal_binds": True})
        return "\n".join(str(row[-1]) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}"))

    return await db.read(explain)


@pytest.mark.parametrize(
    "statement",
    [
        page_statement(JobQuery(), None),
        page_statement(JobQuery(), (1_000_100, 300)),
        page_statement(JobQuery(states=(DetailState.RUNNING,)), None),
        page_statement(JobQuery(states=(DetailState.FAILED, DetailState.PARTIAL)), (1_000_100, 300)),
        page_statement(JobQuery(type="delete_task"), None),
        page_statement(JobQuery(since_ms=1_000_200), None),
        page_statement(JobQuery(until_ms=1_000_200), None),
        page_statement(JobQuery(cluster_id=1), None),
        waiting(1, 5, 10),
        lost_leases(5),
        late_jobs(5),
    ],
    ids=["all", "after", "state", "states", "type", "since", "until", "cluster", "lease", "lost", "late"],
)
async def test_no_statement_scans_or_sorts_the_tables(db: Database, statement: SelectBase) -> None:
    plan = await plan_of(db, statement)
    walked = [line for line in plan.splitlines() if "SCAN job" in line and "USING" not in line]
    assert not walked, plan
    assert "INDEX" in plan
    # A merged page sorts itself, never the table: the inner walks come in order.
    inner = plan.split("MERGE")[0] if "MERGE" in plan else plan
    assert inner.count("TEMP B-TREE") <= 1, plan


@pytest.mark.parametrize("tier", [Tier.HOT, Tier.DELETED])
async def test_few_jobs_of_a_tier_are_found_without_a_walk_over_the_others(db: Database, tier: Tier) -> None:
    await db.write(lambda conn: conn.exec_driver_sql("UPDATE job SET tier = 1, class = 16 + id % 3 WHERE id NOT IN (7, 500)"))
    await db.write(lambda conn: conn.exec_driver_sql(f"UPDATE job SET tier = {int(tier)} WHERE id IN (7, 500)"))  # noqa: S608
    query = JobQuery(tiers=(tier,))
    for keyset in (None, (1_000_100, 300)):
        plan = await plan_of(db, page_statement(query, keyset, classes=(0, 1, 16, 17, 18)))
        assert "USING INDEX ix_job_class (class=? AND tier=?)" in plan, plan
    history = SqlHistory(db)
    assert [found.id for found, _ in await history.page(query)] == [500, 7]
    assert await history.count(query, at_most=10) == 2
    assert [found.id for found, _ in await history.page(JobQuery(tiers=(tier,), before_id=500))] == [7]


async def test_pages_walk_all_jobs_once_by_keyset_and_by_offset(db: Database) -> None:
    history = SqlHistory(db)
    for states in ((), (DetailState.FAILED, DetailState.PARTIAL)):
        seen: list[int] = []
        while page := await history.page(JobQuery(states=states, before_id=seen[-1] if seen else None, limit=37)):
            seen += [found.id for found, _ in page]
        by_offset = [
            found.id for at in range(0, 1000, 50) for found, _ in await history.page(JobQuery(states=states, offset=at, limit=50))
        ]
        assert seen == sorted(seen, reverse=True) == by_offset
        assert len(seen) == await history.count(JobQuery(states=states), at_most=5000)


async def test_a_walk_goes_on_when_the_job_it_stopped_at_was_removed(db: Database) -> None:
    history = SqlHistory(db)
    await db.write(lambda conn: conn.exec_driver_sql("DELETE FROM job WHERE id BETWEEN 495 AND 505"))
    ids = [found.id for found, _ in await history.page(JobQuery(before_id=500, limit=3))]
    assert ids == [494, 493, 492]


async def test_a_count_stops_where_it_is_told_to(db: Database) -> None:
    assert await SqlHistory(db).count(JobQuery(), at_most=100) == 100


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (JobQuery(text="/99.BIN", limit=5), lambda found: found.summary.endswith("/99.bin")),
        (JobQuery(text="100%", limit=5), lambda _: False),
        (JobQuery(cluster_id=2, limit=5), lambda found: found.id % 2 == 1),
        (JobQuery(type="delete_task", limit=5), lambda found: found.id % 7 == 0),
    ],
)
async def test_filters_mean_what_they_say(db: Database, query: JobQuery, fits: Callable[[Any], bool]) -> None:
    found = [one for one, _ in await SqlHistory(db).page(query)]
    assert all(fits(one) for one in found)
    assert bool(found) == (query.text != "100%")
