"""Jobs as lines of JSON in files, for whatever follows files. Acknowledged when they are on the disk."""

import errno
import os
from collections.abc import Sequence
from functools import partial

from darner.retention.export.config import SinkConfig
from darner.retention.export.ports import Limits, SinkAwayError
from darner.retention.export.sinks.files import FileRules, RotatingFile
from darner.retention.export.sinks.thread import OneThread
from darner.retention.export.values import Document


class NdjsonSink:
    """Writes in a thread: a disk may take its time."""

    def __init__(self, config: SinkConfig, limits: Limits) -> None:
        """Of a configuration that was checked."""
        if config.dir is None:
            raise ValueError("a sink of files has a directory")
        self._limits = limits
        self._thread = OneThread(config.name)
        self._file = RotatingFile(
            FileRules(
                directory=config.dir,
                name=config.name,
                max_bytes=config.max_file_bytes,
                max_files=config.max_files,
                max_age_s=config.max_age_s,
                min_free_bytes=config.min_free_bytes,
                mode=int(config.mode, 8),
            )
        )

    @property
    def limits(self) -> Limits:
        """As configured."""
        return self._limits

    async def deliver(self, batch: Sequence[Document]) -> None:
        """Append and sync."""
        await self._thread.run(partial(self._append, [one.body + b"\n" for one in batch]))

    async def close(self) -> None:
        """After a write that is under way."""
        await self._thread.close(self._file.close)

    def _append(self, lines: list[bytes]) -> None:
        try:
            self._file.append(lines)
        except OSError as error:
            self._file.close()
            raise SinkAwayError(_told(error, str(self._file.path))) from error


def _told(error: OSError, path: str) -> str:
    reason = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return f"{path}: there is no room ({reason}); free some, or have files removed (maxFiles, maxAge)."
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{path}: {reason}; the manager (user {os.geteuid()}) must be allowed to write there."
    return f"{path}: {reason}."
