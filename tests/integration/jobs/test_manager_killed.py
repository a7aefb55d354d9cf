"""`kill -9` of a manager between its answer to POST and planning: the job is planned by the next one and ends as it should."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from darner.access import Vault
from darner.core.job import DetailState
from darner.core.task import Headers
from darner.core.work import HostResult, HostState, Outcome, WorkReport
from darner.db import Database
from darner.jobs.config import JobsConfig
from darner.jobs.engine import JobPorts, JobsEngine, limits_of
from darner.jobs.events import Content
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.jobs.twins import ClustersTwin, ResolverTwin, RetentionTwin

IMAGE = "https://registry.example/v2/app/manifests/v1"
DIGEST = f"sha256:{'a' * 64}"

# The resolver never answers, so planning cannot have happened when the parent kills the process.
CREATE = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from darner.access import Vault
    from darner.db import Database, migrate
    from darner.jobs.config import JobsConfig
    from darner.jobs.engine import JobPorts, JobsEngine, limits_of
    from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
    from darner.jobs.twins import ClustersTwin, RetentionTwin

    class Never:
        async def resolve(self, spec):
            print("resolving", flush=True)
            await asyncio.sleep(3600)

    async def main(directory):
        db = Database.open(f"sqlite:///{directory}/d.db")
        migrate(db)
        limits = limits_of(JobsConfig())
        ports = JobPorts(book=SqlJobBook(db, limits), work=SqlWorkBook(db, limits), history=SqlHistory(db), clusters=ClustersTwin(),
                         resolver=Never(), retention=RetentionTwin(), vault=Vault.at(Path(directory) / "key"))
        async with JobsEngine(JobsConfig(), ports) as engine:
            body = {"type": "preheat", "args": {"type": "image", "url": sys.argv[2], "headers": {"Authorization": "Bearer abc"}}}
            print("answered", (await engine.create(body, owner="tester")).job.id, flush=True)
            await asyncio.sleep(3600)

    asyncio.run(main(sys.argv[1]))
""")


async def nobody_hung_up() -> bool:
    return False


async def test_a_job_answered_before_the_kill_is_planned_and_finished_after_it(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", CREATE, str(tmp_path), IMAGE], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert first.stdout is not None
    with first.stdout as lines:
        told = {line.split()[0]: line.split() for line in (next(line for line in lines if line[0] in "ar") for _ in range(2))}
        os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert set(told) == {"answered", "resolving"}
    job_id = int(told["answered"][1])

    db = Database.open(f"sqlite:///{tmp_path / 'd.db'}")
    config = JobsConfig(tick_s=0.05)
    limits = limits_of(config)
    resolver = ResolverTwin({IMAGE: [Content(url="https://registry.example/v2/app/blobs/x", digest=DIGEST, size_bytes=9)]})
    ports = JobPorts(
        book=SqlJobBook(db, limits),
        work=SqlWorkBook(db, limits),
        history=SqlHistory(db),
        clusters=ClustersTwin(),
        resolver=resolver,
        retention=RetentionTwin(),
        vault=Vault.at(tmp_path / "key"),
    )
    async with JobsEngine(config, ports) as engine:
        (order,) = await engine.lease(1, "w", 8, gone=nobody_hung_up)
        assert order.download.request_header == Headers({"Authorization": "Bearer abc"})
        host = HostResult(
            host_id="h", hostname="h", ip="10.0.0.1", seed=True, state=HostState.SUCCEEDED, verified=True, bytes_done=9
        )
        report = WorkReport(size_bytes=9, target_count=1, bytes_done=9, hosts=(host,), outcome=Outcome.DONE)
        assert (await engine.report(order.lease_id, report)).accepted
        repeated = await engine.report(order.lease_id, report)
        details = await engine.history.details(job_id)
    assert repeated.accepted, "a repeated end is heard, so that the worker may stop telling it"
    assert details.job.state == DetailState.SUCCEEDED
    assert [event.kind for event in await ports.history.events(job_id)].count("part_finished") == 1
    db.close()
