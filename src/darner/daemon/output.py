"""Puts a finished download where a local caller wants it. The store links or copies the whole; a range is copied here.

Refuses an output that exists unless told to overwrite it; leaves no half-written file.
"""

import contextlib
import os
import secrets
from pathlib import Path

from darner.core.errors import ConflictError, InvalidInputError
from darner.core.ranges import ByteRange
from darner.core.task import Download
from darner.store import Store

COPY_BYTES = 64 * 1024 * 1024
OUTPUT_MODE = 0o644
MAX_NAME_BYTES = 220
"""File systems take 255; a temporary file's name is longer than the output's."""


def output_path(download: Download) -> Path | None:
    """Where the download goes. Raises InvalidInputError for a path that is not absolute."""
    if not download.output_path:
        return None
    path = Path(download.output_path)
    if not path.is_absolute():
        raise InvalidInputError(f"output path {download.output_path!r} is not absolute", field="output_path")
    if "\0" in download.output_path or len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        message = f"an output's name has at most {MAX_NAME_BYTES} bytes and no NUL among them"
        raise InvalidInputError(message, field="output_path")
    return path


def check_output(download: Download) -> None:
    """Refuse early what would fail in the end. Raises InvalidInputError, ConflictError."""
    path = output_path(download)
    if path is None:
        return
    try:
        _check_place(path, overwrite=download.overwrite)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}", field="output_path") from error


def _check_place(path: Path, *, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise InvalidInputError(f"the directory {path.parent} of the output does not exist", field="output_path")
    if path.is_dir():
        raise InvalidInputError(f"the output {path} is a directory", field="output_path")
    if path.exists() and not path.is_file():
        raise InvalidInputError(f"the output {path} is a device, socket or pipe, which is not replaced", field="output_path")
    if path.exists() and not overwrite:
        raise ConflictError(f"the output {path} exists already; ask to overwrite it, or choose another path", field="output_path")


def put(store: Store, task_id: str, download: Download, wanted: ByteRange | None) -> None:
    """Blocking: make the output. Raises ConflictError, InvalidInputError, StorageFullError."""
    path = output_path(download)
    if path is None:
        return
    if wanted is None:
        store.export(task_id, path, overwrite=download.overwrite, force_hard_link=download.force_hard_link)
        return
    with store.open_file(task_id) as file:
        copy_range(file.fd, wanted, path, overwrite=download.overwrite)


def copy_range(fd: int, wanted: ByteRange, path: Path, *, overwrite: bool) -> None:
    """Copy a part of an open file to a new file of its own. Raises ConflictError if it exists."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OUTPUT_MODE)
    try:
        at = wanted.start
        while at < wanted.end:
            count = os.sendfile(target, fd, at, min(COPY_BYTES, wanted.end - at))
            if not count:
                raise ConflictError(f"the stored file ends at {at}, before {wanted.end}")
            at += count
        os.fsync(target)
        if overwrite:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    except FileExistsError as error:
        raise ConflictError(f"the output {path} exists already", field="output_path") from error
    finally:
        os.close(target)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
