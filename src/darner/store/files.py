"""The store's files: where they lie, how they are made, copied, checked and locked. Layout as upstream's (daemon.md, section 10).

    DIR/content/tasks/<id[:3]>/<id>   piece n at its offset, no header or footer
    DIR/metadata/store.db             what is known of them
    DIR/spool/                        content of unknown length while it is read; emptied at every start
    DIR/lock                          held by the one process that uses the directory

A file system that refuses for want of room becomes StorageFullError.
"""

import contextlib
import errno
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3
from isal import isal_zlib

from darner.core.errors import ConflictError, InvalidInputError, StorageFullError
from darner.core.piece import piece_count, piece_span

CHUNK_BYTES = 1024 * 1024
COPY_BYTES = 64 * 1024 * 1024
CONTENT_MODE = 0o644
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_NO_COPY_RANGE = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY})
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{2,127}")
_local = threading.local()
Copy = Callable[[int, int, int, int], int]


def thread_buffer() -> memoryview:
    """One reused buffer of CHUNK_BYTES per thread."""
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(bytearray(CHUNK_BYTES))
    return view


@contextmanager
def full_disk_errors(what: str) -> Iterator[None]:
    """Turn "no room" into StorageFullError saying what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(f"no room for {what}: {os.strerror(error.errno or 0)}; free space or raise the quota") from error
        raise


class Layout:
    """Paths below one directory."""

    def __init__(self, directory: Path) -> None:
        """Make the directories that are missing; only our user may enter, for cached content may be private."""
        self.directory = directory
        self.content = directory / "content" / "tasks"
        self.spool = directory / "spool"
        self.metadata = directory / "metadata" / "store.db"
        try:
            if not directory.exists():
                directory.mkdir(parents=True, mode=0o700)
            for path in (self.content.parent, self.content, self.spool, self.metadata.parent):
                path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            message = f"cannot use {directory} as storage directory: {os.strerror(error.errno or 0)}; check its path and owner"
            raise InvalidInputError(message, field="storage.dir") from error

    def content_path(self, task_id: str) -> Path:
        """Where a task's content lies. Raises InvalidInputError for an id that cannot be a file name."""
        if not _TASK_ID.fullmatch(task_id):
            raise InvalidInputError(f"task id {task_id!r} is not 3 to 128 letters, digits, '-', '_' or '.'", field="task_id")
        return self.content / task_id[:3] / task_id

    def content_files(self) -> Iterator[Path]:
        """Every file where content lies."""
        for path in self.content.glob("*/*"):
            if path.is_file() or path.is_symlink():
                yield path

    def lock(self) -> int:
        """Take the directory for this process; returns the open descriptor. Raises ConflictError naming the holder."""
        path = self.directory / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            who = f" by process {holder}" if holder else ""
            raise ConflictError(
                f"storage directory {self.directory} is in use{who}; stop it or choose another directory"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd


def preallocate(path: Path, length: int) -> None:
    """Make a file of `length` bytes whose blocks are reserved, replacing any old one. Raises StorageFullError, leaving nothing."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, CONTENT_MODE)
    try:
        with full_disk_errors(f"{length} bytes of content in {path.parent.parent}"):
            reserve(fd, length)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def reserve(fd: int, length: int) -> None:
    """Give a file its length, with blocks where the file system can reserve them."""
    if not length:
        return
    try:
        os.posix_fallocate(fd, 0, length)
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
        os.ftruncate(fd, length)


def copy_bytes(source_fd: int, target_fd: int, length: int, *, copy: Copy | None = None) -> None:
    """Copy `length` bytes from offset 0 to 0 inside the kernel, sharing blocks where the file system can.

    `copy` is tried first, by default `copy_file_range`; where that is not to be had, `sendfile` goes on.
    """
    done, copy = 0, copy or _copy_range
    while done < length:
        try:
            count = copy(source_fd, target_fd, min(COPY_BYTES, length - done), done)
        except OSError as error:
            if copy is _copy_sendfile or error.errno not in _NO_COPY_RANGE:
                raise
            copy = _copy_sendfile
            continue
        if not count:
            raise OSError(errno.EIO, f"the stored file ends after {done} of {length} bytes")
        done += count


def _copy_range(source_fd: int, target_fd: int, count: int, at: int) -> int:
    return os.copy_file_range(source_fd, target_fd, count, offset_src=at, offset_dst=at)


def _copy_sendfile(source_fd: int, target_fd: int, count: int, at: int) -> int:
    os.lseek(target_fd, at, os.SEEK_SET)
    return os.sendfile(target_fd, source_fd, at, count)


def clone(path: Path, temporary: Path) -> None:
    """Replace a file by a copy of its own; other hard links keep the old one. Raises StorageFullError, leaving it as it was."""
    source_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target_fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, CONTENT_MODE)
        try:
            with full_disk_errors(f"a copy of {path}"):
                copy_bytes(source_fd, target_fd, os.fstat(source_fd).st_size)
        finally:
            os.close(target_fd)
        temporary.replace(path)
    except BaseException:
        remove_quietly(temporary)
        raise
    finally:
        os.close(source_fd)


def crc32_at(path: Path, offset: int, length: int) -> int | None:
    """CRC-32 of bytes on disk; None if they cannot all be read."""
    crc32 = 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for chunk in _chunks(fd, offset, length):
                crc32 = isal_zlib.crc32(chunk, crc32)
        finally:
            os.close(fd)
    except OSError:
        return None
    return crc32


def digest_pieces(fd: int, content_length: int, piece_length: int) -> Iterator[dict[str, int | bytes]]:
    """Number, offset, length, CRC-32 and BLAKE3 of every piece of a file, read once."""
    for number in range(piece_count(content_length, piece_length)):
        span = piece_span(number, content_length, piece_length)
        crc32, hasher = 0, blake3()
        for chunk in _chunks(fd, span.start, span.length):
            crc32 = isal_zlib.crc32(chunk, crc32)
            hasher.update(chunk)
        yield {"number": number, "offset": span.start, "length": span.length, "crc32": crc32, "blake3": hasher.digest()}


def _chunks(fd: int, offset: int, length: int) -> Iterator[memoryview]:
    """Bytes of a file in this thread's buffer, each chunk valid until the next. Raises OSError if the file ends before."""
    buffer, end = thread_buffer(), offset + length
    while offset < end:
        count = os.preadv(fd, [buffer[: min(CHUNK_BYTES, end - offset)]], offset)
        if not count:
            raise OSError(errno.EIO, f"the file ends at {offset}, before {end}")
        yield buffer[:count]
        offset += count


def remove_quietly(path: Path) -> None:
    """Remove a file if it is there; one that cannot be removed is left."""
    with contextlib.suppress(OSError):
        path.unlink()
