"""Files of the archive in a directory or an object store. A file is complete or not there, and is never overwritten."""

import contextlib
import importlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError, StorageFullError, UnavailableError
from darner.retention.archive.config import ArchiveConfig

_FULL = {28, 122}  # ENOSPC, EDQUOT
TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file in the store: its name relative to the root, bytes, unix ms of its last change."""

    name: str
    bytes: int
    changed_ms: int


class Storage(Protocol):
    """Every method blocks; call it in a thread. Raises UnavailableError when the store does not answer."""

    def put(self, name: str, file: Path) -> None:
        """Store a finished local file under a new name, durably. ConflictError if the name is taken."""

    def local(self, name: str) -> Path:
        """The file on this machine, fetched if need be. NotFoundError."""

    def delete(self, name: str) -> None:
        """Remove it; that it is gone already is no error."""

    def names(self) -> Iterator[Stored]:
        """All files, unfinished ones too."""

    def scratch(self) -> Path:
        """A directory for files that are not finished, on a disk that has room for them."""


def open_storage(config: ArchiveConfig) -> Storage:
    """The storage that a configuration names. InvalidInputError for an address that cannot be used."""
    scheme, separator, rest = config.url.partition("://")
    if not separator or scheme == "file":
        return DirectoryStorage(Path(rest if separator else config.url))
    if scheme not in {"s3", "gs", "az"}:
        raise InvalidInputError(f"{scheme} is no kind of archive; use a directory, s3, gs or az.", field="retention.archive.url")
    return ObjectStorage(config)


class DirectoryStorage:
    """A directory, its files with mode 0600."""

    def __init__(self, root: Path) -> None:
        """The directory is made when the first file comes."""
        self._root = root

    def put(self, name: str, file: Path) -> None:
        """Link it to its name, which fails if there is one, and make the directory's change durable."""
        target = self._root / name
        with _told(self._root):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            try:
                os.link(file, target)
            except FileExistsError as error:
                raise ConflictError(f"The archive has a file {name} already.") from error
            _sync_directory(target.parent)

    def local(self, name: str) -> Path:
        """The file itself."""
        target = self._root / name
        if not target.is_file():
            raise NotFoundError(f"The archive has no file {name} in {self._root}.")
        return target

    def delete(self, name: str) -> None:
        """Remove it."""
        with _told(self._root):
            (self._root / name).unlink(missing_ok=True)

    def names(self) -> Iterator[Stored]:
        """All files below the directory."""
        with _told(self._root):
            for file in sorted(self._root.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    status = file.stat()
                    if file.is_file():
                        name = str(file.relative_to(self._root))
                        yield Stored(name=name, bytes=status.st_size, changed_ms=int(status.st_mtime * 1000))

    def scratch(self) -> Path:
        """Beside the files, so that finishing one is a link."""
        path = self._root / TEMPORARY
        with _told(self._root):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


class ObjectStorage:
    """A bucket, read through a bounded directory of copies."""

    def __init__(self, config: ArchiveConfig) -> None:
        """Nothing is dialled yet. Credentials come from the environment, as obstore reads them."""
        self._config = config
        self._lock = threading.Lock()
        self._cache = (config.cache_dir or Path(tempfile.gettempdir())) / "darner-archive"
        try:
            stores = importlib.import_module("obstore.store")
            self._obstore: Any = importlib.import_module("obstore")
        except ModuleNotFoundError as error:
            raise InvalidInputError(
                "An archive in an object store needs `pip install darner[archive]`.", field="retention.archive.url"
            ) from error
        self._store: Any = stores.from_url(config.url, client_options={"allow_http": _plain_endpoint()})

    def put(self, name: str, file: Path) -> None:
        """Upload it, only if there is none."""
        try:
            self._obstore.put(self._store, name, file, mode="create", use_multipart=False)
        except Exception as error:
            if type(error).__name__ == "AlreadyExistsError":
                raise ConflictError(f"The archive has a file {name} already.") from error
            raise self._away(error) from error

    def local(self, name: str) -> Path:
        """The copy, fetched if it is not there."""
        target = self._cache / name.replace("/", "_")
        with self._lock:
            if target.is_file():
                os.utime(target)
                return target
            self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            fetched = target.with_suffix(f"{TEMPORARY}{os.getpid()}")
            try:
                with fetched.open("wb") as stream:
                    for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=1 << 20):
                        stream.write(chunk)
                fetched.replace(target)
            except Exception as error:
                fetched.unlink(missing_ok=True)
                if type(error).__name__ in {"NotFoundError", "FileNotFoundError"}:
                    raise NotFoundError(f"The archive has no file {name} in {self._config.url}.") from error
                raise self._away(error) from error
            self._make_room(keep=target)
        return target

    def delete(self, name: str) -> None:
        """Remove it and its copy."""
        (self._cache / name.replace("/", "_")).unlink(missing_ok=True)
        try:
            self._obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._away(error) from error

    def names(self) -> Iterator[Stored]:
        """All objects."""
        try:
            for page in self._obstore.list(self._store):
                for one in page:
                    yield Stored(name=one["path"], bytes=one["size"], changed_ms=int(one["last_modified"].timestamp() * 1000))
        except Exception as error:
            raise self._away(error) from error

    def scratch(self) -> Path:
        """Beside the copies."""
        path = self._cache / TEMPORARY
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def _make_room(self, *, keep: Path) -> None:
        files = sorted(
            (file for file in self._cache.iterdir() if file.is_file() and file != keep), key=lambda file: file.stat().st_mtime
        )
        used = sum(file.stat().st_size for file in files) + keep.stat().st_size
        for file in files:
            if used <= self._config.cache_size:
                return
            used -= file.stat().st_size
            file.unlink(missing_ok=True)

    def _away(self, error: Exception) -> UnavailableError:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        return UnavailableError(f"The archive {self._config.url} does not answer: {reason}. Nothing is lost; it is tried again.")


@contextlib.contextmanager
def _told(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(f"The disk of the archive {root} is full; jobs wait until it has room.") from error
        raise UnavailableError(f"The archive {root} cannot be used: {error.strerror or error}; jobs wait until it can.") from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain_endpoint() -> bool:
    return os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://")


def empty_scratch(path: Path) -> None:
    """Drop what a former process left unfinished."""
    shutil.rmtree(path, ignore_errors=True)
