"""A segment: one Parquet file of jobs of one rule. What lists filter by has columns, the rest of a job is its `body`.

Any Parquet reader can open it. It is trusted only after it was read back: as many rows as were put in, and each the same record.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from darner.core.errors import DarnerError
from darner.core.job import Tier
from darner.history.record import JobRecord
from darner.history.rows import FOLDED, blob_of, checked, record_from
from darner.retention.archive.storage import told

FORMAT = 1
ROW_GROUP = 20_000
_LEVEL = 3
_AT_ONCE = 2_000
_OWN = frozenset({"uuid", "summary", "error", "bio"})
# Columns of the job's row: those that a search filters by, and those that it shows.
COLUMNS = (
    "id", "uuid", "type", "state", "owner", "tag", "application", "labels", "importance", "created_at", "finished_at", "base_at",
    "summary", "error", "bio", "held", "hold_reason",
)  # fmt: skip
_KEPT = frozenset(COLUMNS) | frozenset(FOLDED)
_UNIQUE = frozenset({"id", "uuid", "summary"})
_FEW = 64
_FACETS = (("types", "type"), ("states", "state"), ("owners", "owner"), ("tags", "tag"), ("applications", "application"))
_NUMBERS = frozenset({"id", "importance", "created_at", "finished_at", "base_at", "held"})


@dataclass(slots=True, kw_only=True)
class Facts:
    """What the catalogue says of a segment. `digest` is the sum of the digests of its records, in hex."""

    rows: int = 0
    digest: str = ""
    sha256: str = ""
    bytes: int = 0
    min_id: int = 0
    max_id: int = 0
    min_created_at: int = 0
    max_created_at: int = 0
    max_base_at: int = 0
    facets: dict[str, list[Any]] = field(default_factory=dict)


class LibraryMissingError(DarnerError):
    """A library of the archive is not installed. Unlike a store that is away, it does not come back by itself."""

    kind = "unavailable"


def library(name: str) -> Any:  # noqa: ANN401  (a module without types)
    """A library of the extra. LibraryMissingError says how to get it; jobs wait in the tier before meanwhile."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise LibraryMissingError(
            f"The archive needs {name}: install `darner[archive]` and start Darner again. Jobs wait in the warm tier until then."
        ) from error


class Writer:
    """Writes a segment, a chunk of records at a time, and gathers its facts. Leave it by `close`, or the file is not complete."""

    def __init__(self, file: Path) -> None:
        """`file` is made anew."""
        self._arrow, self._parquet = library("pyarrow"), library("pyarrow.parquet")
        self._file = file
        self._schema = schema()
        repeating = [name for name in COLUMNS if name not in _UNIQUE]
        self._writer = self._parquet.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=repeating,
            write_statistics=[*COLUMNS],
        )
        self._rows: list[dict[str, Any]] = []
        self._tally = _Tally()

    def add(self, records: Sequence[JobRecord]) -> None:
        """Redacted records, in the order of (created_at, id). DarnerError for one that cannot be written; it is left away."""
        for record in records:
            try:
                row = _row(record)
                self._tally.add(record)
            except (ValueError, TypeError, KeyError) as error:
                raise DarnerError(f"Job {record.id} cannot be archived: {error}.") from error
            self._rows.append(row)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def copy(self, row: dict[str, Any]) -> None:
        """A row of another segment (`rows`), as it is."""
        self._tally.add(record_of(row))
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [self._arrow.array([row[field.name] for row in self._rows], type=field.type) for field in self._schema]
        self._rows = []
        with told(self._file.parent):
            self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema), row_group_size=ROW_GROUP)

    def close(self) -> Facts:
        """Finish the file; its facts, but what only the finished file tells."""
        self._flush()
        with told(self._file.parent):
            self._writer.close()
        return self._tally.facts()

    def give_up(self) -> None:
        """Close without finishing."""
        with suppress(Exception):
            self._writer.close()


@dataclass(frozen=True, slots=True)
class Entry:
    """A job of a segment as it was when it was read; a row of the database that differs is not what was archived.

    `last_event`: the id of the timeline's last line.
    """

    id: int
    state: str
    finished_at: int
    last_event: int


def verify(file: Path, written: Facts) -> tuple[Facts, list[Entry]]:
    """Read a segment back: its facts, now complete, and its jobs. DarnerError if it does not hold what was put in."""
    tally, entries = _Tally(), []
    for row in rows(file):
        record = record_of(row)
        tally.add(record)
        entries.append(_entry(record))
    found = tally.facts()
    if (found.rows, found.digest) != (written.rows, written.digest):
        raise DarnerError(f"The archive's file {file.name} does not read back as it was written; it is written anew.")
    found.sha256, found.bytes = file_digest(file), file.stat().st_size
    return found, entries


def entries_of(file: Path) -> list[Entry]:
    """The jobs of a segment, in its order, which never changes."""
    return [_entry(record_of(row)) for row in rows(file)]


def read(file: Path) -> Iterator[JobRecord]:
    """The records of a segment, in its order."""
    return (record_of(row) for row in rows(file))


def rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a segment, in its order; all columns, or some."""
    parquet = library("pyarrow.parquet")
    try:
        with parquet.ParquetFile(file) as opened:
            for group in opened.iter_batches(batch_size=_AT_ONCE, columns=None if columns is None else list(columns)):
                yield from group.to_pylist()
    except (OSError, ValueError) as error:
        raise DarnerError(f"The archive's file {file.name} cannot be read: {error}.") from error


def _entry(record: JobRecord) -> Entry:
    last = max((int(event["id"]) for event in record.events), default=0)
    return Entry(record.id, str(record.job["state"]), int(record.job["finished_at"] or 0), last)


def record_of(row: dict[str, Any]) -> JobRecord:
    """A record from a row of a segment. DarnerError for one that is damaged, or of a later version."""
    try:
        body = checked(orjson.loads(row["body"]))
        job = {name: row[name] for name in COLUMNS}
        job |= {"tier": int(Tier.ARCHIVE), "class": 0, "idempotency_key": None}
        body["j"] = {**body["j"], **{name: row[name] for name in _OWN if row[name]}}
        return record_from(job, tuple(row["clusters"]), body, ())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DarnerError(f"Job {row.get('id')} in the archive is damaged: {type(error).__name__}.") from error


def digest_of(record: JobRecord) -> int:
    """64 bits that say what a record says; what becomes of its row (tier, class) is no part of it."""
    job = {name: value for name, value in record.job.items() if name in _KEPT}
    whole = [record.id, job, record.args, record.result, sorted(record.clusters), record.parts, record.events]
    return int.from_bytes(hashlib.blake2b(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS), digest_size=8).digest())


def file_digest(file: Path) -> str:
    """SHA-256 in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def schema() -> Any:  # noqa: ANN401  (pyarrow's)
    """The columns; the metadata names the format."""
    arrow = library("pyarrow")
    fields = [arrow.field(name, arrow.int64() if name in _NUMBERS else arrow.string()) for name in COLUMNS]
    fields += [arrow.field("clusters", arrow.list_(arrow.int64())), arrow.field("body", arrow.string())]
    return arrow.schema(fields, metadata={"darner": json.dumps({"format": FORMAT})})


def _row(record: JobRecord) -> dict[str, Any]:
    row = {name: record.job.get(name) for name in COLUMNS}
    return {**row, "clusters": list(record.clusters), "body": blob_of(record, omit=_OWN).decode()}


class _Tally:
    """Facts of the records that went by."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._created: list[int] = []
        self._base = 0
        self._sum = 0
        self._seen: dict[str, set[Any]] = {name: set() for name, _ in (*_FACETS, ("clusters", ""))}

    def add(self, record: JobRecord) -> None:
        digest, created = digest_of(record), int(record.job["created_at"])
        self._base = max(self._base, int(record.job["base_at"] or 0))
        self._ids.append(record.id)
        self._created.append(created)
        self._sum = (self._sum + digest) % 2**64
        for name, value in _FACETS:
            self._seen[name].add(record.job[value])
        self._seen["clusters"].update(record.clusters)

    def facts(self) -> Facts:
        few = {name: sorted(found) for name, found in self._seen.items() if len(found) <= _FEW}
        return Facts(
            rows=len(self._ids), digest=f"{self._sum:016x}", min_id=min(self._ids, default=0), max_id=max(self._ids, default=0),
            min_created_at=min(self._created, default=0), max_created_at=max(self._created, default=0), max_base_at=self._base,
            facets=few,
        )  # fmt: skip
