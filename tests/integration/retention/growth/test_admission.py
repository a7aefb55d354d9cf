from pathlib import Path

import pytest
from tests.integration.retention.history import History

from darner.access import Vault
from darner.core.errors import StorageFullError
from darner.jobs.config import JobsConfig
from darner.jobs.engine import JobPorts, JobsEngine, limits_of
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.jobs.twins import ClustersTwin, ResolverTwin, RetentionTwin
from darner.retention.growth.adjust import Pressure
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.growth import Growth
from darner.retention.growth.ladder import Stage
from darner.testing.clock import VirtualClock


class Tight(Growth):
    """A watch that has seen how tight it is."""

    stage = Stage.CALM

    @property
    def pressure(self) -> Pressure:
        return Pressure(stage=self.stage)


async def test_only_jobs_of_low_importance_are_refused_and_only_while_there_is_no_room(history: History, tmp_path: Path) -> None:
    growth = Tight(history.db, clock=VirtualClock(), config=GrowthConfig(reserve_bytes=0))
    config = JobsConfig()
    limits = limits_of(config)
    ports = JobPorts(
        book=SqlJobBook(history.db, limits),
        work=SqlWorkBook(history.db, limits),
        history=SqlHistory(history.db),
        clusters=ClustersTwin(),
        resolver=ResolverTwin(),
        retention=RetentionTwin(),
        vault=Vault.at(tmp_path / "key"),
        admission=growth,
    )
    jobs = JobsEngine(config, ports)
    body = {"type": "preheat", "args": {"type": "file", "url": "http://origin/a"}}
    growth.stage = Stage.REFUSE
    with pytest.raises(StorageFullError, match="low importance"):
        await jobs.create({**body, "importance": "low"}, owner="ann")
    await jobs.create(body, owner="ann")
    await jobs.create({**body, "importance": "critical"}, owner="ann")
    growth.stage = Stage.SUGGEST
    await jobs.create({**body, "importance": "low"}, owner="ann")
