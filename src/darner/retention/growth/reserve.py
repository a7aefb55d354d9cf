"""A file that only holds room, given up when the disk is full, so that what frees room can still be written.

Deletes need a log before they free anything; on a full disk they cannot even begin (spec/retention.md, 5.7). So some room is kept
back while there is plenty, and made again when there is. It must be larger than what SQLite's log may hold before the file has to
grow (1,000 pages of 16 KiB), or the log could never be emptied. Managers that share a data directory share the file.
"""

import contextlib
import os
from pathlib import Path

from darner.kit.log import get_logger

_log = get_logger("retention")
NAME = "reserve.bin"
# It is only made where it is a small part of what is free.
_ROOM_FACTOR = 4


class Reserve:
    """The file in a data directory. `release` may be called from any thread."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        """Nothing is made yet."""
        self.file = directory / NAME
        self.size_bytes = size_bytes

    @property
    def held(self) -> int:
        """Bytes that it holds back now."""
        try:
            return self.file.stat().st_blocks * 512
        except OSError:
            return 0

    def keep(self, free: int) -> bool:
        """Make it if it is not there and there is room to spare; whether it was made."""
        if self.size_bytes <= 0 or free < self.size_bytes * _ROOM_FACTOR or self.file.exists():
            return False
        passing = self.file.with_name(f"{NAME}.{os.getpid()}")
        try:
            handle = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self.size_bytes)  # a sparse file would hold nothing
            finally:
                os.close(handle)
            passing.replace(self.file)
        except OSError as error:
            passing.unlink(missing_ok=True)
            _log.info("no room could be reserved", file=str(self.file), reason=error.strerror)
            return False
        return True

    def release(self) -> bool:
        """Give the room up; whether there was any."""
        with contextlib.suppress(OSError):
            self.file.unlink()
            _log.warning("the disk is full: the reserved room was given up", file=str(self.file), bytes=self.size_bytes)
            return True
        return False
