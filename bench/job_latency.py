"""How late a job shows its end: from a worker's last word on its last part to SUCCESS in the REST API, and to an open event stream.

Printed as ratios to one bare HTTP round trip of the same run (`/healthy` of the same server over a kept connection). Real uvicorn,
a real SQLite file with fsync, real tokens; no host is behind the words, so only the manager is measured. Target: at most 1 s.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from fastapi import FastAPI

from darner.access import TokenService, Vault
from darner.app import problems
from darner.app.http import HttpServer
from darner.client.rest import ManagerRest
from darner.core.work import HostResult, HostState, Outcome, PartOrder, WorkReport
from darner.db import Database, migrate
from darner.jobs.config import JobsConfig
from darner.jobs.engine import JobPorts, JobsEngine, limits_of
from darner.jobs.rest import router
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.jobs.twins import ClustersTwin, ResolverTwin, RetentionTwin

RUNS = 50
PARTS = 20
POLL_S = 0.001


def build(db: Database, directory: Path) -> tuple[FastAPI, JobsEngine]:
    config = JobsConfig()
    limits = limits_of(config)
    ports = JobPorts(
        book=SqlJobBook(db, limits),
        work=SqlWorkBook(db, limits),
        history=SqlHistory(db),
        clusters=ClustersTwin(),
        resolver=ResolverTwin(),
        retention=RetentionTwin(),
        vault=Vault.at(directory / "key"),
    )
    engine = JobsEngine(config, ports)
    app = FastAPI()
    problems.install(app)
    app.state.tokens = TokenService(db)
    app.include_router(router(engine))
    app.add_api_route("/healthy", healthy)
    return app, engine


async def healthy() -> str:
    return "OK"


def complete(order: PartOrder) -> WorkReport:
    host = HostResult(host_id="h", hostname="h", ip="10.0.0.1", seed=True, state=HostState.SUCCEEDED, verified=True, bytes_done=9)
    del order
    return WorkReport(size_bytes=9, target_count=1, bytes_done=9, hosts=(host,), outcome=Outcome.DONE)


async def streamed_end(rest: ManagerRest, job_id: int) -> float:
    async for job in rest.watch_job(job_id):
        if job["state"] == "SUCCESS":
            return time.perf_counter()
    raise AssertionError("the stream ended before the job")


async def one_run(rest: ManagerRest) -> tuple[float, float]:
    """Seconds from the last word to a GET that shows SUCCESS, and to the stream that shows it."""
    urls = [f"http://o.example/{number}" for number in range(PARTS)]
    job_id = (await rest.create_job({"type": "preheat", "args": {"type": "file", "urls": urls}}))["id"]
    orders: list[PartOrder] = []
    while len(orders) < PARTS:
        orders += await rest.lease(worker="bench", cluster_id=1, limit=PARTS)
    watching = asyncio.create_task(streamed_end(rest, job_id))
    await asyncio.sleep(0.05)
    for order in orders[:-1]:
        await rest.finish(order.lease_id, complete(order))
    said = time.perf_counter()
    last = asyncio.create_task(rest.finish(orders[-1].lease_id, complete(orders[-1])))
    while (await rest.job(job_id))["state"] != "SUCCESS":  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
    polled = time.perf_counter() - said
    streamed = await watching - said
    await last
    return polled, streamed


async def measure(url: str, rest: ManagerRest) -> tuple[list[float], list[float], list[float]]:
    async with httpx.AsyncClient(base_url=url) as plain:
        bare = []
        for _ in range(200):
            begun = time.perf_counter()
            await plain.get("/healthy")
            bare.append(time.perf_counter() - begun)
    results = [await one_run(rest) for _ in range(RUNS)]
    return bare, [polled for polled, _ in results], [streamed for _, streamed in results]


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        db = Database.open(f"sqlite:///{directory / 'd.db'}")
        migrate(db)
        app, engine = build(db, directory)
        _, token = await app.state.tokens.create("bench", ["admin"])
        async with engine, HttpServer(app, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.port}"
            rest = ManagerRest(url, token)
            bare, polled, streamed = await measure(url, rest)
            await rest.close()
            engine.stop_waiting()
        db.close()
    baseline = statistics.median(bare)
    print(f"bare HTTP round trip (baseline): median {baseline * 1000:.2f} ms")
    for what, values in (("GET shows SUCCESS", polled), ("event stream shows SUCCESS", streamed)):
        ranked = sorted(values)
        median, worst = statistics.median(values), ranked[-1]
        print(
            f"{what}: median {median * 1000:.1f} ms = {median / baseline:.1f} round trips, worst of {RUNS}: {worst * 1000:.1f} ms"
        )


if __name__ == "__main__":
    import structlog

    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr), wrapper_class=structlog.make_filtering_bound_logger(40)
    )
    asyncio.run(main())
