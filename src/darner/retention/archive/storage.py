"""Files of the archive, in a directory; `objects` has the same for object stores. A file is complete or not there.

Names are relative to the archive's root and never used twice. A mark in the root says which database the archive belongs to, so
that a directory that is not mounted, or a wrong bucket, is not taken for an archive that lost its files.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from darner.core.errors import ConflictError, NotFoundError, StorageFullError, UnavailableError

FULL = {27, 28, 122}  # EFBIG, ENOSPC, EDQUOT
TEMPORARY = ".tmp"
MARK = "darner-archive.json"
_PRIVATE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file in the store: its name relative to the root, bytes, unix ms of its last change."""

    name: str
    bytes: int
    changed_ms: int


# A file to read: its name, and the SHA-256 that the catalogue knows (empty: unknown).
Wanted = tuple[str, str]


class Storage(Protocol):
    """Every method blocks; call it in a thread. Raises UnavailableError when the store does not answer."""

    @property
    def root(self) -> Path:
        """The only directory from which files are read on this machine."""

    def claim(self, owner: str, *, fresh: bool) -> None:
        """Make sure that this is the archive of a database; `fresh`: it may be a new one, which is marked then.

        UnavailableError when there is no mark, or that of another database.
        """

    def put(self, name: str, file: Path) -> None:
        """Store a finished local file under a new name, durably, and make sure of it. ConflictError if the name is taken."""

    def reading(self, files: Sequence[Wanted]) -> contextlib.AbstractContextManager[list[Path]]:
        """Files on this machine, fetched if need be, which stay there until the context ends. NotFoundError."""

    def delete(self, name: str) -> None:
        """Remove it; that it is gone already is no error."""

    def names(self) -> Iterator[Stored]:
        """All files, unfinished ones too, but not the mark."""

    def scratch(self) -> Path:
        """A directory for files that are not finished, on a disk that has room for them."""

    def keep_only(self, names: set[str]) -> None:
        """Drop copies on this machine of files that the catalogue does not know any more."""


class DirectoryStorage:
    """A directory, its files with mode 0600. It may be a shared file system, which all managers must have mounted then."""

    def __init__(self, root: Path) -> None:
        """The directory is made when the first file comes."""
        self._root = root.absolute()

    @property
    def root(self) -> Path:
        """The directory."""
        return self._root.resolve()

    def claim(self, owner: str, *, fresh: bool) -> None:
        """Read the mark, or write it."""
        file = self._root / MARK
        with told(self._root):
            if not file.is_file() and fresh:
                self._root.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
                self._write_mark(file, owner)
            check_mark(file.read_bytes() if file.is_file() else None, owner, str(self._root))

    def _write_mark(self, file: Path, owner: str) -> None:
        made = self._root / f"{MARK}{TEMPORARY}"
        made.write_bytes(mark_of(owner))
        sync(made)
        with contextlib.suppress(FileExistsError):
            os.link(made, file)
        made.unlink(missing_ok=True)
        sync(self._root)

    def put(self, name: str, file: Path) -> None:
        """Link it to its name, which fails if there is one, and make that durable, new directories too."""
        target = self._root / name
        with told(self._root):
            target.parent.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
            sync(file)
            try:
                os.link(file, target)
            except FileExistsError as error:
                raise ConflictError(f"The archive has a file {name} already.") from error
            for parent in target.parents:
                sync(parent)
                if parent == self._root:
                    break

    @contextlib.contextmanager
    def reading(self, files: Sequence[Wanted]) -> Iterator[list[Path]]:
        """The files themselves."""
        found = [self._root / name for name, _ in files]
        for path in found:
            if not path.is_file():
                raise NotFoundError(f"The archive's file {path} is missing.")
        yield [path.resolve() for path in found]

    def delete(self, name: str) -> None:
        """Remove it."""
        with told(self._root):
            (self._root / name).unlink(missing_ok=True)

    def names(self) -> Iterator[Stored]:
        """All files below the directory."""
        with told(self._root):
            for file in sorted(self._root.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    status = file.stat()
                    name = str(file.relative_to(self._root))
                    if file.is_file() and name != MARK:
                        yield Stored(name=name, bytes=status.st_size, changed_ms=int(status.st_mtime * 1000))

    def scratch(self) -> Path:
        """Beside the files, so that finishing one is a link."""
        path = self._root / TEMPORARY
        with told(self._root):
            path.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        return path

    def keep_only(self, names: set[str]) -> None:
        """There are no copies."""


def mark_of(owner: str) -> bytes:
    """What the mark says."""
    return json.dumps({"database": owner, "about": "Archived jobs of Darner; the catalogue is in the database."}).encode()


def check_mark(mark: bytes | None, owner: str, where: str) -> None:
    """UnavailableError unless the mark is this database's."""
    if mark is None:
        raise UnavailableError(
            f"The archive {where} does not have the mark that this database's archive has. Is the file system mounted, and the "
            "address right? Jobs wait until it is there."
        )
    try:
        found: Any = json.loads(mark)["database"]
    except (ValueError, KeyError, TypeError):
        found = None
    if found != owner:
        raise UnavailableError(
            f"The archive {where} belongs to another database ({found}), not to this one ({owner}). Give each its own directory or "
            f"prefix; if this database took that one's place, write {owner} into {MARK}."
        )


@contextlib.contextmanager
def told(root: Path) -> Iterator[None]:
    """A failing disk is told as one."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError(f"The disk of the archive {root} is full; jobs wait until it has room.") from error
        raise UnavailableError(f"The archive {root} cannot be used: {error.strerror or error}; jobs wait until it can.") from error


def sync(path: Path) -> None:
    """Make a file, or the entries of a directory, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
