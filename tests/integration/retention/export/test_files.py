"""Export files: rotation, half lines, full disks, other hands; whole lines in their order whatever happens."""

import errno
import os
import re
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.retention.export.documents import checked, document

from darner.retention.export.ports import SinkAwayError
from darner.retention.export.sinks import make_sink
from darner.retention.export.sinks.files import FileRules, RotatingFile


def lines(*numbers: int, size: int = 20) -> list[bytes]:
    return [b"%d:%s\n" % (number, b"x" * (size - 2 - len(str(number)))) for number in numbers]


def file_at(path: Path, **more: Any) -> RotatingFile:
    return RotatingFile(FileRules(**{"directory": path, "name": "log", "max_bytes": 100, **more}))


def content(path: Path) -> list[int]:
    """The numbers of all lines, file by file in their order."""
    files = [*sorted(path.glob("log.*.ndjson")), path / "log.ndjson"]
    found = [line for file in files if file.exists() for line in file.read_bytes().splitlines()]
    return [int(match[1]) for line in found if (match := re.fullmatch(rb"(\d+):x*", line))]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[RotatingFile]:
    opened = file_at(tmp_path)
    yield opened
    opened.close()


def test_a_full_file_is_set_aside_by_a_rename_and_never_touched_again(file: RotatingFile, tmp_path: Path) -> None:
    file.append(lines(1, 2, 3))
    inode = file.path.stat().st_ino
    file.append(lines(4, 5, 6, 7))
    (old,) = file.old_files()
    assert (old.name, old.stat().st_ino) == ("log.00000001.ndjson", inode)
    assert old.stat().st_size == 100
    file.append(lines(*range(8, 30)))
    assert [one.name for one in file.old_files()] == [f"log.{number:08}.ndjson" for number in range(1, 6)]
    assert content(tmp_path) == list(range(1, 30))


def test_a_line_longer_than_a_file_has_one_of_its_own(file: RotatingFile, tmp_path: Path) -> None:
    file.append([*lines(1), *lines(2, size=500), *lines(3)])
    assert content(tmp_path) == [1, 2, 3]
    assert [one.stat().st_size for one in file.old_files()] == [20, 500]


def test_files_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for mode in (0o600, 0o640):
            directory = tmp_path / oct(mode)
            file = file_at(directory, mode=mode)
            file.append(lines(*range(20)))
            file.close()
            assert {one.stat().st_mode & 0o777 for one in directory.glob("log*.ndjson")} == {mode}
            assert directory.stat().st_mode & 0o007 == 0
    finally:
        os.umask(before)


def test_half_a_line_gets_its_end(tmp_path: Path) -> None:
    (tmp_path / "log.ndjson").write_bytes(b"1:xx\n2:x{half")
    file = file_at(tmp_path)
    file.append(lines(2, 3))
    file.close()
    assert (tmp_path / "log.ndjson").read_bytes().splitlines()[1] == b"2:x{half"
    assert content(tmp_path) == [1, 2, 3]


def test_numbers_count_on_after_a_restart_and_gaps(tmp_path: Path) -> None:
    (tmp_path / "log.00000041.ndjson").write_bytes(b"41:x\n")
    (tmp_path / "other.00000099.ndjson").write_bytes(b"")
    file = file_at(tmp_path)
    file.append(lines(*range(42, 52)))
    file.close()
    assert [one.name for one in file.old_files()] == ["log.00000041.ndjson", "log.00000042.ndjson"]


def test_a_file_that_was_moved_away_is_begun_anew(file: RotatingFile, tmp_path: Path) -> None:
    file.append(lines(1))
    file.path.rename(tmp_path / "elsewhere")
    file.append(lines(2))
    file.path.unlink()
    file.append(lines(3))
    assert content(tmp_path) == [3]
    assert (tmp_path / "elsewhere").read_bytes() == lines(1)[0]


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log.ndjson").symlink_to(tmp_path / "target")
    file = file_at(tmp_path)
    with pytest.raises(OSError, match="symbolic"):
        file.append(lines(1))
    file.close()
    assert not (tmp_path / "target").exists()


def test_two_processes_do_not_write_the_same_file(file: RotatingFile, tmp_path: Path) -> None:
    file.append(lines(1))
    other = file_at(tmp_path)
    with pytest.raises(BlockingIOError):
        other.append(lines(2))
    file.close()
    other.append(lines(2))
    other.close()


def test_only_so_many_old_files_are_kept_and_none_of_this_delivery_is_removed(tmp_path: Path) -> None:
    file = file_at(tmp_path, max_files=2)
    file.append(lines(*range(27)))
    assert content(tmp_path) == list(range(27)), "what is not acknowledged yet is there in full"
    file.append(lines(27))
    assert [one.name for one in file.old_files()] == ["log.00000004.ndjson", "log.00000005.ndjson"]
    file.close()


def test_old_age_takes_one_file_at_a_time(tmp_path: Path) -> None:
    file = file_at(tmp_path, max_age_s=3600.0)
    file.append(lines(*range(27)))
    for one in file.old_files():
        os.utime(one, (0, 0))
    for _ in range(3):
        file.append(lines(27))
    file.close()
    assert len(file.old_files()) == 4, "a clock that jumped must not take all"


def test_a_disk_with_too_little_room_gets_nothing_not_even_half(tmp_path: Path) -> None:
    file = file_at(tmp_path, min_free_bytes=1 << 60)
    with pytest.raises(OSError, match="No space") as caught:
        file.append(lines(1))
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "log.ndjson").read_bytes() == b""
    file.close()


async def test_a_write_that_is_cut_short_is_made_good_when_there_is_room(tmp_path: Path) -> None:
    sink = make_sink(checked(kind="ndjson", dir=tmp_path / "a", min_free_bytes=0))
    await sink.deliver([document(1)])
    path = tmp_path / "a" / "log.ndjson"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, hard))
    try:
        for _ in range(3):
            with pytest.raises(SinkAwayError, match="no room"):
                await sink.deliver([document(2), document(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await sink.deliver([document(2), document(3)])
    await sink.close()
    found = path.read_bytes().splitlines()
    assert [one for one in found if one.endswith(b"}")] in (
        [document(1).body, document(2).body, document(3).body],
        [document(1).body, document(2).body, document(2).body, document(3).body],
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


async def test_a_disk_that_is_full_is_said_and_found_again(small_disk: Path) -> None:
    sink = make_sink(checked(kind="ndjson", dir=small_disk, min_free_bytes=0))
    (small_disk / "filler").write_bytes(b"x" * 200_000)
    big = [document(number, "y" * 30_000) for number in range(5)]
    for _ in range(3):
        with pytest.raises(SinkAwayError, match="no room"):
            await sink.deliver(big)
    (small_disk / "filler").unlink()
    await sink.deliver(big)
    await sink.close()
    found = (small_disk / "log.ndjson").read_bytes().splitlines()
    assert [one.body for one in big] == found[-5:]


@pytest.mark.parametrize("place", ["/proc/nothing", "/dev/null/x"])
async def test_a_place_that_cannot_be_is_said_with_its_path(place: str) -> None:
    sink = make_sink(checked(kind="ndjson", dir=Path(place)))
    with pytest.raises(SinkAwayError, match=place):
        await sink.deliver([document(1)])
    await sink.close()


WRITER = """
    import sys
    from pathlib import Path
    from darner.kit.log import configure
    from darner.retention.export.sinks.files import FileRules, RotatingFile

    configure()
    file = RotatingFile(FileRules(directory=Path(sys.argv[1]), name="log", max_bytes=50_000))
    number = int(sys.argv[2])
    print("go", flush=True)
    while True:
        file.append([b"%d:%s\\n" % (number + i, b"x" * 300) for i in range(100)])
        number += 100
        print(number, flush=True)
"""


def test_kill_9_in_the_middle_of_writing_loses_no_line_that_was_acknowledged(tmp_path: Path) -> None:
    start = 0
    for rounds in range(1, 9):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            told = [int(process.stdout.readline()) for _ in range(rounds * 3)]
            process.kill()
            told += [int(line) for line in process.stdout.read().splitlines()]
        start = told[-1]
        found = content(tmp_path)
        assert set(range(start)) <= set(found), "what was acknowledged is there"
        assert sorted(set(found)) == list(range(max(found) + 1)), "without a gap"
