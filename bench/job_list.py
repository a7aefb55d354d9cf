"""How fast the list of jobs is over a long history: pages, filters and the total of `Link`, as the REST face answers them.

Printed in milliseconds and as ratios to a bare read of one job by its primary key in the same run, through the same thread pool.
Rows have the mix of a busy manager (4 of 5 preheats, 88 % SUCCEEDED) and arguments of about 1 KiB. Target: p99 ≤ 50 ms at 200,000
jobs. `python bench/job_list.py [ROWS]`
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import insert, select

from darner.core.job import DetailState
from darner.db import Database, migrate
from darner.db.tables.jobs import job, job_cluster, job_payload
from darner.jobs.events import JobQuery
from darner.jobs.listing import COUNT_LIMIT
from darner.jobs.sql import SqlHistory

ROWS = 200_000
CHUNK = 5_000
RUNS = 100
TYPES = ("preheat", "preheat", "preheat", "preheat", "delete_task")
STATES = (*[DetailState.SUCCEEDED] * 88, *[DetailState.FAILED] * 9, *[DetailState.CANCELLED] * 2, DetailState.PARTIAL)
FIRST_AT, STEP_MS = 1_700_000_000_000, 400
FAILURES = (DetailState.CANCELLED, DetailState.FAILED, DetailState.PARTIAL, DetailState.TIMED_OUT)


def rows(count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Jobs with their payloads and clusters, oldest first; the last ten are open."""
    dice = random.Random(1)  # noqa: S311  (test data)
    for number in range(1, count + 1):
        at = FIRST_AT + number * STEP_MS
        state = dice.choice(STATES) if number <= count - 10 else DetailState.RUNNING
        url = f"https://registry-{dice.randrange(50)}.example/team/{dice.getrandbits(64):x}/file.bin"
        ended = None if state == DetailState.RUNNING else at + 40_000
        yield (
            {
                "id": number, "uuid": f"{dice.getrandbits(128):032x}", "type": dice.choice(TYPES), "state": state,
                "owner": f"user-{dice.randrange(20)}", "cluster_count": 1, "summary": url, "bio": "", "tag": "", "application": "",
                "priority": 6, "created_at": at, "updated_at": at, "deadline_at": at + 3_600_000, "finished_at": ended,
                "error": "404 Not Found" if state == DetailState.FAILED else "",
            },
            {"job_id": number, "args": args_of(url, dice)},
            {"job_id": number, "cluster_id": 1},
        )  # fmt: skip


def args_of(url: str, dice: random.Random) -> str:
    """A job's stored arguments."""
    return orjson.dumps({"type": "file", "url": url, "filler": f"{dice.getrandbits(4000):x}"}).decode()


def fill(db: Database, count: int) -> None:
    """Write the rows in large transactions."""
    made = rows(count)
    while chunk := [row for row, _ in zip(made, range(CHUNK), strict=False)]:
        kept = chunk

        def write(conn: Any) -> None:  # noqa: ANN401
            for table, index in ((job, 0), (job_payload, 1), (job_cluster, 2)):
                conn.execute(insert(table), [row[index] for row in kept])  # noqa: B023  (called before the next round)

        db.write_sync(write, durable=False)


async def milliseconds(question: Callable[[], Awaitable[Any]]) -> list[float]:
    """RUNS answers, each timed."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        await question()
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)


def questions(history: SqlHistory, count: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What people and programs ask."""
    middle = count // 2
    since = FIRST_AT + (count - count // 10) * STEP_MS
    asked = {
        "first page": JobQuery(),
        "first page, 100 rows": JobQuery(limit=100),
        "before_id in the middle": JobQuery(before_id=middle),
        "offset page 1000": JobQuery(offset=9_990),
        "state SUCCESS": JobQuery(states=(DetailState.SUCCEEDED,)),
        "state FAILURE (4 details)": JobQuery(states=FAILURES),
        "state FAILURE before the middle": JobQuery(states=FAILURES, before_id=middle),
        "open jobs": JobQuery(states=(DetailState.QUEUED, DetailState.RUNNING, DetailState.CANCELLING)),
        "type delete_task": JobQuery(type="delete_task"),
        "owner": JobQuery(owner="user-7"),
        "cluster": JobQuery(cluster_id=1),
        "since": JobQuery(since_ms=since),
        "text, frequent": JobQuery(text="registry-7."),
        "text, nowhere": JobQuery(text="no such thing"),
        "owner, nowhere": JobQuery(owner="nobody"),
        "cluster, nowhere": JobQuery(cluster_id=9),
        "type, nowhere": JobQuery(type="get_task"),
    }
    found: dict[str, Callable[[], Awaitable[Any]]] = {
        f"page: {name}": lambda query=query: history.page(query)  # type: ignore[misc]
        for name, query in asked.items()
    }
    counted = ("first page", "state SUCCESS", "state FAILURE (4 details)", "type delete_task", "owner", "since", "text, nowhere")
    return found | {f"total: {name}": lambda query=asked[name]: history.count(query, at_most=COUNT_LIMIT) for name in counted}


async def measure(db: Database, count: int) -> None:
    """Print a line per question."""
    history = SqlHistory(db)
    dice = random.Random(2)  # noqa: S311

    async def bare() -> Any:  # noqa: ANN401
        key = dice.randint(1, count)
        return await db.read(lambda conn: conn.execute(select(job).where(job.c.id == key)).one())

    base = await milliseconds(bare)
    unit = statistics.median(base)
    print(f"{count} jobs; a bare read by primary key: p50 {unit:.2f} ms, p99 {base[-2]:.2f} ms")
    for name, question in questions(history, count).items():
        times = await milliseconds(question)
        middle, late = statistics.median(times), times[-2]
        print(f"{name:40} p50 {middle:8.2f} ms  p99 {late:8.2f} ms  {middle / unit:7.1f} × bare")


def main() -> None:
    """Fill, measure, forget."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as directory:
        db = Database.open(f"sqlite:///{Path(directory) / 'darner.db'}")
        migrate(db)
        fill(db, count)
        try:
            asyncio.run(measure(db, count))
        finally:
            db.close()


if __name__ == "__main__":
    main()
