"""The life of an archive, on every database."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import event, update
from tests.integration.retention.archive.keeping import kept, several
from tests.integration.retention.history import History

from darner.core.job import Tier
from darner.db import Database
from darner.db.tables.jobs import job
from darner.history.record import RecordQuery

POLICY = {
    "rules": [
        {"name": "failures", "match": {"states": ["FAILED"]}, "hot": "2h", "archive": "60h", "undo": "3h"},
        {"name": "rest", "hot": "2h", "warm": "4h", "archive": "400d", "undo": "3h"},
    ]
}


class GoneError(Exception):
    """The process is gone."""


async def test_the_life_of_an_archive(database: Database, tmp_path: Path) -> None:
    history = History(database)
    root = tmp_path / "archive"
    failed = [history.add("FAILED", ended_h=8 + number / 10, url=f"http://x/{number}") for number in range(5)]
    rest = [key for number in range(12) for key in several(history, 3, ended_h=6 + number / 10)]
    warm = several(history, 4, ended_h=3)
    everything = failed + rest + warm
    async with kept(history, root, policy=POLICY, segment_jobs=3) as it:
        died = die_at_first_delete(database)
        assert (await it.sweep()).state == "FAILED"
        died()
        assert sorted(await it.ids()) == sorted(everything)
        database.write_sync(lambda conn: conn.execute(update(job).where(job.c.id == failed[0]).values(held=1)))
        run = await it.sweep()
        assert (run.state, run.error) == ("DONE", "")
        assert sorted(history.left()) == sorted([failed[0], *warm])
        assert history.orphans() == 0
        assert sorted(await it.ids()) == sorted(everything)
        assert {one.id for one in await it.archive.page(RecordQuery(states=("FAILED",)))} == set(failed[1:])
        assert await it.archive.page(RecordQuery(text="'; --")) == []

        assert (await it.engine.restore(rest[0], by="ann")).job_id == rest[0]
        assert history.tiers()[rest[0]] == Tier.WARM
        assert (await it.archive.erase([rest[1]], reason="asked for", by="ann"))["jobs"] == 1
        for _ in range(3):
            assert (await it.sweep()).error == ""
        left = sorted(set(everything) - {rest[1]})
        assert sorted(await it.ids()) == left
        assert "REPLACED" in it.states()  # merged
        for key in left:
            assert (await it.seen.details(key)).job.id == key

        it.older(53)
        run = await it.sweep()
        assert (run.error, run.hidden) == ("", 4)
        assert sorted(await it.ids()) == sorted(set(left) - set(failed[1:]))
        await it.engine.restore(failed[2], by="ann")
        it.older(3.1)
        run = await it.sweep()
        assert (run.error, run.removed) == ("", 3)
        assert sorted(await it.ids()) == sorted(set(left) - {failed[1], failed[3], failed[4]})
        await it.sweep()
        assert (await it.archive.figures())["problems"] == []
        assert len(await it.archive.segments(limit=3)) == 3


def die_at_first_delete(database: Database) -> "Stop":
    """The next sweep dies when the first jobs leave."""

    def end(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM job"):
            raise GoneError

    event.listen(database.engine, "before_cursor_execute", end)
    return Stop(database, end)


class Stop:
    """Takes the listener away."""

    def __init__(self, database: Database, listener: Callable[..., None]) -> None:
        self._database, self._listener = database, listener

    def __call__(self) -> None:
        event.remove(self._database.engine, "before_cursor_execute", self._listener)
