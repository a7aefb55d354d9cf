"""A segment: one Parquet file of jobs of one rule. What lists filter by has columns, the rest of a job is its `body`.

Any Parquet reader can open it. It is trusted only after it was read back: as many rows as were put in, and each the same record.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from darner.core.errors import DarnerError
from darner.core.job import Tier
from darner.history.record import VERSION, JobRecord
from darner.history.rows import blob_of, parsed, record_from
from darner.retention.archive.storage import told

FORMAT = 1
ROW_GROUP = 20_000
_LEVEL = 3
_AT_ONCE = 2_000
_TABLES_KEPT = 2
_OWN = frozenset({"uuid", "summary", "error", "bio"})
# Columns of the job's row: those that a search filters by, and those that it shows.
COLUMNS = (
    "id", "uuid", "type", "state", "owner", "tag", "application", "labels", "importance", "created_at", "finished_at", "base_at",
    "summary", "error", "bio", "held", "hold_reason",
)  # fmt: skip
_BEGIN, _REQUEST = b'{"v":%d,"j":{' % VERSION, b'},"a":'
# Those of them that a warm job has in its row.
LEFT = tuple(name for name in COLUMNS if name not in _OWN)
NAMES = (*COLUMNS, "clusters", "body")
_CREATED, _BASE, _CLUSTERS = NAMES.index("created_at"), NAMES.index("base_at"), NAMES.index("clusters")
# A row of a segment: its values in the order of NAMES.
Row = tuple[Any, ...]
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
    """Writes a segment, a chunk of rows at a time, and gathers its facts. Leave it by `close`, or the file is not complete."""

    def __init__(self, file: Path) -> None:
        """`file` is made anew."""
        self._arrow, self._parquet = library("pyarrow"), library("pyarrow.parquet")
        self._file = file
        self._schema = schema()
        with told(file.parent):
            self._writer = self._parquet.ParquetWriter(
                file,
                self._schema,
                compression="zstd",
                compression_level=_LEVEL,
                use_dictionary=[name for name in COLUMNS if name not in _UNIQUE],
                write_statistics=[*COLUMNS],
            )
        self._rows: list[Row] = []
        self._tally = Tally()
        self.entries: list[Entry] = []
        self.tables: list[Any] = []

    def add(self, row: Row) -> None:
        """A row, in the order of (created_at, id)."""
        self.entries.append(Entry(row[0], self._tally.add(row)))
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        values = zip(*self._rows, strict=True)
        columns = [self._arrow.array(one, type=field.type) for one, field in zip(values, self._schema, strict=True)]
        self._rows = []
        table = self._arrow.Table.from_arrays(columns, schema=self._schema)
        if len(self.tables) < _TABLES_KEPT:
            self.tables.append(table)
        with told(self._file.parent):
            self._writer.write_table(table, row_group_size=ROW_GROUP)

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
    """A job of a segment, and the digest of what was archived; a job of the database with another is not the same any more.

    `stamp`: the same for this process, and quicker to ask for (`making.current_stamps`); 0: it has none.
    """

    id: int
    digest: int
    stamp: int = 0


def verify(file: Path, written: Facts, tables: Sequence[Any] = ()) -> Facts:
    """Read a segment back; its facts, now complete. DarnerError if it does not hold what was put in.

    `tables`: what was put in, group by group, as far as the writer still has it; the others are compared by the sum of digests.
    """
    if len(tables) * ROW_GROUP < written.rows:
        tally = Tally()
        for row in rows(file):
            tally.add(row)
        found = tally.facts()
        same = (found.rows, found.digest) == (written.rows, written.digest)
    else:
        same = _holds(file, tables)
    if not same:
        raise DarnerError(f"The archive's file {file.name} does not read back as it was written; it is written anew.")
    return replace(written, sha256=file_digest(file), bytes=file.stat().st_size)


def _holds(file: Path, tables: Sequence[Any]) -> bool:
    parquet = library("pyarrow.parquet")
    try:
        with parquet.ParquetFile(file) as opened:
            groups = range(opened.num_row_groups)
            return len(groups) == len(tables) and all(opened.read_row_group(one).equals(tables[one]) for one in groups)
    except (OSError, ValueError) as error:
        raise DarnerError(f"The archive's file {file.name} cannot be read: {error}.") from error


def entries_of(file: Path) -> list[Entry]:
    """The jobs of a segment, in its order, which never changes."""
    return [Entry(row[0], digest_of(row)) for row in rows(file)]


def rows(file: Path, columns: Sequence[str] = NAMES) -> Iterator[Row]:
    """The rows of a segment, in its order; all columns, or some."""
    parquet = library("pyarrow.parquet")
    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=_AT_ONCE, columns=list(columns)):
                yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    except (OSError, ValueError, KeyError) as error:
        raise DarnerError(f"The archive's file {file.name} cannot be read: {error}.") from error


def row_of(record: JobRecord) -> Row:
    """A record as a row. DarnerError for one that cannot be written."""
    try:
        body = blob_of(record, omit=_OWN).decode()
        return (*(record.job.get(name) for name in COLUMNS), sorted(record.clusters), body)
    except (ValueError, TypeError, KeyError) as error:
        raise DarnerError(f"Job {record.id} cannot be archived: {error}.") from error


def row_of_fold(columns: Sequence[Any], clusters: Sequence[int], text: bytes) -> Row:
    """A warm job as a row, from its blob as it is. `columns`: the values of LEFT. DarnerError for a blob that is damaged."""
    try:
        own, body = _without_own(text)
        left = iter(columns)
        values = [own[name] if name in _OWN else next(left) for name in COLUMNS]
        return (*values, sorted(clusters), body.decode())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DarnerError(f"Job {columns[0]} cannot be archived: {type(error).__name__}.") from error


def _without_own(text: bytes) -> tuple[dict[str, Any], bytes]:
    """What has columns of its own, and the blob without it.

    Of a blob as `blob_of` writes it only the columns are read: they are plain values, so that they end where the request begins.
    """
    end = text.find(_REQUEST)
    if text.startswith(_BEGIN) and end > 0:
        kept = orjson.loads(text[len(_BEGIN) - 1 : end + 1])
        own = {name: kept.pop(name, "") for name in _OWN}
        return own, b"".join((_BEGIN[:-1], orjson.dumps(kept), text[end + 1 :]))
    blob = parsed(text)
    own = {name: blob["j"].pop(name, "") for name in _OWN}
    return own, orjson.dumps(blob)


def record_of(row: Row) -> JobRecord:
    """A record from a row. DarnerError for one that is damaged, or of a later version."""
    job: dict[str, Any] = dict(zip(NAMES, row, strict=True))
    body, clusters = job.pop("body"), job.pop("clusters")
    try:
        blob = parsed(body)
        blob["j"] = {**blob["j"], **{name: job[name] for name in _OWN if job[name]}}
        job |= {"tier": int(Tier.ARCHIVE), "class": 0, "idempotency_key": None}
        return record_from(job, tuple(clusters), blob, ())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DarnerError(f"Job {job['id']} in the archive is damaged: {type(error).__name__}.") from error


def digest_of(row: Row) -> int:
    """64 bits that say what a row says."""
    found = hashlib.blake2b(orjson.dumps(row[:-1]), digest_size=8)
    found.update(row[-1].encode())
    return int.from_bytes(found.digest())


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


class Tally:
    """Facts of the rows that went by."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0
        self._ids = (0, 0)
        self._created = (0, 0)
        self._base = 0
        self._seen: dict[str, set[Any]] = {name: set() for name, _ in (*_FACETS, ("clusters", ""))}
        self._sets = [(self._seen[name], NAMES.index(column)) for name, column in _FACETS]

    def add(self, row: Row) -> int:
        """Count a row in; its digest."""
        digest = digest_of(row)
        self._sum += digest
        number, created, base = row[0], row[_CREATED], row[_BASE] or 0
        if not self._rows:
            self._ids, self._created = (number, number), (created, created)
        self._rows += 1
        self._ids = (min(self._ids[0], number), max(self._ids[1], number))
        self._created = (min(self._created[0], created), max(self._created[1], created))
        self._base = max(self._base, base)
        for found, index in self._sets:
            found.add(row[index])
        self._seen["clusters"].update(row[_CLUSTERS])
        return digest

    def facts(self) -> Facts:
        """All but what only the finished file tells."""
        few = {name: sorted(found) for name, found in self._seen.items() if len(found) <= _FEW}
        return Facts(
            rows=self._rows, digest=f"{self._sum % 2**64:016x}", min_id=self._ids[0], max_id=self._ids[1],
            min_created_at=self._created[0], max_created_at=self._created[1], max_base_at=self._base, facets=few,
        )  # fmt: skip
