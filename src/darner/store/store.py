"""The store: tasks, their pieces and their bytes, for all threads of one daemon.

Two locks, always taken in this order: `_structure` while files appear or vanish (may take long), then the index's (short: recording
a piece waits only for that one).
"""

import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Self

from darner.core.errors import ConflictError, DigestMismatchError, InvalidInputError, NotFoundError, StorageFullError
from darner.core.piece import TrafficType
from darner.core.secret import is_secret_header
from darner.core.task import Headers
from darner.core.url import redacted
from darner.kit.log import get_logger
from darner.store import policy
from darner.store.export import export_file, is_temporary
from darner.store.files import Layout, clone, crc32_at, digest_pieces, preallocate, remove_quietly
from darner.store.handles import SpoolFile, TaskFile
from darner.store.index import Index
from darner.store.records import NewTask, PieceRecord, StoreLimits, TaskRecord

_log = get_logger("store")


class Store:
    """All stored tasks. More than twelve methods, because it is the one owner of its directory; each is short."""

    def __init__(self, layout: Layout, lock_fd: int, limits: StoreLimits, clock: Callable[[], float]) -> None:
        """Use `Store.open`."""
        self._layout = layout
        self._lock_fd = lock_fd
        self._limits = limits
        self._clock = clock
        self._structure = threading.RLock()
        self._index = Index(layout.metadata, clock)
        self.on_evicted: Callable[[str], None] = lambda _: None
        """Called with the id of every evicted task, in the thread that evicts."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        quota_bytes: int = 0,
        limits: StoreLimits | None = None,
        clock: Callable[[], float] = time.time,
        on_evicted: Callable[[str], None] | None = None,
    ) -> Self:
        """Take the directory for this process and continue with what lies there; half-written temporary files are removed.

        `on_evicted` is told the id of every evicted task. Raises ConflictError if another process has the directory,
        InvalidInputError if it cannot be used.
        """
        layout = Layout(directory.absolute())
        lock_fd = layout.lock()
        try:
            chosen = limits or StoreLimits()
            store = cls(layout, lock_fd, replace(chosen, quota_bytes=quota_bytes or chosen.quota_bytes), clock)
        except BaseException:
            os.close(lock_fd)
            raise
        store.on_evicted = on_evicted or store.on_evicted
        store._recover()
        return store

    def close(self) -> None:
        """Write what is only in memory, and let go of the directory."""
        with self._structure:
            self._index.close()
            os.close(self._lock_fd)

    def create(self, new: NewTask) -> TaskRecord:
        """A task with room reserved for its content; with the same lengths again, the existing one and its pieces.

        Other lengths drop the old content. Raises StorageFullError (nothing is left behind), ConflictError if content that is
        being written would have to be dropped.
        """
        path = self._layout.content_path(new.id)
        _check_lengths(new)
        with self._structure:
            old = self.task(new.id)
            if old and (old.content_length, old.piece_length) == (new.content_length, new.piece_length):
                return self._index.change(new.id, failed_at=None) if old.failed_at else old
            self.delete(new.id)
            self._make_room(new.content_length)
            self._with_eviction(new.content_length, lambda: preallocate(path, new.content_length))
            return self._insert(new, path, ())

    def task(self, task_id: str) -> TaskRecord | None:
        """A task with its counters, or None. One whose file is gone or has another length by somebody else's hand is forgotten."""
        found = self._index.find(task_id)
        if found is None or self._has_content(found):
            return found
        return None if self._forget_lost(found) else self._index.find(task_id)

    def checked_task(self, task_id: str) -> TaskRecord | None:
        """Like `task`, for who must know that every byte is good: pieces whose file somebody else changed are read again.

        May read the whole file. A finished task that is not what was checked comes back unfinished.
        """
        found = self.task(task_id)
        if found is None or not self.is_changed(found):
            return found
        for number in self.pieces(task_id):
            self.verified_piece(task_id, number)
        return self.task(task_id)

    def is_changed(self, task: TaskRecord) -> bool:
        """Whether somebody else's hand was on the file of a finished task since it was checked. Raises NotFoundError."""
        return task.finished_at is not None and self._index.live(task.id).mtime_ns not in {None, self._mtime_ns(task.id)}

    def tasks(self) -> list[TaskRecord]:
        """All tasks with their counters."""
        return self._index.all()

    def finish(self, task_id: str) -> TaskRecord:
        """Say that the content is complete. Raises ConflictError while pieces are missing: a range alone is not the content."""
        with self._index.lock:
            missing = self._index.missing(task_id)
            if missing:
                raise ConflictError(f"task {task_id} lacks {missing} pieces; it is not finished")
            if not self._has_content(self._index.known(task_id)):
                raise ConflictError(
                    f"the file of task {task_id} was taken away or cut while it was being written; download it again"
                )
            finished_at = self._index.known(task_id).finished_at
            self._index.live(task_id).mtime_ns = self._mtime_ns(task_id)
            return self._index.change(task_id, finished_at=finished_at or self._clock(), failed_at=None)

    def fail(self, task_id: str) -> TaskRecord:
        """Say that the download failed; its pieces stay for the next attempt."""
        return self._index.change(task_id, failed_at=self._clock())

    def set_prefetched(self, task_id: str) -> TaskRecord:
        """Say that the whole content was asked for after a range of it."""
        return self._index.change(task_id, prefetched_at=self._clock())

    def delete(self, task_id: str) -> bool:
        """Forget a task and remove its content; False if there is none. Readers keep what they have open.

        Raises ConflictError while it is being written: stop the download first.
        """
        with self._structure:
            if not self._index.forget(task_id):
                return False
            remove_quietly(self._layout.content_path(task_id))
            return True

    def pieces(self, task_id: str) -> dict[int, PieceRecord]:
        """What is recorded of a task's pieces, by number; empty for an unknown task."""
        return self._index.pieces(task_id)

    def record_piece(self, task_id: str, piece: PieceRecord) -> None:
        """Record a piece whose bytes were written and checked; from here on it survives a crash of this process.

        Raises InvalidInputError if it does not lie where the arithmetic puts it, NotFoundError, StorageFullError.
        """
        self._index.record_piece(task_id, piece)

    def drop_piece(self, task_id: str, number: int) -> None:
        """Forget a piece that proved bad; its task is not finished any more."""
        self._index.drop_piece(task_id, number)

    def verified_piece(self, task_id: str, number: int) -> PieceRecord | None:
        """A piece whose bytes on disk are known to be good.

        They are checked against their CRC-32 on first use after a start, or after somebody else changed the file; a bad piece is
        dropped, and None returned.
        """
        piece = self._index.piece(task_id, number)
        if piece is None or self._is_verified(task_id, number):
            return piece
        crc32 = crc32_at(self._layout.content_path(task_id), piece.offset, piece.length)
        with self._index.lock:
            if self._index.piece(task_id, number) != piece:
                return None
            if crc32 == piece.crc32:
                self._index.live(task_id).verified |= 1 << number
                return piece
            self._index.drop_piece(task_id, number)
        _log.warning("a stored piece does not match its checksum and was dropped", task_id=task_id, piece=number)
        return None

    def open_file(self, task_id: str, *, write: bool = False) -> TaskFile:
        """The content, pinned against eviction while it is open; readers count as uploads. Raises NotFoundError."""
        path = self._layout.content_path(task_id)
        if write:
            self._detach(task_id, path)
        live = self._index.pin(task_id, write=write)
        try:
            fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            self._index.unpin(live, write=write, uploaded=False)
            raise NotFoundError(f"the content of task {task_id} cannot be opened at {path}: {error.strerror}") from error
        return TaskFile(fd, path, lambda: self._index.unpin(live, write=write))

    def export(self, task_id: str, output: Path, *, overwrite: bool = False, force_hard_link: bool = False) -> None:
        """The whole content at `output`, by hard link or copy (fsynced); never a part of it.

        Raises ConflictError (pieces missing, output exists, no hard link possible), DigestMismatchError if stored bytes went bad
        (these pieces are dropped: download again), InvalidInputError, StorageFullError.
        """
        with self.open_file(task_id) as file:
            missing = self._index.missing(task_id)
            if missing:
                raise ConflictError(f"task {task_id} lacks {missing} pieces and cannot be exported")
            bad = [number for number in self.pieces(task_id) if self.verified_piece(task_id, number) is None]
            if bad:
                raise DigestMismatchError(
                    f"{len(bad)} stored pieces of task {task_id} went bad and were dropped; download it again"
                )
            export_file(file.path, output, overwrite=overwrite, force_hard_link=force_hard_link, leftovers=self._index)

    def spool(self, task_id: str) -> SpoolFile:
        """A temporary file for content of unknown length; give it to `adopt_spool`, or close it and it is gone."""
        self._layout.content_path(task_id)
        quota = self._limits.quota_bytes
        path = self._layout.spool / f"{task_id}.{secrets.token_hex(8)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        return SpoolFile(fd, path, quota or None)

    def adopt_spool(self, spool: SpoolFile, new: NewTask, *, cost_s: float = 0.0) -> TaskRecord:
        """Make a spooled file a task that has all its pieces; their digests are computed here. Call `finish` afterwards.

        Raises InvalidInputError if the file has not the length that `new` says, StorageFullError.
        """
        path = self._layout.content_path(new.id)
        _check_lengths(new)
        if spool.size != new.content_length:
            message = f"{spool.size} bytes were spooled for a content of {new.content_length}"
            raise InvalidInputError(message, field="content_length")
        facts = {"traffic_type": TrafficType.BACK_TO_SOURCE, "cost_s": cost_s, "created_at": self._clock()}
        pieces = [PieceRecord(**found, **facts) for found in digest_pieces(spool.fd, new.content_length, new.piece_length)]  # type: ignore[arg-type]
        with self._structure:
            self.delete(new.id)
            self._make_room(new.content_length)
            path.parent.mkdir(exist_ok=True)
            spool.path.replace(path)
            spool.adopted()
            return self._insert(new, path, pieces)

    def used_bytes(self) -> int:
        """Bytes that our tasks reserve."""
        return self._index.used_bytes()

    def evict(self, now: float) -> list[str]:
        """Remove what is over its time, the quota or the share of the disk, oldest use first. Returns the ids."""
        with self._structure:
            self._index.flush_uses()
            gone = self._remove(policy.expired(self.tasks(), self._index.pinned(), self._limits, now))
            gone += self._free(policy.over_quota(self.used_bytes(), self._limits), now)
            disk = shutil.disk_usage(self._layout.directory)
            gone += self._free(policy.over_disk(disk.total, disk.free, self._limits), now, on_disk=True)
            return gone

    def _recover(self) -> None:
        """After any end of the last process: no temporary files, no content without a row, no row without its content."""
        for path in self._index.leftovers():
            if is_temporary(path):
                remove_quietly(path)
            self._index.remove_leftover(path)
        for path in self._layout.spool.iterdir():
            remove_quietly(path)
        expected = {self._layout.content_path(task.id): task for task in self.tasks()}
        for path in self._layout.content_files():
            if path not in expected:
                remove_quietly(path)
        for task in expected.values():
            if not self._has_content(task):
                self._forget_lost(task)

    def _has_content(self, task: TaskRecord) -> bool:
        try:
            found = self._layout.content_path(task.id).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == task.content_length

    def _forget_lost(self, task: TaskRecord) -> bool:
        """Forget a task without its content; False if it is just being written or removed."""
        try:
            with self._structure:
                if self._has_content(task) or not self.delete(task.id):
                    return False
        except ConflictError:
            return False
        _log.warning("the content of a stored task is gone or has another length; it is forgotten", task_id=task.id)
        return True

    def _insert(self, new: NewTask, path: Path, pieces: Iterable[PieceRecord]) -> TaskRecord:
        now = self._clock()
        record = TaskRecord(
            id=new.id,
            url=redacted(new.url),
            content_length=new.content_length,
            piece_length=new.piece_length,
            response_header=Headers({key: value for key, value in new.response_header.items() if not is_secret_header(key)}),
            digest=new.digest,
            created_at=now,
            updated_at=now,
            used_at=now,
        )
        try:
            return self._index.insert(record, pieces)
        except BaseException:
            remove_quietly(path)
            raise

    def _mtime_ns(self, task_id: str) -> int | None:
        try:
            return self._layout.content_path(task_id).stat().st_mtime_ns
        except OSError:
            return None

    def _is_verified(self, task_id: str, number: int) -> bool:
        with self._index.lock:
            task = self._index.find(task_id)
            if task is None:
                return False
            self._index.use(task_id)
            live = self._index.live(task_id)
            if task.finished_at is not None and (now_ns := self._mtime_ns(task_id)) != live.mtime_ns:
                live.mtime_ns, live.verified = now_ns, 0
            return bool(live.verified >> number & 1)

    def _detach(self, task_id: str, path: Path) -> None:
        """Before bytes are written: an output that shares the file (by hard link) is a person's now and must not change with it."""
        with self._structure:
            live = self._index.live(task_id)
            try:
                shared = path.stat().st_nlink > 1
            except OSError:
                return
            if not shared or live.writers or not self._index.missing(task_id):
                return
            self._with_eviction(0, lambda: clone(path, self._layout.spool / f"{task_id}.{secrets.token_hex(8)}"))
            live.verified = 0

    def _make_room(self, needed_bytes: int) -> None:
        """Keep within the quota, or raise StorageFullError."""
        quota = self._limits.quota_bytes
        if not quota:
            return
        if needed_bytes <= quota:
            self._free(self.used_bytes() + needed_bytes - quota, self._clock())
        used = self.used_bytes()
        if used + needed_bytes > quota:
            message = f"{needed_bytes} bytes do not fit: the storage quota is {quota} bytes, {used} are in use; raise storage.quota"
            raise StorageFullError(message)

    def _with_eviction(self, needed_bytes: int, make: Callable[[], None]) -> None:
        """Do `make`; if the disk is full, remove the oldest tasks and try once more."""
        try:
            make()
        except StorageFullError:
            if not self._free(needed_bytes, self._clock(), on_disk=True):
                raise
            make()

    def _free(self, needed_bytes: int, now: float, *, on_disk: bool = False) -> list[str]:
        """Remove the oldest tasks. `on_disk`: only those whose removal frees blocks, not files that an output shares."""
        tasks = self.tasks()
        if on_disk:
            tasks = [task for task in tasks if not self._is_shared(task.id)]
        return self._remove(policy.to_free(tasks, self._index.pinned(), needed_bytes, now))

    def _is_shared(self, task_id: str) -> bool:
        try:
            return self._layout.content_path(task_id).stat().st_nlink > 1
        except OSError:
            return False

    def _remove(self, task_ids: list[str]) -> list[str]:
        gone = []
        for task_id in task_ids:
            try:
                self.delete(task_id)
            except ConflictError:
                continue  # somebody has begun to write it since it was chosen
            _log.info("a stored task was evicted", task_id=task_id)
            gone.append(task_id)
            self.on_evicted(task_id)
        return gone


def _check_lengths(new: NewTask) -> None:
    if new.content_length < 0 or new.piece_length <= 0:
        message = f"a content of {new.content_length} bytes in pieces of {new.piece_length} cannot be stored"
        raise InvalidInputError(message, field="content_length")
