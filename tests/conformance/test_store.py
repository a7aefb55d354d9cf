"""What every place to keep pieces must do; run on a disk and, where there is one, on a file system in memory."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from blake3 import blake3
from isal import isal_zlib

from darner.core.digest import Digest
from darner.core.errors import ConflictError, DigestMismatchError, InvalidInputError, NotFoundError, StorageFullError
from darner.core.piece import TrafficType
from darner.core.task import Headers
from darner.store import NewTask, PieceRecord, Store, StoreLimits

SHM = Path("/dev/shm")  # noqa: S108  (a file system of another kind)
PIECE = 1000
CONTENT = b"".join(bytes([65 + number]) * PIECE for number in range(3)) + b"rest"
TASK = "d3add1f66bcf" + "0" * 52
OTHER = "5ecb" + "1" * 60


@dataclass
class Clock:
    """Time that tests move."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Fixture:
    """A store that can be closed and opened again."""

    directory: Path
    clock: Clock
    store: Store

    def reopen(self, limits: StoreLimits | None = None) -> Store:
        self.store.close()
        self.store = Store.open(self.directory, clock=self.clock, limits=limits)
        return self.store


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "disk":
        yield tmp_path
        return
    if not SHM.is_dir():
        pytest.skip("no /dev/shm here")
    directory = Path(tempfile.mkdtemp(dir=SHM))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def opened(place: Path) -> Iterator[Fixture]:
    clock = Clock()
    fixture = Fixture(place / "store", clock, Store.open(place / "store", clock=clock))
    yield fixture
    fixture.store.close()


def new(task_id: str = TASK, content: bytes = CONTENT, piece_length: int = PIECE) -> NewTask:
    header = Headers({"Content-Type": "text/plain", "Set-Cookie": "session=1"})
    digest = Digest.parse(f"blake3:{blake3(content).hexdigest()}")
    url = f"http://origin.example/{task_id[:4]}"
    return NewTask(
        id=task_id, url=url, content_length=len(content), piece_length=piece_length, response_header=header, digest=digest
    )


def piece_of(number: int, content: bytes = CONTENT) -> PieceRecord:
    data = content[number * PIECE : (number + 1) * PIECE]
    return PieceRecord(
        number=number,
        offset=number * PIECE,
        length=len(data),
        crc32=isal_zlib.crc32(data),
        blake3=blake3(data).digest(),
        parent_id="10.0.0.1-parent-uuid",
        traffic_type=TrafficType.BACK_TO_SOURCE,
        cost_s=1.5,
        created_at=1_600_000_000.25,
    )


def put(store: Store, *numbers: int, task_id: str = TASK, content: bytes = CONTENT) -> None:
    store.create(new(task_id, content))
    with store.open_file(task_id, write=True) as file:
        for number in numbers:
            piece = piece_of(number, content)
            os.pwrite(file.fd, content[piece.offset : piece.offset + piece.length], piece.offset)
            store.record_piece(task_id, piece)


def put_whole(store: Store, task_id: str = TASK, content: bytes = CONTENT) -> None:
    put(store, *range(-(-len(content) // PIECE)), task_id=task_id, content=content)
    store.finish(task_id)


def content_path(fixture: Fixture, task_id: str = TASK) -> Path:
    return fixture.directory / "content" / "tasks" / task_id[:3] / task_id


def test_a_new_task_has_a_file_of_full_length_where_upstream_would_put_it(opened: Fixture) -> None:
    record = opened.store.create(new())
    assert content_path(opened).stat().st_size == len(CONTENT)
    assert (record.id, record.content_length, record.piece_length, record.piece_count) == (TASK, len(CONTENT), PIECE, 4)
    assert record.created_at == opened.clock.now
    assert opened.store.used_bytes() == len(CONTENT)


def test_everything_said_of_tasks_and_pieces_is_there_after_a_restart(opened: Fixture) -> None:
    put_whole(opened.store)
    opened.store.set_prefetched(TASK)
    before, pieces = opened.store.task(TASK), opened.store.pieces(TASK)
    again = opened.reopen()
    after = again.task(TASK)
    assert after is not None
    assert before is not None
    assert (after.url, after.digest, after.finished_at, after.prefetched_at) == (
        before.url,
        before.digest,
        before.finished_at,
        before.prefetched_at,
    )
    assert again.pieces(TASK) == pieces == {number: piece_of(number) for number in range(4)}
    assert [again.verified_piece(TASK, number) for number in range(4)] == list(pieces.values())


def test_secret_response_headers_are_not_stored(opened: Fixture) -> None:
    assert dict(opened.store.create(new()).response_header) == {"Content-Type": "text/plain"}


def test_creating_the_same_task_again_keeps_its_pieces(opened: Fixture) -> None:
    put(opened.store, 2)
    opened.store.create(new())
    assert list(opened.store.pieces(TASK)) == [2]


def test_creating_a_failed_task_again_clears_the_failure(opened: Fixture) -> None:
    put(opened.store, 2)
    assert opened.store.fail(TASK).failed_at is not None
    assert opened.store.create(new()).failed_at is None
    assert list(opened.store.pieces(TASK)) == [2]


def test_content_of_another_length_starts_anew(opened: Fixture) -> None:
    put_whole(opened.store)
    record = opened.store.create(new(content=b"x" * 1500))
    assert (record.content_length, record.finished_at) == (1500, None)
    assert opened.store.pieces(TASK) == {}
    assert content_path(opened).stat().st_size == 1500


def test_a_task_lacking_pieces_cannot_be_finished_nor_exported(opened: Fixture, place: Path) -> None:
    put(opened.store, 0, 1, 3)
    with pytest.raises(ConflictError, match="lacks 1"):
        opened.store.finish(TASK)
    with pytest.raises(ConflictError, match="lacks 1"):
        opened.store.export(TASK, place / "out")
    assert not (place / "out").exists()


@pytest.mark.parametrize(("number", "offset", "length"), [(1, 1001, 1000), (1, 1000, 999), (4, 4000, 1000), (3, 3000, 1000)])
def test_a_piece_that_does_not_lie_where_it_must_is_refused(opened: Fixture, number: int, offset: int, length: int) -> None:
    opened.store.create(new())
    with pytest.raises(InvalidInputError):
        opened.store.record_piece(TASK, PieceRecord(crc32=1, number=number, offset=offset, length=length))
    assert opened.store.pieces(TASK) == {}


def test_a_piece_of_an_unknown_task_is_refused(opened: Fixture) -> None:
    with pytest.raises(NotFoundError):
        opened.store.record_piece(TASK, piece_of(0))
    with pytest.raises(NotFoundError):
        opened.store.open_file(TASK)
    assert opened.store.verified_piece(TASK, 0) is None


@pytest.mark.parametrize("task_id", ["../../../etc/passwd", "a/b", "", "..", "ab", ".hidden", "x" * 200])
def test_an_id_that_is_no_file_name_is_refused(opened: Fixture, task_id: str) -> None:
    with pytest.raises(InvalidInputError):
        opened.store.create(new(task_id))


def test_bytes_that_rotted_while_the_process_was_away_are_found_at_first_use(opened: Fixture) -> None:
    put_whole(opened.store)
    opened.store.close()
    with content_path(opened).open("r+b") as file:
        file.seek(1500)
        file.write(b"?")
    opened.store = Store.open(opened.directory)
    assert opened.store.verified_piece(TASK, 0) is not None
    assert opened.store.verified_piece(TASK, 1) is None
    assert 1 not in opened.store.pieces(TASK)
    record = opened.store.task(TASK)
    assert record is not None
    assert record.finished_at is None


def test_an_output_edited_in_place_is_noticed_although_it_shares_the_stored_bytes(opened: Fixture, place: Path) -> None:
    put_whole(opened.store)
    opened.store.export(TASK, place / "out", force_hard_link=True)
    with (place / "out").open("r+b") as file:
        file.write(b"edited")
    os.utime(place / "out", ns=(1, 1))
    assert opened.store.verified_piece(TASK, 0) is None
    assert opened.store.verified_piece(TASK, 1) is not None


def test_fetching_a_bad_piece_again_does_not_write_into_the_output_that_shares_its_file(opened: Fixture, place: Path) -> None:
    put_whole(opened.store)
    opened.store.export(TASK, place / "out", force_hard_link=True)
    with (place / "out").open("r+b") as file:
        file.write(b"edited")
    os.utime(place / "out", ns=(1, 1))
    assert opened.store.verified_piece(TASK, 0) is None
    put(opened.store, 0)
    assert opened.store.finish(TASK).finished_at is not None
    assert (place / "out").read_bytes().startswith(b"edited")
    assert content_path(opened).read_bytes() == CONTENT
    assert all(opened.store.verified_piece(TASK, number) for number in range(4))


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 7)], ids=["deleted", "cut"])
def test_a_task_whose_file_somebody_took_away_is_not_here_and_can_be_had_anew(
    opened: Fixture, harm: Callable[[Path], None]
) -> None:
    put_whole(opened.store)
    harm(content_path(opened))
    assert opened.store.checked_task(TASK) is None
    assert opened.store.task(TASK) is None
    put_whole(opened.store)
    harm(content_path(opened))
    put_whole(opened.store)
    assert content_path(opened).read_bytes() == CONTENT


def test_a_task_whose_file_is_taken_away_while_it_is_written_does_not_finish(opened: Fixture) -> None:
    put(opened.store, *range(-(-len(CONTENT) // PIECE)))
    with opened.store.open_file(TASK, write=True):
        content_path(opened).unlink()
        with pytest.raises(ConflictError, match="taken away"):
            opened.store.finish(TASK)
    assert opened.store.task(TASK) is None


def test_a_finished_task_whose_file_was_changed_is_checked_again_when_its_truth_matters(opened: Fixture) -> None:
    put_whole(opened.store)
    assert opened.store.checked_task(TASK) == opened.store.task(TASK)
    with content_path(opened).open("r+b") as file:
        file.write(b"lies")
    checked = opened.store.checked_task(TASK)
    assert checked is not None
    assert checked.finished_at is None
    assert 0 not in opened.store.pieces(TASK)


def test_a_dropped_piece_makes_its_task_unfinished(opened: Fixture) -> None:
    put_whole(opened.store)
    opened.store.drop_piece(TASK, 2)
    assert sorted(opened.reopen().pieces(TASK)) == [0, 1, 3]
    record = opened.store.task(TASK)
    assert record is not None
    assert record.finished_at is None


def test_export_refuses_stored_bytes_that_went_bad(opened: Fixture, place: Path) -> None:
    put_whole(opened.store)
    content_path(opened).write_bytes(b"!" * len(CONTENT))
    with pytest.raises(DigestMismatchError):
        opened.store.export(TASK, place / "out")
    assert not (place / "out").exists()


def test_an_empty_content_is_finished_without_pieces(opened: Fixture, place: Path) -> None:
    opened.store.create(new(content=b""))
    opened.store.finish(TASK)
    opened.store.export(TASK, place / "out")
    assert (place / "out").read_bytes() == b""


def test_deleting_takes_the_file_and_the_rows(opened: Fixture) -> None:
    put_whole(opened.store)
    assert opened.store.delete(TASK)
    assert not opened.store.delete(TASK)
    assert not content_path(opened).exists()
    assert opened.store.task(TASK) is None
    assert opened.reopen().tasks() == []


def test_a_task_being_written_is_neither_deleted_nor_started_anew(opened: Fixture) -> None:
    opened.store.create(new())
    with opened.store.open_file(TASK, write=True):
        with pytest.raises(ConflictError):
            opened.store.delete(TASK)
        with pytest.raises(ConflictError):
            opened.store.create(new(content=b"x"))
    assert opened.store.delete(TASK)


def test_open_readers_are_counted_as_uploads(opened: Fixture) -> None:
    put_whole(opened.store)
    with opened.store.open_file(TASK), opened.store.open_file(TASK):
        assert [task.uploading_count for task in opened.store.tasks()] == [2]
    local = opened.store.tasks()[0].to_local_task()
    assert (local.uploading_count, local.uploaded_count) == (0, 2)


def test_eviction_takes_the_task_used_longest_ago_and_spares_one_in_use(opened: Fixture) -> None:
    for task_id in (TASK, OTHER):
        put_whole(opened.store, task_id)
        opened.clock.now += 10
    third = "aaa" + "2" * 61
    put_whole(opened.store, third)
    store = opened.reopen(StoreLimits(quota_bytes=len(CONTENT) * 5 // 2))
    with store.open_file(TASK):
        assert store.evict(opened.clock.now) == [OTHER]
    assert {task.id for task in store.tasks()} == {TASK, third}


def test_the_last_use_survives_a_restart_and_saves_a_task(opened: Fixture) -> None:
    put_whole(opened.store)
    opened.clock.now += 10
    put_whole(opened.store, OTHER)
    opened.clock.now += 10
    opened.store.verified_piece(TASK, 0)
    store = opened.reopen(StoreLimits(quota_bytes=len(CONTENT) * 3 // 2))
    assert store.evict(opened.clock.now) == [OTHER]


def test_what_was_not_used_for_its_time_to_live_goes(opened: Fixture) -> None:
    put_whole(opened.store)
    store = opened.reopen(StoreLimits(ttl_s=100))
    assert store.evict(opened.clock.now + 99) == []
    assert store.evict(opened.clock.now + 101) == [TASK]


def test_a_new_task_makes_room_within_the_quota_and_tells_who_went(place: Path) -> None:
    gone: list[str] = []
    store = Store.open(place / "store", quota_bytes=2 * len(CONTENT), on_evicted=gone.append)
    put_whole(store, TASK)
    put_whole(store, OTHER)
    third = "aaa" + "2" * 61
    put_whole(store, third)
    assert gone == [TASK]
    with pytest.raises(StorageFullError, match="quota"):
        store.create(new("bbb" + "3" * 61, content=b"x" * (2 * len(CONTENT) + 1)))
    assert {task.id for task in store.tasks()} == {OTHER, third}
    store.close()


def test_a_task_that_is_taken_up_again_while_others_are_evicted_stays(opened: Fixture) -> None:
    put_whole(opened.store, TASK)
    put_whole(opened.store, OTHER)
    store = opened.reopen(StoreLimits(ttl_s=100))
    writing = []
    store.on_evicted = lambda gone: writing.append(store.open_file(OTHER if gone == TASK else TASK, write=True))
    gone = store.evict(opened.clock.now + 101)
    assert len(gone) == 1
    assert [task.id for task in store.tasks()] == [OTHER if gone == [TASK] else TASK]
    writing[0].close()


def test_unfinished_recent_tasks_are_not_sacrificed_for_a_new_one(place: Path) -> None:
    store = Store.open(place / "store", quota_bytes=len(CONTENT))
    put(store, 0)
    with pytest.raises(StorageFullError):
        store.create(new(OTHER))
    assert [task.id for task in store.tasks()] == [TASK]
    store.close()


def test_spooled_content_becomes_a_task_with_all_digests(opened: Fixture) -> None:
    spool = opened.store.spool(TASK)
    for start in range(0, len(CONTENT), 700):
        spool.write(CONTENT[start : start + 700])
    opened.store.adopt_spool(spool, new())
    opened.store.finish(TASK)
    assert content_path(opened).read_bytes() == CONTENT
    found = opened.store.pieces(TASK)
    assert [(found[n].crc32, found[n].blake3) for n in range(4)] == [(piece_of(n).crc32, piece_of(n).blake3) for n in range(4)]
    assert list((opened.directory / "spool").iterdir()) == []


def test_a_spool_of_another_length_than_said_is_refused_and_removed(opened: Fixture) -> None:
    with opened.store.spool(TASK) as spool:
        spool.write(CONTENT[:-1])
        with pytest.raises(InvalidInputError):
            opened.store.adopt_spool(spool, new())
    assert list((opened.directory / "spool").iterdir()) == []
    assert opened.store.tasks() == []


def test_a_spool_stops_at_the_quota(place: Path) -> None:
    store = Store.open(place / "store", quota_bytes=100)
    with store.spool(TASK) as spool:
        spool.write(b"x" * 100)
        with pytest.raises(StorageFullError):
            spool.write(b"x")
    store.close()


Change = Callable[[Fixture], None]


def _no_content(opened: Fixture) -> None:
    content_path(opened).unlink()


def _short_content(opened: Fixture) -> None:
    os.truncate(content_path(opened), 17)


def _link_instead(opened: Fixture) -> None:
    content_path(opened).unlink()
    content_path(opened).symlink_to("/etc/hostname")


@pytest.mark.parametrize("harm", [_no_content, _short_content, _link_instead])
def test_a_task_without_its_content_is_forgotten_at_start(opened: Fixture, harm: Change) -> None:
    put_whole(opened.store)
    put_whole(opened.store, OTHER)
    harm(opened)
    assert [task.id for task in opened.reopen().tasks()] == [OTHER]
    assert not os.path.lexists(content_path(opened))


def test_content_without_a_row_and_temporary_files_are_removed_at_start(opened: Fixture) -> None:
    stray = opened.directory / "content" / "tasks" / "abc" / "abcdef"
    stray.parent.mkdir()
    stray.write_bytes(b"stray")
    (opened.directory / "spool" / "half").write_bytes(b"half")
    opened.reopen()
    assert not stray.exists()
    assert list((opened.directory / "spool").iterdir()) == []


def test_damaged_metadata_gives_an_empty_store_instead_of_none(opened: Fixture) -> None:
    put_whole(opened.store)
    opened.store.close()
    (opened.directory / "metadata" / "store.db").write_bytes(b"this is no database" * 1000)
    opened.store = Store.open(opened.directory)
    assert opened.store.tasks() == []
    put_whole(opened.store)


def test_a_second_opening_of_the_same_directory_is_refused(opened: Fixture) -> None:
    with pytest.raises(ConflictError, match=f"in use by process {os.getpid()}"):
        Store.open(opened.directory)
