"""Jobs in the archive: handed over, shown, brought back, erased, merged, and forgotten in time."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, update
from tests.integration.retention.archive.keeping import Kept, kept, several
from tests.integration.retention.history import History

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError
from darner.core.job import Tier
from darner.db.tables.archive import archive_absent, archive_erasure
from darner.db.tables.jobs import job
from darner.history.record import RecordQuery
from darner.retention.archive.storage import DirectoryStorage

LONG = {"rules": [{"name": "all", "hot": "2h", "warm": "4h", "archive": "400d"}]}


def files(root: Path) -> list[str]:
    return sorted(one.name for one in DirectoryStorage(root).names())


async def test_old_jobs_are_archived_and_seen_as_before(history: History, tmp_path: Path) -> None:
    old = several(history, 5, owner="ann")
    young = several(history, 3, ended_h=2.5)
    async with kept(history, tmp_path / "archive") as it:
        before = {key: await it.seen.details(key) for key in old}
        lines = {key: await it.seen.events(key) for key in old}
        run = await it.sweep()
        assert (run.state, run.archived, run.removed) == ("DONE", 5, 0)
        assert history.left() == young
        assert history.orphans() == 0
        assert sorted(await it.ids()) == sorted(old + young)
        assert await it.ids(owner="ann") == sorted(old)  # the first ended last
        assert sorted(await it.ids(tiers=(Tier.ARCHIVE,))) == old
        for key in old:
            after = await it.seen.details(key)
            assert (after.args, after.result, after.cluster_ids) == (before[key].args, before[key].result, before[key].cluster_ids)
            assert after.job.tier == Tier.ARCHIVE
            assert len(await it.seen.parts(key)) == 2
            assert await it.seen.events(key) == lines[key]
        (segment,) = it.segments()
        assert (segment["state"], segment["row_count"], segment["deleted"], segment["skipped"]) == ("LIVE", 5, 5, 0)
        figures = await it.archive.figures()
        assert (figures["segments"], figures["jobs"], figures["problems"]) == (1, 5, [])
        assert figures["bytes"] == segment["bytes"] > 0


async def test_few_jobs_wait_for_more(history: History, tmp_path: Path) -> None:
    several(history, 4, ended_h=5)
    async with kept(history, tmp_path / "archive", least_jobs=5) as it:
        assert (await it.sweep()).archived == 0
        several(history, 1, ended_h=5)
        assert (await it.sweep()).archived == 5
        several(history, 1, ended_h=4 + 6.5)  # it waited for six hours
        assert (await it.sweep()).archived == 1


async def test_a_job_that_changed_after_it_was_archived_stays(history: History, tmp_path: Path) -> None:
    keys = several(history, 4)

    class Meddler(DirectoryStorage):
        def put(self, name: str, file: Path) -> None:
            super().put(name, file)

            def meddle(conn: Connection) -> None:
                conn.execute(update(job).where(job.c.id == keys[1]).values(held=1))
                conn.execute(update(job).where(job.c.id == keys[2]).values(finished_at=job.c.finished_at - 1))

            history.db.write_sync(meddle)

    root = tmp_path / "archive"
    async with kept(history, root, storage=Meddler(root)) as it:
        run = await it.sweep()
        assert run.archived == 2
        assert history.left() == keys[1:3]
        assert it.states()[0] == "LIVE"
        assert sorted(await it.ids()) == keys
        record = await it.archive.find(keys[1])
        assert record is None


async def test_a_job_comes_back_and_may_go_again(history: History, tmp_path: Path) -> None:
    keys = several(history, 3)
    async with kept(history, tmp_path / "archive") as it:
        await it.sweep()
        hold = await it.engine.restore(keys[0], by="ann")
        assert history.tiers() == {keys[0]: Tier.WARM}
        assert sorted(await it.ids()) == keys
        assert (await it.seen.details(keys[0])).args == {"url": "http://x"}
        assert (await it.sweep()).archived == 0
        await it.engine.remove_hold(hold.id, by="ann")
        assert (await it.sweep()).archived == 1
        assert history.left() == []
        assert sorted(await it.ids()) == keys
        with pytest.raises(NotFoundError):
            await it.engine.restore(99_999, by="ann")


async def test_time_ends_for_the_archive_too(history: History, tmp_path: Path) -> None:
    keys = several(history, 3)
    root = tmp_path / "archive"
    async with kept(history, root) as it:
        await it.sweep()
        it.older(53)
        run = await it.sweep()
        assert (run.hidden, run.removed, it.states()) == (3, 0, ["EXPIRED"])
        assert await it.ids() == []
        await it.engine.restore(keys[2], by="ann")  # within undo
        assert await it.ids() == [keys[2]]
        it.older(3.1)
        run = await it.sweep()
        assert (run.hidden, run.removed) == (0, 2)
        await it.sweep()
        assert (it.states(), files(root)) == (["DROPPED"], [])
        assert await it.ids() == [keys[2]]


async def test_a_rule_that_there_is_no_longer_keeps_its_segments(history: History, tmp_path: Path) -> None:
    several(history, 2)
    async with kept(history, tmp_path / "archive") as it:
        await it.sweep()
        await it.engine.set_policy({"rules": [{"name": "other", "hot": "6h"}]}, by="ann")
        it.older(1_000)
        assert (await it.sweep()).hidden == 0
        assert it.states() == ["LIVE"]
        assert "rule all" in (await it.archive.figures())["problems"][0]


async def test_what_a_selector_holds_is_not_forgotten(history: History, tmp_path: Path) -> None:
    several(history, 2, owner="ann")
    several(history, 2, owner="bob", ended_h=6)
    async with kept(history, tmp_path / "archive", segment_jobs=2) as it:
        await it.sweep()
        assert len(it.segments()) == 2
        hold = await it.engine.add_hold(reason="trial", by="eve", match={"owners": ["ann"]})
        it.older(70)
        assert (await it.sweep()).hidden == 2
        assert await it.ids(owner="ann") != []
        await it.engine.remove_hold(hold.id, by="eve")
        assert (await it.sweep()).hidden == 2


async def test_erased_jobs_are_gone_at_once_and_from_the_files_soon(history: History, tmp_path: Path) -> None:
    keys = several(history, 5, url="http://x/secret-name")
    root = tmp_path / "archive"
    async with kept(history, root) as it:
        await it.sweep()
        (before,) = files(root)
        with pytest.raises(InvalidInputError):
            await it.archive.erase([keys[1]], reason=" ", by="ann")
        with pytest.raises(NotFoundError):
            await it.archive.erase([77], reason="asked for", by="ann")
        told = await it.archive.erase([keys[1], keys[3], 77], reason="asked for", by="ann")
        assert told == {"jobs": 2, "segments": 1, "missing": [77]}
        left = [keys[0], keys[2], keys[4]]
        assert sorted(await it.ids()) == left
        for _ in range(2):
            assert (await it.sweep()).state == "DONE"
        assert sorted(await it.ids()) == left
        assert before not in files(root)
        assert len(files(root)) == 1
        assert (await it.archive.figures())["erasing"] == 0
        with pytest.raises(NotFoundError):
            await it.engine.restore(keys[1], by="ann")
        assert len(history.db.read_sync(lambda conn: conn.execute(select(archive_erasure)).all())) == 1
        await it.engine.restore(keys[0], by="ann")
        with pytest.raises(ConflictError):
            await it.archive.erase([keys[0]], reason="asked for", by="ann")
        await it.archive.erase(left[1:], reason="asked for", by="ann")
        for _ in range(2):
            assert (await it.sweep()).state == "DONE"
        assert (files(root), set(it.states())) == ([], {"DROPPED"})


async def test_small_segments_become_a_large_one_under_a_reader(history: History, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    async with kept(history, root, policy=LONG, segment_jobs=4) as it:
        keys = [key for number in range(12) for key in several(history, 4, ended_h=6 + number)]
        await it.sweep()
        await it.engine.restore(keys[5], by="ann")
        reading = True

        async def read() -> int:
            count = 0
            while reading:
                assert sorted(await it.ids()) == keys
                count += 1
            return count

        task = asyncio.create_task(read())
        for _ in range(2):
            assert (await it.sweep()).state == "DONE"
        reading = False
        assert await task > 0
        states = it.states()
        assert (states.count("REPLACED"), states.count("LIVE")) == (12, 1)
        assert it.segments()[-1]["row_count"] == 47
        assert len(files(root)) == 13  # the old ones for those who read them just now
        it.older(25)
        await it.sweep()
        assert len(files(root)) == 1
        assert sorted(await it.ids()) == keys


async def test_a_job_that_is_brought_back_while_its_segment_is_merged(history: History, tmp_path: Path) -> None:
    keys = [key for number in range(12) for key in several(history, 2, ended_h=6 + number)]
    root = tmp_path / "archive"
    late: list[int] = []

    class Slow(DirectoryStorage):
        """When the merged file is stored, somebody wants a job of it back."""

        def put(self, name: str, file: Path) -> None:
            super().put(name, file)
            if late:
                back(it, late.pop())

    def back(it: Kept, key: int) -> None:
        asyncio.run_coroutine_threadsafe(it.archive.restore(key), loop).result(30)

    loop = asyncio.get_running_loop()
    async with kept(history, root, policy=LONG, storage=Slow(root), segment_jobs=2) as it:
        await it.sweep()
        late.append(keys[3])
        assert (await it.sweep()).state == "DONE"
        assert history.left() == [keys[3]]
        assert sorted(await it.ids()) == keys
        merged = it.segments()[-1]
        assert (merged["state"], merged["row_count"]) == ("LIVE", 24)
        absent = select(archive_absent.c.job_id).where(archive_absent.c.segment_id == merged["id"])
        assert history.db.read_sync(lambda conn: list(conn.execute(absent).scalars())) == [keys[3]]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE job; --", '"', "\\", "%", "_", "\0x", "?", "$1", "read_text('/etc/passwd')", "é\U0001f600", "a" * 5000]
)
async def test_hostile_text_is_only_text(history: History, tmp_path: Path, text: str) -> None:
    keys = several(history, 3)
    history.db.write_sync(lambda conn: conn.execute(update(job).where(job.c.id == keys[1]).values(error=f"so {text[:400]} it was")))
    async with kept(history, tmp_path / "archive") as it:
        await it.sweep()
        found = await it.archive.page(RecordQuery(text=text[:400]))
        assert [one.id for one in found] == [keys[1]]
        assert await it.archive.page(RecordQuery(owner=text, tag=text, states=(text,), types=(text,))) == []


async def test_a_group_keeps_its_last_in_the_database(history: History, tmp_path: Path) -> None:
    keys = several(history, 4, url="http://x/1")
    policy = {"rules": [{"name": "all", "hot": "2h", "archive": "keep", "keep_last": {"count": 1}}]}
    async with kept(history, tmp_path / "archive", policy=policy) as it:
        assert (await it.sweep()).archived == 3
        assert history.left() == [keys[0]]
        assert sorted(await it.ids()) == keys


async def test_nothing_leaves_before_its_sink_has_it(history: History, tmp_path: Path) -> None:
    from darner.db.tables.export import export_outbox

    keys = several(history, 2)
    policy = {"rules": [{"name": "all", "hot": "2h", "archive": "keep", "export": "siem"}]}
    async with kept(history, tmp_path / "archive", policy=policy) as it:
        assert (await it.sweep()).archived == 0
        row = {"job_id": keys[0], "sink": "siem", "acked_at": 5, "created_at": 4}
        known = {name: value for name, value in row.items() if name in export_outbox.c}
        history.db.write_sync(lambda conn: conn.execute(insert(export_outbox).values(**known)))
        assert (await it.sweep()).archived == 1
        assert history.left() == [keys[1]]
