"""A file that is appended to, set aside by a rename when it is large, and never left with half a line in its middle.

`NAME.ndjson` is written; `NAME.00000001.ndjson`, … are whole and never touched again, so that whatever follows the files (Vector,
Fluent Bit) keeps its place. The number counts on from the highest that is there; no clock has a say in names.
"""

import errno
import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from darner.kit.log import get_logger

_log = get_logger("retention")
_DIGITS = 8
_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# Old age is told by a clock that may be wrong, so it takes files one by one.
_AGED_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules:
    """`max_bytes`: when the file is set aside. `max_files` and `max_age_s`: how many, how long; 0: all, for ever.

    `min_free_bytes`: what must be left on the disk after a write.
    """

    directory: Path
    name: str
    max_bytes: int
    max_files: int = 0
    max_age_s: float = 0.0
    min_free_bytes: int = 0
    mode: int = 0o600


class RotatingFile:
    """The file and those set aside. One thread at a time; a lock file keeps other processes out. Errors are OSError."""

    def __init__(self, rules: FileRules) -> None:
        """Nothing is opened yet."""
        self._rules = rules
        self.path = rules.directory / f"{rules.name}.ndjson"
        self._old = re.compile(rf"{re.escape(rules.name)}\.(\d{{{_DIGITS},}})\.ndjson", re.ASCII)
        self._fd = -1
        self._lock = -1
        self._aged_at = 0.0

    def append(self, lines: list[bytes]) -> None:
        """Write lines (each with its end) for good: after this they survive a power cut. What failed may be half there."""
        self._open()
        self._check_room(sum(map(len, lines)))
        self._expire()
        self._end_half_line()
        start = 0
        while start < len(lines):
            room = self._rules.max_bytes - os.fstat(self._fd).st_size
            end, size = start, 0
            while end < len(lines) and (size + len(lines[end]) <= room or (end == start and room == self._rules.max_bytes)):
                size += len(lines[end])
                end += 1
            if end == start:
                self._set_aside()
                continue
            _write_all(self._fd, b"".join(lines[start:end]))
            start = end
        os.fsync(self._fd)

    def close(self) -> None:
        """Let go of the file and the lock."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def old_files(self) -> list[Path]:
        """Those set aside, oldest first."""
        found = [(int(match[1]), path) for path in self._rules.directory.iterdir() if (match := self._old.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def _open(self) -> None:
        """Open the file, or open it anew if somebody moved it away (logrotate, a person)."""
        directory = self._rules.directory
        if self._lock < 0:
            directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._lock = _locked(directory / f".{self._rules.name}.lock")
        if self._fd >= 0 and not self._is_same():
            os.close(self._fd)
            self._fd = -1
        if self._fd < 0:
            self._fd = os.open(self.path, _OPEN, self._rules.mode)
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(self.path))
            os.fchmod(self._fd, self._rules.mode)
            _sync_directory(directory)

    def _is_same(self) -> bool:
        try:
            there = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _end_half_line(self) -> None:
        """A write that was cut short (kill -9, full disk) left half a line: it gets its end, and what it was comes again whole."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            _write_all(self._fd, b"\n")
            _log.warning("half a line was ended in an export file; its job comes again", path=str(self.path))

    def _set_aside(self) -> None:
        os.fsync(self._fd)
        old = self.old_files()
        number = int(self._old.fullmatch(old[-1].name)[1]) + 1 if old else 1  # type: ignore[index]
        self.path.rename(self._rules.directory / f"{self._rules.name}.{number:0{_DIGITS}}.ndjson")
        os.close(self._fd)
        self._fd = -1
        self._open()

    def _check_room(self, size: int) -> None:
        disk = os.fstatvfs(self._fd)
        if disk.f_bavail * disk.f_frsize - size < self._rules.min_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _expire(self) -> None:
        """Remove what is too old or too much, among files that were set aside before this delivery: all acknowledged."""
        if not (self._rules.max_files or self._rules.max_age_s):
            return
        old = self.old_files()
        excess = len(old) - self._rules.max_files if self._rules.max_files else 0
        doomed = old[: max(0, excess)]
        rest = old[len(doomed) :]
        if rest and self._is_aged(rest[0]) and time.monotonic() - self._aged_at >= _AGED_EVERY_S:
            self._aged_at = time.monotonic()
            doomed.append(rest[0])
        for path in doomed:
            with suppress(FileNotFoundError):
                path.unlink()
                _log.info("an old export file was removed", path=str(path))

    def _is_aged(self, path: Path) -> bool:
        if not self._rules.max_age_s:
            return False
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > self._rules.max_age_s
        return False


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise BlockingIOError(errno.EWOULDBLOCK, "another process writes these files", str(path)) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
