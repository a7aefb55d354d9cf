"""A real rsyslog: it closes what it has read, gets everything, and nothing is lost when it goes away in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.retention.export.documents import checked, document
from tests.integration.retention.export.jobs import Jobs, until

from darner.retention.export.sinks import make_sink
from darner.testing.ports import free_port
from darner.testing.programs import Child

CONFIG = """
global(maxMessageSize="300k" workDirectory="{directory}")
module(load="imtcp" maxFrameSize="300000")
template(name="plain" type="string" string="%app-name% %msgid% %msg%\\n")
input(type="imtcp" port="{port}" address="127.0.0.1")
action(type="omfile" file="{directory}/out" template="plain")
"""


class Rsyslog:
    """rsyslogd on a port of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.config = directory / "rsyslog.conf"
        self.config.write_text(CONFIG.format(directory=directory, port=self.port))
        self.child: Child | None = None

    def start(self) -> None:
        command: list[str | Path] = ["/usr/sbin/rsyslogd", "-n", "-f", self.config, "-i", self.directory / "pid"]
        self.child = Child(command, self.directory / "log")
        self.child.wait_for_port(self.port)

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self.child = None

    def lines(self) -> list[str]:
        out = self.directory / "out"
        return out.read_text().splitlines() if out.exists() else []


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    running = Rsyslog(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.mark.debian("rsyslog")
async def test_documents_arrive_whole(rsyslog: Rsyslog) -> None:
    sink = make_sink(checked(kind="syslog", url=f"tcp://127.0.0.1:{rsyslog.port}", max_record_bytes=256 * 1024))
    batch = [document(number, "ü" * number * 100) for number in range(200)]
    await sink.deliver(batch)
    await sink.deliver([document(999, "日" * 80_000)])
    await until(lambda: len(rsyslog.lines()) == 201)
    assert rsyslog.lines()[:200] == [f"darner job {one.body.decode()}" for one in batch]
    assert rsyslog.lines()[200] == f"darner job {document(999, '日' * 80_000).body.decode()}"


@pytest.mark.debian("rsyslog")
async def test_a_server_that_restarts_in_between_misses_nothing(rsyslog: Rsyslog, jobs: Jobs) -> None:
    ids = jobs.add(300)
    sink = checked(kind="syslog", url=f"tcp://127.0.0.1:{rsyslog.port}", batch_jobs=20)
    async with jobs.exporter(sink):
        for _ in range(3):
            seen = len(jobs.acknowledged())
            await until(lambda seen=seen: len(jobs.acknowledged()) > min(seen + 40, 299))  # type: ignore[misc]
            rsyslog.stop()
            rsyslog.start()
        await until(lambda: jobs.acknowledged() == ids)
    rsyslog.stop()
    keys = {line.partition('"key":"')[2].partition("-")[0] for line in rsyslog.lines()}
    assert keys == {str(key) for key in ids}
