"""Outputs appear whole, where and how they were asked for, or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from isal import isal_zlib

from darner.core.errors import ConflictError, InvalidInputError
from darner.store import NewTask, PieceRecord, Store, files

CONTENT = bytes(range(256)) * 5000
TASK = "c0ffee" + "9" * 58
SHM = Path("/dev/shm")  # noqa: S108  (another file system)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store")
    store.create(NewTask(id=TASK, url="http://origin.example/x", content_length=len(CONTENT), piece_length=len(CONTENT)))
    with store.open_file(TASK, write=True) as file:
        os.pwrite(file.fd, CONTENT, 0)
    store.record_piece(TASK, PieceRecord(number=0, offset=0, length=len(CONTENT), crc32=isal_zlib.crc32(CONTENT)))
    store.finish(TASK)
    yield store
    store.close()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    if not SHM.is_dir():
        pytest.skip("no second file system here")
    directory = Path(tempfile.mkdtemp(dir=SHM))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs" / "out"


def only(path: Path) -> bool:
    """Whether nothing else lies beside a file."""
    return [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_on_the_same_file_system_the_output_is_a_hard_link(store: Store, out: Path) -> None:
    store.export(TASK, out)
    assert out.stat().st_nlink == 2
    assert out.read_bytes() == CONTENT
    assert only(out)


def test_on_another_file_system_it_is_a_copy_without_traces(store: Store, elsewhere: Path) -> None:
    store.export(TASK, elsewhere / "out")
    assert (elsewhere / "out").read_bytes() == CONTENT
    assert only(elsewhere / "out")
    with pytest.raises(ConflictError, match="hard link"):
        store.export(TASK, elsewhere / "other", force_hard_link=True)
    assert only(elsewhere / "out")


@pytest.mark.parametrize("broken", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_that_cannot_copy_ranges_gets_the_same_copy(broken: int, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    source, target = os.open(tmp_path / "source", os.O_RDONLY), os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)

    def refuse(*_: int) -> int:
        raise OSError(broken, "not here")

    files.copy_bytes(source, target, len(CONTENT), copy=refuse)
    os.close(source)
    os.close(target)
    assert (tmp_path / "target").read_bytes() == CONTENT


@pytest.mark.parametrize("other_file_system", [False, True])
def test_an_existing_output_is_kept_unless_overwriting_was_asked_for(
    store: Store, out: Path, elsewhere: Path, other_file_system: bool
) -> None:
    target = elsewhere / "out" if other_file_system else out
    target.write_bytes(b"precious")
    with pytest.raises(ConflictError, match="exists already"):
        store.export(TASK, target)
    assert target.read_bytes() == b"precious"
    store.export(TASK, target, overwrite=True)
    assert target.read_bytes() == CONTENT
    assert only(target)


def test_the_same_output_again_is_no_conflict(store: Store, out: Path) -> None:
    store.export(TASK, out)
    store.export(TASK, out)
    store.export(TASK, out, overwrite=True)
    assert out.stat().st_nlink == 2
    assert only(out)


def test_a_symbolic_link_at_the_output_is_replaced_not_followed(store: Store, out: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    out.symlink_to(victim)
    with pytest.raises(ConflictError, match="exists already"):
        store.export(TASK, out)
    store.export(TASK, out, overwrite=True)
    assert victim.read_bytes() == b"precious"
    assert out.read_bytes() == CONTENT
    assert not out.is_symlink()


def test_a_dangling_symbolic_link_counts_as_existing(store: Store, out: Path, tmp_path: Path) -> None:
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError, match="exists already"):
        store.export(TASK, out)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(("path", "says"), [("outputs", "is a directory"), ("absent/out", "create it first")])
def test_an_impossible_output_is_named(store: Store, tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "outputs").mkdir()
    with pytest.raises(InvalidInputError, match=says) as caught:
        store.export(TASK, tmp_path / path)
    assert caught.value.field == "output_path"


def test_a_relative_output_is_refused_because_the_daemon_has_its_own_directory(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="absolute"):
        store.export(TASK, Path("out"))


def test_eviction_leaves_an_output_that_shares_the_bytes(store: Store, out: Path) -> None:
    store.export(TASK, out)
    store.delete(TASK)
    assert out.read_bytes() == CONTENT
