"""A stored file to the place where a person wants it: a hard link where that works, else a copy; whole or not at all.

The output appears by one rename or link. A symbolic link at the output is itself replaced, never followed (daemon.md, sections 6.6
and 15.1: overwrite rules).
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from darner.core.errors import ConflictError, InvalidInputError
from darner.store.files import CONTENT_MODE, copy_bytes, full_disk_errors, remove_quietly

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".darner-", ".tmp"
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Leftovers(Protocol):
    """Where names of temporary files outside our directory are kept, so that a restart can remove them."""

    def add_leftover(self, path: Path) -> None:
        """The file is about to be made."""

    def remove_leftover(self, path: Path) -> None:
        """The file is gone or renamed."""


def export_file(source: Path, output: Path, *, overwrite: bool, force_hard_link: bool, leftovers: Leftovers) -> None:
    """Link or copy `source` to `output`. Raises ConflictError, InvalidInputError, StorageFullError."""
    _check_output(output)
    try:
        there = output.lstat()
    except FileNotFoundError:
        there = None
    if there is not None:
        if os.path.samestat(there, source.lstat()):
            return
        if not overwrite:
            raise _exists(output)
    if not _link(source, output, overwrite=overwrite, leftovers=leftovers, must=force_hard_link):
        _copy(source, output, overwrite=overwrite, leftovers=leftovers)


def is_temporary(path: Path) -> bool:
    """Whether a name is one that this module makes."""
    return path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(TEMPORARY_SUFFIX)


def _check_output(output: Path) -> None:
    if not output.is_absolute():
        raise InvalidInputError(f"output path {output} is not absolute", field="output_path")
    if output.is_dir() and not output.is_symlink():
        raise InvalidInputError(f"output path {output} is a directory; give a file name in it", field="output_path")
    if not output.parent.is_dir():
        raise InvalidInputError(f"directory {output.parent} of the output does not exist; create it first", field="output_path")


def _exists(output: Path) -> ConflictError:
    return ConflictError(f"output {output} exists already; allow overwriting it or choose another name", field="output_path")


def _link(source: Path, output: Path, *, overwrite: bool, leftovers: Leftovers, must: bool) -> bool:
    try:
        if overwrite:
            with _temporary(output, leftovers) as temporary:
                os.link(source, temporary)
                temporary.replace(output)
        else:
            os.link(source, output)
    except FileExistsError as error:
        raise _exists(output) from error
    except OSError as error:
        if must or error.errno not in _NO_LINK:
            reason = os.strerror(error.errno or 0)
            raise ConflictError(f"{output} cannot be a hard link to the stored file: {reason}", field="output_path") from error
        return False
    return True


def _copy(source: Path, output: Path, *, overwrite: bool, leftovers: Leftovers) -> None:
    with _temporary(output, leftovers) as temporary:
        try:
            with full_disk_errors(f"output {output}"):
                _write_copy(source, temporary)
        except PermissionError as error:
            raise InvalidInputError(f"directory {output.parent} of the output is not writable", field="output_path") from error
        if overwrite:
            temporary.replace(output)
            return
        try:
            os.link(temporary, output)
        except FileExistsError as error:
            raise _exists(output) from error
        except OSError:
            # No hard links here at all: the check before the rename leaves a gap, but a half output never shows.
            if os.path.lexists(output):
                raise _exists(output) from None
            temporary.replace(output)


def _write_copy(source: Path, temporary: Path) -> None:
    source_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target_fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, CONTENT_MODE)
        try:
            copy_bytes(source_fd, target_fd, os.fstat(source_fd).st_size)
            os.fsync(target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


@contextmanager
def _temporary(output: Path, leftovers: Leftovers) -> Iterator[Path]:
    path = output.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    leftovers.add_leftover(path)
    try:
        yield path
    finally:
        remove_quietly(path)
        if not os.path.lexists(path):
            with contextlib.suppress(Exception):
                leftovers.remove_leftover(path)
