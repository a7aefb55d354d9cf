"""What a store looks like after kill -9, with a second process at its door, and on a full disk."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from isal import isal_zlib

from darner.core.errors import ConflictError, StorageFullError
from darner.store import NewTask, PieceRecord, Store

TASK = "abad1dea" + "7" * 56
PIECE, COUNT = 4096, 5000

WRITER = f"""
import os, sys
from pathlib import Path
from isal import isal_zlib
from darner.store import NewTask, PieceRecord, Store
store = Store.open(Path(sys.argv[1]))
store.create(NewTask(id="{TASK}", url="http://x.example/", content_length={PIECE * COUNT}, piece_length={PIECE}))
spool = store.spool("{TASK}")
spool.write(b"half of something")
with store.open_file("{TASK}", write=True) as file:
    for number in range({COUNT}):
        data = number.to_bytes(4, "big") * {PIECE // 4}
        os.pwrite(file.fd, data, number * {PIECE})
        piece = PieceRecord(number=number, offset=number * {PIECE}, length={PIECE}, crc32=isal_zlib.crc32(data))
        store.record_piece("{TASK}", piece)
        print(number, flush=True)
"""

EXPORTER = """
import os, sys
from pathlib import Path
from darner.store import export
def stop_midway(source, target, length):
    os.write(target, b"half")
    print("copying", flush=True)
    signal.pause()
import signal
export.copy_bytes = stop_midway
export._link = lambda *_, **__: False
from darner.store import Store
store = Store.open(Path(sys.argv[1]))
store.export(sys.argv[2], Path(sys.argv[3]))
"""


def run(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Kill -9; what it had printed and we had not read."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    process.stdout.close()
    process.wait(10)
    return lines


@pytest.mark.parametrize("after", [1, 300, 2500])
def test_every_piece_said_to_be_recorded_is_there_after_kill_9(tmp_path: Path, after: int) -> None:
    process = run(WRITER, str(tmp_path / "store"))
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    said = after + len([line for line in kill(process) if line.strip()])
    store = Store.open(tmp_path / "store")
    found = store.pieces(TASK)
    # The last line may have been cut by the kill, and one more piece may have been recorded before its line.
    assert said - 1 <= len(found) <= said + 1
    assert all(store.verified_piece(TASK, number) == piece for number, piece in found.items())
    assert list((tmp_path / "store" / "spool").iterdir()) == []
    store.close()


def test_a_copy_cut_by_kill_9_leaves_no_output_and_its_half_is_removed_at_the_next_start(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.create(NewTask(id=TASK, url="http://x.example/", content_length=0, piece_length=PIECE))
    store.finish(TASK)
    store.close()
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    process = run(EXPORTER, str(tmp_path / "store"), TASK, str(outputs / "out"))
    assert process.stdout is not None
    assert process.stdout.readline() == "copying\n"
    kill(process)
    (half,) = outputs.iterdir()
    assert half.name != "out"
    Store.open(tmp_path / "store").close()
    assert list(outputs.iterdir()) == []


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    process = run(WRITER, str(tmp_path / "store"))
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(ConflictError, match=f"in use by process {process.pid}"):
        Store.open(tmp_path / "store")
    kill(process)
    Store.open(tmp_path / "store").close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mount], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("needs to mount a small file system (run as root)")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def test_a_task_that_does_not_fit_on_the_disk_leaves_nothing_behind(small_disk: Path) -> None:
    store = Store.open(small_disk / "store")
    with pytest.raises(StorageFullError, match="no room"):
        store.create(NewTask(id=TASK, url="http://x.example/", content_length=9 * 2**20, piece_length=2**20))
    assert store.tasks() == []
    assert list((small_disk / "store" / "content").glob("tasks/*/*")) == []
    store.create(NewTask(id=TASK, url="http://x.example/", content_length=2**20, piece_length=2**20))
    store.close()


def test_on_a_full_disk_the_oldest_finished_task_makes_room_for_a_new_one(small_disk: Path) -> None:
    gone: list[str] = []
    store = Store.open(small_disk / "store", on_evicted=gone.append)
    for number in range(3):
        name = f"{number}00" + "e" * 61
        spool = store.spool(name)
        spool.write(bytes(2 * 2**20))
        store.adopt_spool(spool, NewTask(id=name, url="http://x.example/", content_length=2 * 2**20, piece_length=2**20))
        store.finish(name)
        time.sleep(0.01)
    store.create(NewTask(id=TASK, url="http://x.example/", content_length=3 * 2**20, piece_length=2**20))
    assert gone == ["000" + "e" * 61, "100" + "e" * 61]
    store.close()


def test_a_spool_on_a_full_disk_says_so(small_disk: Path) -> None:
    store = Store.open(small_disk / "store")
    with store.spool(TASK) as spool, pytest.raises(StorageFullError):
        spool.write(bytes(9 * 2**20))
    assert list((small_disk / "store" / "spool").iterdir()) == []
    store.close()


def test_a_piece_whose_row_cannot_be_written_is_not_recorded_and_the_store_goes_on(small_disk: Path) -> None:
    store = Store.open(small_disk / "store")
    length = 4 * 2**20
    store.create(NewTask(id=TASK, url="http://x.example/", content_length=length, piece_length=1024))
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    crc32 = isal_zlib.crc32(bytes(1024))

    def record(number: int) -> None:
        where = number * 1024
        store.record_piece(TASK, PieceRecord(number=number, offset=where, length=1024, crc32=crc32, parent_id="p" * 500))

    recorded = 0
    with contextlib.suppress(StorageFullError):
        for recorded in range(length // 1024):
            record(recorded)
    assert recorded < length // 1024 - 1
    with pytest.raises(StorageFullError):
        record(recorded)
    assert len(store.pieces(TASK)) == recorded
    filler.unlink()
    record(recorded)
    store.close()
    again = Store.open(small_disk / "store")
    assert len(again.pieces(TASK)) == recorded + 1
    again.close()


def test_a_limit_on_file_size_is_reported_like_a_full_disk(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(StorageFullError):
            store.create(NewTask(id=TASK, url="http://x.example/", content_length=2**21, piece_length=2**20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.tasks() == []
    assert not os.path.lexists(tmp_path / "store" / "content" / "tasks" / TASK[:3] / TASK)
    store.close()
