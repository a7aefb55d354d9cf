"""What a job costs, hot and warm: bytes with all indexes, bytes of its blob, and how fast jobs are folded and read again.

    python bench/bytes_per_job.py [--jobs 100000] [--timelines] [--directory DIR]

Jobs have Dragonfly's shape: those of a generator `gen_jobs.py` (`DARNER_GEN_JOBS` names its directory) if there is one, else those
of `darner.testing.history`. With `--timelines` each has a part per cluster and four lines of a timeline too, as jobs that Darner
itself carried out have; without, only arguments and results, which is what the targets were set for (spec/retention.md, 5.8).
Baseline is the hot job in the same database and run. SQLite is measured always, and every URL in DARNER_TEST_DATABASES (emptied!).
Targets: at most 500 B per warm job on SQLite, payload 5 times smaller, 80,000 blobs/s compressed, 10 µs to unfold, 8,000 jobs/s
folded.
"""

import argparse
import contextlib
import importlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Table, func, insert, select

from darner.db import Database, db_now_ms, migrate
from darner.db.sizes import sizes
from darner.db.tables.jobs import job, job_cluster, job_event, job_fold, job_part, job_payload
from darner.history.codec import Codec
from darner.history.dictionary import store, train_type, types_to_train
from darner.history.fold import fold_jobs
from darner.history.redact import redact_record
from darner.history.rows import blob_of, read_records
from darner.testing.databases import empty
from darner.testing.history import Shape, rows_of

AT_ONCE = 1_000
FOLDED_AT_ONCE = 500
SAMPLES = 4_000
STATES = {"SUCCESS": "SUCCEEDED", "FAILURE": "FAILED"}
HOUR_MS = 3_600_000
Rows = Iterator[tuple[Table, list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of all jobs together, in bytes."""

    all: int
    indexes: int


def generator() -> Any | None:  # noqa: ANN401  (a module that is not ours)
    """The generator of reference jobs, if it is there."""
    sys.path.append(os.environ.get("DARNER_GEN_JOBS", "/work/shared/tools"))
    try:
        return importlib.import_module("gen_jobs")
    except ImportError:
        return None


def own_rows(jobs: int, now_ms: int, *, timelines: bool) -> Iterator[Rows]:
    """Chunks of rows of Darner's own history for tests."""
    shape = Shape(jobs=jobs, newest_ms=now_ms - 8 * HOUR_MS, parts=int(timelines), events=4 * timelines)
    for first in range(1, jobs + 1, AT_ONCE):
        yield rows_of(shape, first, min(AT_ONCE, jobs - first + 1))


def reference_rows(made: Any, jobs: int, *, timelines: bool) -> Iterator[Rows]:  # noqa: ANN401  (a module that is not ours)
    """Chunks of rows of reference jobs that have ended."""
    source = (one for one in made.jobs(made.Config(rows=jobs)) if one["finished_at"])
    while chunk := [one for one, _ in zip(source, range(AT_ONCE), strict=False)]:
        yield _reference(chunk, timelines=timelines)


def _reference(chunk: Sequence[dict[str, Any]], *, timelines: bool) -> Rows:
    yield job, [_job_row(one) for one in chunk]
    yield (
        job_payload,
        [
            {"job_id": one["id"], "args": orjson.dumps(one["args"]).decode(), "result": orjson.dumps(one["result"]).decode()}
            for one in chunk
        ],
    )
    yield job_cluster, [{"job_id": one["id"], "cluster_id": key} for one in chunk for key in one["scheduler_cluster_ids"] or [1]]
    if timelines:
        yield job_part, [row for one in chunk for row in _parts(one)]
        yield job_event, [row for one in chunk for row in _events(one)]


def _job_row(one: dict[str, Any]) -> dict[str, Any]:
    created, started, ended = (one[name] // 1000 for name in ("created_at", "started_at", "finished_at"))
    args = one["args"]
    url = args.get("url") or (args.get("urls") or [""])[0]
    parts = len(one["scheduler_cluster_ids"])
    return {
        "id": one["id"], "uuid": one["task_id"].removeprefix("group_"), "type": one["type"],
        "state": STATES.get(one["state"], one["state"]), "owner": f"user-{one['user_id']}", "cluster_count": parts,
        "part_count": parts, "part_done": parts, "part_failed": 0, "bytes_total": one["id"] * 7919 % 2**30,
        "bytes_done": one["id"] * 7919 % 2**30, "summary": url, "error": _error(one), "tag": args.get("tag", ""),
        "application": args.get("application", ""), "priority": 6, "created_at": created, "started_at": started,
        "finished_at": ended, "base_at": ended, "deadline_at": created + HOUR_MS, "updated_at": ended, "class": 16,
    }  # fmt: skip


def _error(one: dict[str, Any]) -> str:
    states = (one["result"] or {}).get("job_states", [])
    return next((str(state["error"]) for state in states if state["error"]), "")


def _parts(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    created, ended = one["created_at"] // 1000, one["finished_at"] // 1000
    times = {"created_at": created, "started_at": created + 90, "finished_at": ended, "updated_at": ended, "not_before": created}
    for state, cluster_id in zip((one["result"] or {}).get("job_states", []), one["scheduler_cluster_ids"], strict=True):
        told = (state["results"] or [{}])[0]
        seen = [*told.get("success_tasks", []), *told.get("failure_tasks", [])]
        hosts = [{"hostname": host["hostname"], "ip": host["ip"], "state": "SUCCEEDED", "verified": True} for host in seen]
        yield {
            "job_id": one["id"], "cluster_id": cluster_id, "ordinal": 0, "state": STATES.get(state["state"], state["state"]),
            "url": next((host["url"] for host in seen if "url" in host), ""), "size_bytes": one["id"] * 7919 % 2**30,
            "target_count": 1, "attempts": 1, "error": state["error"], "hosts": orjson.dumps(hosts), "verified": 1, **times,
        }  # fmt: skip


def _events(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    created, ended = one["created_at"] // 1000, one["finished_at"] // 1000
    url = _job_row(one)["summary"]
    told = (
        (created, "created", f"created by user-{one['user_id']}: {url}"),
        (created + 12, "planned", "planned: 1 content for clusters 1"),
        (created + 90, "part_started", "w-1 started it, attempt 1"),
        (ended, "state", f"{STATES.get(one['state'], one['state'])}: {_error(one)}"),
    )
    for at, kind, message in told:
        yield {"job_id": one["id"], "at": at, "kind": kind, "message": message[:1024]}


def measured(db: Database) -> Cost:
    """Bytes of the tables of jobs, tidied so that no page is half empty because of what was there before."""
    if db.dialect == "sqlite":
        with contextlib.closing(sqlite3.connect(str(db.engine.url.database))) as connection:
            connection.execute("VACUUM")
    else:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in sorted(NAMES):
                tidy = f"VACUUM FULL ANALYZE {name}" if db.dialect == "postgresql" else f"OPTIMIZE TABLE {name}"
                connection.exec_driver_sql(tidy).close()
    found = db.read_sync(sizes)
    mine = [one for one in found.tables if one.name in NAMES]
    return Cost(all=sum(one.bytes for one in mine), indexes=sum(one.index_bytes for one in mine))


NAMES = frozenset(table.name for table in (job, job_payload, job_cluster, job_part, job_event, job_fold))


def timed(action: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def train(db: Database, codec: Codec) -> dict[str, float]:
    """Dictionaries for all types; their ratios on samples kept apart."""
    found = {}
    for kind in db.read_sync(lambda conn: types_to_train(conn, 0)):
        trained = db.read_sync(partial(train_type, job_type=kind, codec=codec))
        db.write_sync(partial(store, trained=trained, now_ms=1))
        found[kind] = trained.ratio
    db.read_sync(codec.refresh)
    return found


def codec_speed(db: Database, codec: Codec) -> tuple[float, float]:
    """(blobs compressed per second, µs to unfold one) over the mix of jobs."""
    ids = db.read_sync(lambda conn: list(conn.execute(select(job.c.id).order_by(job.c.id).limit(SAMPLES)).scalars()))
    records = db.read_sync(lambda conn: read_records(conn, ids, codec))
    raw = [(str(one.job["type"]), blob_of(redact_record(one))) for one in records]
    folds = [codec.fold(kind, blob) for kind, blob in raw]
    best = min(timed(lambda: [codec.fold(kind, blob) for kind, blob in raw]) for _ in range(5))
    read = min(timed(lambda: [codec.unfold(one.dict_id, one.body) for one in folds]) for _ in range(5))
    return len(raw) / best, read / len(folds) * 1e6


def fold_all(db: Database, codec: Codec) -> None:
    """As a sweep does, without its pauses."""
    last = 0
    while True:

        def step(conn: Connection, after: int = last) -> int:
            wanted = select(job.c.id).where(job.c.id > after).order_by(job.c.id).limit(FOLDED_AT_ONCE)
            ids = [int(key) for key in conn.execute(wanted).scalars()]
            fold_jobs(conn, ids, codec)
            return ids[-1] if ids else 0

        last = db.write_sync(step, durable=False)
        if not last:
            return


def measure(url: str, jobs: int, *, timelines: bool) -> None:
    """Fill, fold, print."""
    db = Database.open(url)
    try:
        migrate(db)
        made = generator()
        now = db.read_sync(db_now_ms)
        chunks = own_rows(jobs, now, timelines=timelines) if made is None else reference_rows(made, jobs, timelines=timelines)
        for chunk in chunks:
            db.write_sync(lambda conn, chunk=chunk: [conn.execute(insert(t), rows) for t, rows in chunk if rows], durable=False)  # type: ignore[misc]
        count = db.read_sync(lambda conn: int(conn.execute(select(func.count()).select_from(job)).scalar_one()))
        shape = "own generator" if made is None else "gen_jobs"
        print(f"{db.dialect}: {count} jobs of {shape}{', with parts and timelines' if timelines else ''}")
        codec = Codec()
        hot = measured(db)
        took = timed(lambda: print(f"  dictionaries, ratio on samples kept apart: {json.dumps(_rounded(train(db, codec)))}"))
        print(f"  trained in {took:.1f} s")
        rate, unfold_us = codec_speed(db, codec)
        took = timed(lambda: fold_all(db, codec))
        warm = measured(db)
        tell(db, count, hot, warm)
        print(
            f"  compressed: {rate:,.0f} blobs/s; unfolded: {unfold_us:.1f} µs; folded in the database: {count / took:,.0f} jobs/s"
        )
    finally:
        db.close()


def tell(db: Database, count: int, hot: Cost, warm: Cost) -> None:
    """Bytes and ratios."""
    before, after = db.read_sync(lambda conn: conn.execute(select(func.sum(job_fold.c.raw_len), _lengths())).one())
    print(f"  hot:  {hot.all / count:7.0f} B per job, {hot.indexes / count:.0f} of it indexes")
    print(
        f"  warm: {warm.all / count:7.0f} B per job, {warm.indexes / count:.0f} of it indexes: {hot.all / warm.all:.2f} x smaller"
    )
    print(f"  blob: {int(before) / count:.0f} B to {int(after) / count:.0f} B: {int(before) / int(after):.2f} x smaller")


def _lengths() -> Any:  # noqa: ANN401  (SQLAlchemy's)
    return func.sum(func.length(job_fold.c.body))


def _rounded(ratios: dict[str, float]) -> dict[str, float]:
    return {kind: round(ratio, 2) for kind, ratio in ratios.items()}


def main(arguments: Sequence[str]) -> None:
    """SQLite, then the servers that are named."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--timelines", action="store_true", help="with parts and timelines")
    parser.add_argument("--directory", type=Path, default=None, help="where SQLite's file lies (default: a temporary directory)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        measure(f"sqlite:///{directory}/history.db", options.jobs, timelines=options.timelines)
    for url in os.environ.get("DARNER_TEST_DATABASES", "").split():
        empty(url)
        measure(url, options.jobs, timelines=options.timelines)


if __name__ == "__main__":
    main(sys.argv[1:])
