"""Files of the archive in an object store (S3, Google Cloud Storage, Azure), read through a bounded directory of copies."""

import contextlib
import hashlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from darner.core.errors import ConflictError, DarnerError, InvalidInputError, NotFoundError, StorageFullError, UnavailableError
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.segment import LibraryMissingError, file_digest, library
from darner.retention.archive.storage import (
    MARK,
    TEMPORARY,
    DirectoryStorage,
    Storage,
    Stored,
    Wanted,
    check_mark,
    mark_of,
    told,
)

_SCHEMES = frozenset({"s3", "gs", "az"})
_CHUNK = 1 << 20
# How long one request may take: with a file's bytes in it, and others; and until a store that does not answer is given up.
_TRANSFER, _ANSWER = "600s", "20s"
_RETRIES: dict[str, Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=40)}


def open_storage(config: ArchiveConfig) -> Storage:
    """The storage that a configuration names. InvalidInputError for an address that cannot be used."""
    scheme, separator, rest = config.url.partition("://")
    if not separator or scheme == "file":
        return DirectoryStorage(Path(rest if separator else config.url))
    if scheme not in _SCHEMES:
        raise InvalidInputError(f"{scheme} is no kind of archive; use a directory, s3, gs or az.", field="retention.archive.url")
    return ObjectStorage(config)


class ObjectStorage:
    """A bucket, or a prefix in one. Credentials and endpoints come from the environment, as obstore reads them."""

    def __init__(self, config: ArchiveConfig, **options: Any) -> None:  # noqa: ANN401  (obstore's)
        """Nothing is dialled yet. `options` go to obstore beside those of the environment."""
        self._url = config.url
        self._limit = config.cache_size
        self._cache = config.cache_dir or Path(tempfile.gettempdir()) / f"darner-archive-{os.getuid()}"
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}
        self._pinned: Counter[str] = Counter()
        self._options = options
        self._opened: tuple[Any, Any] | None = None

    def _stores(self) -> tuple[Any, Any]:
        """The bucket for quick questions, and for whole files. UnavailableError without the extra, or for a useless address."""
        with self._lock:
            if self._opened is None:
                stores = library("obstore.store")
                plain = {"allow_http": _plain_endpoint(self._options), "connect_timeout": "5s"}
                try:
                    self._opened = (
                        stores.from_url(
                            self._url, client_options={**plain, "timeout": _ANSWER}, retry_config=_RETRIES, **self._options
                        ),
                        stores.from_url(
                            self._url, client_options={**plain, "timeout": _TRANSFER}, retry_config=_RETRIES, **self._options
                        ),
                    )
                except Exception as error:
                    raise self._away(error) from error
            return self._opened

    @property
    def _quick(self) -> Any:  # noqa: ANN401  (obstore's)
        return self._stores()[0]

    @property
    def _store(self) -> Any:  # noqa: ANN401  (obstore's)
        return self._stores()[1]

    @property
    def _obstore(self) -> Any:  # noqa: ANN401  (obstore's)
        return library("obstore")

    @property
    def root(self) -> Path:
        """The directory of copies."""
        return self._cache.resolve()

    def claim(self, owner: str, *, fresh: bool) -> None:
        """Read the mark, or write it."""
        found = self._mark()
        if found is None and fresh:
            try:
                self._obstore.put(self._quick, MARK, mark_of(owner), mode="create", use_multipart=False)
            except Exception as error:
                if not _is(error, "AlreadyExistsError"):
                    raise self._away(error) from error
            found = self._mark()
        check_mark(found, owner, self._url)

    def _mark(self) -> bytes | None:
        try:
            return bytes(self._obstore.get(self._quick, MARK).bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._away(error) from error

    def put(self, name: str, file: Path) -> None:
        """Upload it, only if there is none, and read it back: the jobs in it are about to leave the database."""
        try:
            self._obstore.put(self._store, name, file, mode="create", use_multipart=False)
        except Exception as error:
            # An upload whose answer was lost is tried again by the client, and then is there already.
            if not _is(error, "AlreadyExistsError"):
                raise self._away(error) from error
        digest = file_digest(file)
        (self._cache / _key(name)).unlink(missing_ok=True)
        try:
            with self.reading([(name, digest)]):
                return
        except DarnerError as error:
            if isinstance(error, UnavailableError | StorageFullError | LibraryMissingError):
                raise
            raise ConflictError(f"The archive has a file {name} already, or did not keep it as it was sent.") from error

    @contextlib.contextmanager
    def reading(self, files: Sequence[Wanted]) -> Iterator[list[Path]]:
        """Copies, fetched if they are not there; they are not thrown out while they are read."""
        keys = [_key(name) for name, _ in files]
        with self._lock:
            self._pinned.update(keys)
        try:
            yield [self._copy(name, digest).resolve() for name, digest in files]
        finally:
            with self._lock:
                self._pinned.subtract(keys)
            self._make_room()

    def _copy(self, name: str, digest: str) -> Path:
        target = self._cache / _key(name)
        with self._lock:
            turn = self._fetching.setdefault(name, threading.Lock())
        with turn, told(self._cache):
            if target.is_file():
                os.utime(target)
            else:
                self._fetch(name, target, digest)
        with self._lock:
            self._fetching.pop(name, None)
        return target

    def _fetch(self, name: str, target: Path, digest: str) -> None:
        self._private()
        with tempfile.NamedTemporaryFile(dir=self._cache, suffix=TEMPORARY, delete=False) as made:
            fetched, hashed = Path(made.name), hashlib.sha256()
            try:
                for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=_CHUNK):
                    made.write(chunk)
                    hashed.update(chunk)
                made.flush()
                if digest and hashed.hexdigest() != digest:
                    raise DarnerError(f"The archive's file {name} in {self._url} is damaged: it is not what was written.")
                fetched.replace(target)
            except FileNotFoundError as error:
                raise NotFoundError(f"The archive's file {name} is missing in {self._url}.") from error
            except (DarnerError, OSError):
                raise
            except Exception as error:
                raise self._away(error) from error
            finally:
                fetched.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Remove it and its copy."""
        (self._cache / _key(name)).unlink(missing_ok=True)
        try:
            self._obstore.delete(self._quick, name)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._away(error) from error

    def names(self) -> Iterator[Stored]:
        """All objects."""
        try:
            for page in self._obstore.list(self._quick):
                for one in page:
                    if one["path"] != MARK:
                        changed_ms = int(one["last_modified"].timestamp() * 1000)
                        yield Stored(name=one["path"], bytes=one["size"], changed_ms=changed_ms)
        except Exception as error:
            raise self._away(error) from error

    def scratch(self) -> Path:
        """Beside the copies."""
        path = self._cache / TEMPORARY
        with told(self._cache):
            self._private()
            path.mkdir(exist_ok=True, mode=0o700)
        return path

    def keep_only(self, names: set[str]) -> None:
        """Drop copies of what is gone."""
        keys = {_key(name) for name in names}
        for file in self._copies():
            if file.name not in keys and file.suffix != TEMPORARY:
                file.unlink(missing_ok=True)

    def _copies(self) -> list[Path]:
        with told(self._cache):
            return [file for file in self._cache.iterdir() if file.is_file()] if self._cache.is_dir() else []

    def _private(self) -> None:
        """What is read from there is shown to people, so nobody else may write there."""
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._cache.stat().st_uid != os.getuid():
            raise UnavailableError(f"The directory {self._cache} belongs to somebody else; name another for copies of the archive.")

    def _make_room(self) -> None:
        with self._lock, contextlib.suppress(FileNotFoundError):
            ranked = sorted(((one.stat(), one) for one in self._copies()), key=lambda found: found[0].st_mtime)
            used = sum(status.st_size for status, _ in ranked)
            for status, file in ranked:
                if used <= self._limit:
                    return
                if not self._pinned[file.name] and file.suffix != TEMPORARY:
                    used -= status.st_size
                    file.unlink(missing_ok=True)

    def _away(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"The archive {self._url} does not answer: {_first_line(error)} Nothing is lost; it is tried again."
        )


def _key(name: str) -> str:
    """A name for the copy. The names of segments are unlike in their last part alone."""
    return name.replace("/", "_")


def _is(error: Exception, name: str) -> bool:
    return type(error).__name__ == name


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0][:200].rstrip('.')}." if lines else f"{type(error).__name__}."


def _plain_endpoint(options: dict[str, Any]) -> bool:
    named = (options.get("endpoint"), os.environ.get("AWS_ENDPOINT_URL"), os.environ.get("AWS_ENDPOINT"))
    return any(str(one or "").startswith("http://") for one in named)
