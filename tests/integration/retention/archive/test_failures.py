"""What an operator meets at night: full disks, stores that are away, lost and damaged files, and two managers at once."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, update
from tests.integration.retention.archive.keeping import Kept, kept, several
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import engine_of

from darner.core.errors import DarnerError, TimedOutError, UnavailableError
from darner.db.tables.archive import archive_segment
from darner.db.tables.jobs import job, job_fold
from darner.db.tables.retention import retention_mark
from darner.history.record import RecordQuery
from darner.retention.archive import tidy
from darner.retention.archive.catalog import SegmentState
from darner.retention.archive.storage import MARK, DirectoryStorage, Wanted
from darner.retention.policy import DAY_MS, HOUR_MS


class Away(DirectoryStorage):
    """A store that can go away."""

    away = False

    def _ask(self) -> None:
        if self.away:
            raise UnavailableError("The archive does not answer.")

    def claim(self, owner: str, *, fresh: bool) -> None:
        self._ask()
        super().claim(owner, fresh=fresh)

    def put(self, name: str, file: Path) -> None:
        self._ask()
        super().put(name, file)

    def reading(self, files: Sequence[Wanted]) -> Any:
        self._ask()
        return super().reading(files)


async def test_while_the_store_is_away_jobs_wait_in_warm(history: History, tmp_path: Path) -> None:
    keys = several(history, 3, ended_h=20)
    root = tmp_path / "archive"
    storage = Away(root)
    async with kept(history, root, storage=storage) as it:
        storage.away = True
        run = await it.sweep()
        assert (run.state, run.removed, run.hidden, run.archived) == ("FAILED", 0, 0, 0)
        assert "archive does not answer" in run.error
        assert history.seen() == keys
        storage.away = False
        for _ in range(2):
            assert (await it.sweep()).state == "DONE"
        assert history.orphans() == 0


async def test_a_job_that_cannot_be_read_does_not_keep_the_others(history: History, tmp_path: Path) -> None:
    keys = several(history, 5, ended_h=3)
    async with kept(history, tmp_path / "archive") as it:
        await it.sweep()  # all are warm
    older = {name: job.c[name] - 2 * HOUR_MS for name in ("created_at", "finished_at", "base_at")}
    history.db.write_sync(lambda conn: conn.execute(update(job).values(older)))
    history.db.write_sync(lambda conn: conn.execute(update(job_fold).where(job_fold.c.job_id == keys[2]).values(body=b"?")))
    async with kept(history, tmp_path / "archive") as it:
        assert (await it.sweep()).archived == 4
        assert history.left() == [keys[2]]


async def test_a_store_that_takes_nothing_is_not_asked_for_ever(history: History, tmp_path: Path) -> None:
    keys = several(history, 3)
    root = tmp_path / "archive"
    asked = 0

    class ReadOnly(DirectoryStorage):
        def put(self, name: str, file: Path) -> None:  # noqa: ARG002
            nonlocal asked
            asked += 1
            raise UnavailableError("Access denied.")

    async with kept(history, root, storage=ReadOnly(root)) as it:
        run = await it.sweep()
        assert (run.state, history.left(), asked) == ("FAILED", keys, 4)
        assert "Access denied" in run.error


async def test_lists_and_searches_say_that_the_store_is_away(history: History, tmp_path: Path) -> None:
    (key, *_) = several(history, 3)
    root = tmp_path / "archive"
    storage = Away(root)
    async with kept(history, root, storage=storage) as it:
        await it.sweep()
        storage.away = True
        with pytest.raises(UnavailableError):
            await it.archive.page(RecordQuery())
        with pytest.raises(UnavailableError):
            await it.archive.find(key)
        with pytest.raises(UnavailableError):
            await it.archive.restore(key)
        storage.away = False
        assert len(await it.archive.page(RecordQuery())) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(file: Path) -> None:
    """Until there is no room left."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while stream.write(b"x" * 1_000):
            pass


async def test_on_a_full_disk_jobs_wait(history: History, small_disk: Path) -> None:
    keys = several(history, 20)
    async with kept(history, small_disk / "archive") as it:
        full = small_disk / "full"
        fill(full)
        run = await it.sweep()
        assert (run.state, run.archived) == ("FAILED", 0)
        assert "full" in run.error or "no room" in run.error, run.error
        assert history.left() == keys
        full.unlink()
        run = await it.sweep()
        assert (run.state, run.archived) == ("DONE", 20)
        assert sorted(await it.ids()) == keys


async def test_a_directory_that_is_not_mounted_is_not_taken_for_an_empty_archive(history: History, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    async with kept(history, root) as it:
        first = several(history, 2)
        await it.sweep()
        root.rename(tmp_path / "elsewhere")
        root.mkdir()
        more = several(history, 2)
        run = await it.sweep()
        assert run.state == "FAILED"
        assert "mounted" in run.error
        assert history.left() == more
        assert list(root.iterdir()) == []
        root.rmdir()
        (tmp_path / "elsewhere").rename(root)
        assert (await it.sweep()).state == "DONE"
        assert sorted(await it.ids()) == first + more


async def test_two_databases_do_not_share_an_archive(history: History, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    (root / MARK).write_text('{"database": "somebody"}')
    several(history, 2)
    async with kept(history, root) as it:
        run = await it.sweep()
        assert "another database (somebody)" in run.error
        assert len(history.left()) == 2


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "lost"])
async def test_a_damaged_file_is_told_and_the_others_are_shown(history: History, tmp_path: Path, harm: str) -> None:
    keys = several(history, 6)
    root = tmp_path / "archive"
    async with kept(history, root, segment_jobs=2) as it:
        await it.sweep()
        victim = root / it.segments()[1]["location"]
        whole = victim.read_bytes()
        hurt(victim, harm)
        shown = sorted(await it.ids())
        assert shown == [key for key in keys if key not in lost_of(it, 1)]
        problems = (await it.archive.figures())["problems"]
        assert victim.name in problems[0]
        with pytest.raises(DarnerError):
            await it.archive.find(lost_of(it, 1)[0])
        assert (await it.archive.find(shown[0])) is not None
        victim.write_bytes(whole)
        assert sorted(await it.ids()) == keys
        assert (await it.archive.figures())["problems"] == []


def lost_of(it: Kept, number: int) -> list[int]:
    one = it.segments()[number]
    return list(range(one["min_id"], one["max_id"] + 1))


def hurt(file: Path, harm: str) -> None:
    data = file.read_bytes()
    if harm == "lost":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "empty":
        file.write_bytes(b"")
    else:
        middle = 200
        file.write_bytes(data[:middle] + bytes(255 - one for one in data[middle : len(data) - 900]) + data[len(data) - 900 :])


async def test_a_sealed_segment_that_is_lost_before_any_job_left_is_made_anew(history: History, tmp_path: Path) -> None:
    keys = several(history, 3)
    root = tmp_path / "archive"
    async with kept(history, root) as it:
        await sealed_only(it)
        (root / it.segments()[0]["location"]).unlink()
        run = await it.sweep()
        assert (run.state, run.archived) == ("DONE", 3)
        assert sorted(await it.ids()) == keys


async def test_a_sealed_segment_that_is_lost_half_way_waits_for_a_person(history: History, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    async with kept(history, root) as it:
        keys = several(history, 3)
        await sealed_only(it)
        more = several(history, 2)
        history.db.write_sync(lambda conn: conn.execute(update(archive_segment).values(deleted=1)))
        file = root / it.segments()[0]["location"]
        file.rename(tmp_path / "kept")
        run = await it.sweep()
        assert (run.state, run.archived) == ("FAILED", 0)
        assert "Bring the file back" in run.error
        assert history.left() == keys + more
        (tmp_path / "kept").rename(file)
        assert (await it.sweep()).state == "DONE"


async def sealed_only(it: Kept) -> None:
    """A sweep that ends when the first segment is sealed."""

    def end(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM job"):
            raise BrokenError

    event.listen(it.history.db.engine, "before_cursor_execute", end)
    assert (await it.sweep()).state == "FAILED"
    event.remove(it.history.db.engine, "before_cursor_execute", end)
    assert it.states()[0] == SegmentState.SEALED


class BrokenError(Exception):
    """Something in the process broke."""


async def test_strays_go_a_week_after_they_were_seen_and_nothing_else_does(history: History, tmp_path: Path) -> None:
    several(history, 2)
    root = tmp_path / "archive"
    async with kept(history, root) as it:
        await it.sweep()
        month = root / it.segments()[0]["location"]
        stray = month.with_name("all-20200101T000000-deadbeef.parquet")
        other = root / "notes.txt"
        for one in (stray, other):
            one.write_bytes(b"x")
            os.utime(one, (1, 1))  # as old as can be
        for _ in range(2):
            await it.sweep()
        assert stray.exists()
        assert (await it.archive.figures())["strays"] == [str(stray.relative_to(root))]

        def earlier(conn: Connection) -> None:
            body = conn.execute(select(retention_mark.c.body).where(retention_mark.c.name == tidy.STRAYS)).scalar_one()
            seen = {name: at - 7 * DAY_MS for name, at in json.loads(body)["files"].items()}
            conn.execute(
                update(retention_mark).where(retention_mark.c.name == tidy.STRAYS).values(body=json.dumps({"files": seen}))
            )

        history.db.write_sync(earlier)
        await it.sweep()
        assert (stray.exists(), other.exists(), month.exists()) == (False, True, True)
        assert (await it.archive.figures())["strays"] == []


async def test_two_managers_hand_over_once(history: History, tmp_path: Path) -> None:
    keys = several(history, 30)
    root = tmp_path / "archive"
    async with kept(history, root, segment_jobs=4) as one, kept(history, root, segment_jobs=4) as two:
        await asyncio.gather(one.sweep(), two.sweep(), return_exceptions=True)
        await one.sweep()
        assert history.left() == []
        assert sorted(await two.ids()) == keys
        assert sum(int(segment["row_count"]) for segment in one.segments()) >= 30


async def test_without_the_extra_it_says_what_to_install(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = several(history, 2)
    async with kept(history, tmp_path / "archive") as it:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "pyarrow", None)
            run = await it.sweep()
        assert (run.state, run.archived, run.removed) == ("FAILED", 0, 0)
        assert "darner[archive]" in run.error
        assert history.left() == keys
        await it.sweep()
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "duckdb", None)
            with pytest.raises(DarnerError, match=r"darner\[archive\]") as told:
                await it.archive.page(RecordQuery())
            assert told.value.kind == "unavailable"
        assert (await it.archive.figures())["problems"] == []


async def test_a_search_that_takes_too_long_is_given_up(history: History, tmp_path: Path) -> None:
    several(history, 2)
    async with kept(history, tmp_path / "archive", search_time=0.000001) as it:
        await it.sweep()
        with pytest.raises(TimedOutError, match="Narrow it down"):
            await it.archive.page(RecordQuery(text="x"))


async def test_searches_read_nothing_but_the_archive(history: History, tmp_path: Path) -> None:
    several(history, 2)
    secret = tmp_path / "secret.parquet"
    async with kept(history, tmp_path / "archive") as it:
        await it.sweep()
        shutil.copy(tmp_path / "archive" / it.segments()[0]["location"], secret)
        elsewhere = str(Path("..") / secret.name)
        history.db.write_sync(lambda conn: conn.execute(update(archive_segment).values(location=elsewhere)))
        assert await it.archive.page(RecordQuery()) == []
        assert "Permission" in (await it.archive.figures())["problems"][0]


async def test_an_engine_without_archive_leaves_archived_jobs_alone(history: History, tmp_path: Path) -> None:
    keys = several(history, 2)
    async with kept(history, tmp_path / "archive") as it:
        await it.sweep()
    async with engine_of(history.db) as engine:
        assert (await engine.run(dry_run=False, by="tester")).state == "DONE"
    async with kept(history, tmp_path / "archive") as it:
        assert sorted(await it.ids()) == keys
