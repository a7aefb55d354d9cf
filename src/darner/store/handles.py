"""Open files of the store: content of a task, and a spool for content whose length is not known yet."""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from darner.core.errors import StorageFullError
from darner.store.files import full_disk_errors


class TaskFile:
    """An open content file; while it is open its task is not evicted. `with` or `close()` ends that. Use positional I/O on `fd`."""

    def __init__(self, fd: int, path: Path, released: Callable[[], None]) -> None:
        """Own `fd`; `released` is called once at close."""
        self.fd = fd
        self.path = path
        self._released: Callable[[], None] | None = released

    def close(self) -> None:
        """Close the descriptor; again does nothing."""
        released, self._released = self._released, None
        if released is not None:
            os.close(self.fd)
            self.fd = -1
            released()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class SpoolFile:
    """A temporary file that grows as content arrives. `Store.adopt_spool` makes it a task; otherwise closing removes it."""

    def __init__(self, fd: int, path: Path, room_bytes: int | None) -> None:
        """Own `fd`; `room_bytes` is what the quota leaves, None for no limit."""
        self.fd = fd
        self.path = path
        self.size = 0
        self._room_bytes = room_bytes

    def write(self, data: memoryview | bytes) -> None:
        """Append. Raises StorageFullError when the quota or the disk is full."""
        if self._room_bytes is not None and self.size + len(data) > self._room_bytes:
            raise StorageFullError(f"content of unknown length reached the {self._room_bytes} bytes that the storage quota leaves")
        view = memoryview(data)
        with full_disk_errors(f"spooled content after {self.size} bytes"):
            while view:
                count = os.pwrite(self.fd, view, self.size)
                self.size += count
                view = view[count:]

    def close(self) -> None:
        """Close and remove; after adoption, or again, it does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.path.unlink(missing_ok=True)

    def adopted(self) -> None:
        """The file now lies elsewhere: close the descriptor and leave it there."""
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
