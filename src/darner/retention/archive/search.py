"""Finds archived jobs: the catalogue rules segments out, DuckDB reads what is left (spec/retention.md, 2, fact 8).

One database in memory, with bounded threads and memory, that may read the archive's files and nothing else: no network, no
extensions, no other directory. Whatever a person looks for is a bound parameter.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darner.core.errors import DarnerError, TimedOutError
from darner.history.record import JobRecord, RecordQuery
from darner.retention.archive.catalog import Segment
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.segment import NAMES, library, record_of

Files = Sequence[tuple[int, Path]]
_KEY = "id, created_at"
_SHOWN = ", ".join(NAMES)
# Columns of the log that a search for text looks at, as in the database.
_TEXTS = ("summary", "error", "bio")
_GIVEN_UP = "The search in the archive was given up."


class Stop:
    """Tells a search in a thread that nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._call: Callable[[], None] | None = None
        self._stopped = False

    def now(self) -> None:
        """End the search, or the next one at its begin."""
        with self._lock:
            self._stopped = True
            if self._call is not None:
                self._call()

    @contextmanager
    def calls(self, call: Callable[[], None]) -> Iterator[None]:
        """`call` ends what is done meanwhile."""
        with self._lock:
            if self._stopped:
                raise TimedOutError(_GIVEN_UP)
            self._call = call
        try:
            yield
        finally:
            with self._lock:
                self._call = None


class Search:
    """Asks segments. Every method blocks; call it in a thread. Several may run at a time."""

    def __init__(self, config: ArchiveConfig, roots: Sequence[Path]) -> None:
        """`roots`: the only directories that may be read."""
        self._config = config
        self._roots = [str(root) for root in roots]
        self._lock = threading.Lock()
        self._main: Any = None

    def close(self) -> None:
        """Let go of its memory."""
        with self._lock:
            if self._main is not None:
                self._main.close()
                self._main = None

    def some(self, files: Files, ids: Sequence[int], stop: Stop) -> list[tuple[int, JobRecord]]:
        """(segment, record) of jobs, in each of the segments that has them."""
        where = "id = ?" if len(ids) == 1 else "list_contains(?, id)"
        value = ids[0] if len(ids) == 1 else list(ids)
        return self._ask(files, where, [value], stop, limit=len(files) * len(ids))

    def page(self, files: Files, query: RecordQuery, limit: int, stop: Stop, *, keys: bool = False) -> list[tuple[int, JobRecord]]:
        """(segment, record) of the newest jobs that fit, in the order of lists. `keys`: only id and created_at of each."""
        terms, values = conditions(query)
        return self._ask(files, " AND ".join(terms) or "true", values, stop, limit=limit, keys=keys)

    def _ask(
        self, files: Files, where: str, values: Sequence[Any], stop: Stop, *, limit: int, keys: bool = False
    ) -> list[tuple[int, JobRecord]]:
        if not files:
            return []
        names = {str(path): number for number, path in files}
        statement = (
            f"SELECT {_KEY if keys else _SHOWN}, filename FROM read_parquet(?, filename = true) WHERE {where} "  # noqa: S608  (our own columns and terms)
            "ORDER BY created_at DESC, id DESC LIMIT ?"
        )
        duck = library("duckdb")
        cursor = self._cursor()
        try:
            with stop.calls(cursor.interrupt):
                rows = cursor.execute(statement, [list(names), *values, limit]).fetchall()
        except duck.InterruptException as error:
            raise TimedOutError(_GIVEN_UP) from error
        except duck.Error as error:
            raise DarnerError(f"The archive cannot be searched: {str(error).splitlines()[0]}") from error
        finally:
            cursor.close()
        if keys:
            return [(names[row[-1]], _key_only(row[0], row[1])) for row in rows]
        return [(names[row[-1]], record_of(row[:-1])) for row in rows]

    def _cursor(self) -> Any:  # noqa: ANN401  (DuckDB's)
        with self._lock:
            if self._main is None:
                self._main = library("duckdb").connect(":memory:", config={"threads": self._config.threads})
                self._main.execute(f"SET memory_limit = '{self._config.memory // 2**20}MiB'")
                self._main.execute("SET autoinstall_known_extensions = false")
                self._main.execute("SET autoload_known_extensions = false")
                directories = ", ".join("'" + root.replace("'", "''") + "'" for root in self._roots)
                self._main.execute(f"SET allowed_directories = [{directories}]")
                self._main.execute("SET enable_external_access = false")
                self._main.execute("SET lock_configuration = true")
            return self._main.cursor()


def _key_only(job_id: int, created_at: int) -> JobRecord:
    return JobRecord(id=job_id, job={"created_at": created_at}, args={}, result=None, clusters=(), parts=(), events=())


def conditions(query: RecordQuery) -> tuple[list[str], list[Any]]:
    """The terms of a query and the values of their parameters."""
    wanted = query.text.lower()
    at, job_id = query.before or (0, 0)
    # (whether it is asked for, the term, its values)
    known: tuple[tuple[bool, str, list[Any]], ...] = (
        (bool(query.states), "list_contains(?, state)", [list(query.states)]),
        (bool(query.types), "list_contains(?, type)", [list(query.types)]),
        (bool(query.owner), "owner = ?", [query.owner]),
        (bool(query.tag), "tag = ?", [query.tag]),
        (query.cluster_id is not None, "list_contains(clusters, ?)", [query.cluster_id]),
        (query.since_ms is not None, "created_at >= ?", [query.since_ms]),
        (query.until_ms is not None, "created_at < ?", [query.until_ms]),
        (query.before is not None, "created_at <= ? AND (created_at < ? OR id < ?)", [at, at, job_id]),
        (bool(wanted), "(" + " OR ".join(f"contains(lower({name}), ?)" for name in _TEXTS) + ")", [wanted] * len(_TEXTS)),
    )
    asked = [(term, values) for is_asked, term, values in known if is_asked]
    return [term for term, _ in asked], [value for _, values in asked for value in values]


def may_have(segment: Segment, query: RecordQuery) -> bool:
    """Whether a segment can hold a job that fits, as far as the catalogue knows."""
    asked = {"states": query.states, "types": query.types, "owners": (query.owner,), "tags": (query.tag,)}
    if query.cluster_id is not None:
        asked["clusters"] = (query.cluster_id,)  # type: ignore[assignment]
    for name, wanted in asked.items():
        known = segment.facets.get(name)
        words = [one for one in wanted if one != ""]
        if words and known is not None and not set(words) & set(known):
            return False
    return True
