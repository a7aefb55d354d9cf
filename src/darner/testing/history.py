"""A long job history in Darner's tables, made fast: for benchmarks and for tests that need many rows.

The mix is that of a busy Dragonfly manager (spec/retention.md, 1): 80 % preheats, 88 % successes, ids, digests and addresses random
and so as incompressible as real ones, about 1.8 KB of arguments and results per job. A block of distinct jobs is written once and
then multiplied inside the database with new ids and times, so that ten million rows take minutes.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from sqlalchemy import Connection, Table, func, insert, select

from darner.core.job import DetailState
from darner.core.secret import MASK
from darner.db import Database
from darner.db.tables.jobs import job, job_cluster, job_event, job_part, job_payload

_TYPES = (("preheat", 80), ("get_task", 9), ("delete_task", 6), ("gc", 5))
_STATES = (("SUCCEEDED", 880), ("FAILED", 85), ("CANCELLED", 20), ("PARTIAL", 15))
_SIGNING = "&".join(
    f"{vendor}-{name}"
    for vendor in ("X-Amz", "X-Goog", "X-Obs", "q", "x-cos")
    for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature", "Security-Token", "User-Agent")
)
_COPIED = (job, job_payload, job_cluster, job_part, job_event)
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What to make. `newest_ms`: when the newest job was created (unix ms); the others come before it, `step_ms` apart.

    `parts` and `events`: rows per job beside job, payload and cluster. `block`: distinct jobs before they are multiplied.
    """

    jobs: int
    newest_ms: int
    step_ms: float = 500.0
    parts: int = 1
    events: int = 4
    block: int = 20_000

    @property
    def rows_per_job(self) -> int:
        """Rows in all tables."""
        return 3 + self.parts + self.events


def fill(db: Database, shape: Shape, *, told: Callable[[int], None] = lambda _: None) -> None:
    """Write the jobs, ids from 1, oldest first. `told` hears how many there are by now. The tables must be empty."""
    block = min(shape.block, shape.jobs)
    for first in range(1, block + 1, _AT_ONCE):
        db.write_sync(partial(_put, shape=shape, first=first, count=min(_AT_ONCE, block - first + 1)), durable=False)
    made = block
    while made < shape.jobs:
        step = min(block, shape.jobs - made)
        shift_ms = int(made * shape.step_ms)
        db.write_sync(partial(_multiply, offset=made, count=step, shift_ms=shift_ms), durable=False)
        made += step
        told(made)
    if db.dialect == "postgresql":
        db.write_sync(_count_on)


def rows_of(shape: Shape, first: int, count: int) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """The rows of `count` jobs, table by table."""
    made = [_Job(shape, number) for number in range(first, first + count)]
    yield job, [one.row for one in made]
    yield job_payload, [{"job_id": one.id, "args": one.args, "result": one.result} for one in made]
    yield job_cluster, [{"job_id": one.id, "cluster_id": 1} for one in made]
    yield job_part, [row for one in made for row in one.parts()]
    yield job_event, [row for one in made for row in one.events()]


class _Job:
    def __init__(self, shape: Shape, number: int) -> None:
        self._shape = shape
        self.id = number
        dice = self._dice = random.Random(number)  # noqa: S311  (test data)
        kind = _weighted(dice, _TYPES)
        state = _weighted(dice, _STATES) if kind != "gc" else DetailState.SUCCEEDED
        self._created = shape.newest_ms - int((shape.jobs - number) * shape.step_ms)
        self._ended = self._created + int(dice.expovariate(1 / 40_000)) + 1
        repository = f"team-{dice.randrange(40)}/svc-{int(dice.paretovariate(1.1)) % 25}"
        self._url = f"https://registry-{dice.randrange(5)}.example.com/v2/{repository}/blobs/sha256:{dice.getrandbits(256):064x}"
        self._host = {"hostname": f"dfdaemon-{dice.randrange(3000)}", "ip": f"10.0.{dice.randrange(256)}.{dice.randrange(256)}"}
        uuid = f"{dice.getrandbits(128):032x}"
        error = "" if state == DetailState.SUCCEEDED else f"origin answered {dice.choice((401, 404, 500, 503))}"
        self.row = {
            "id": number, "uuid": f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}", "type": kind, "state": state,
            "owner": f"user-{dice.randrange(50)}", "cluster_count": 1, "part_count": shape.parts, "part_done": shape.parts,
            "part_failed": 0 if not error else shape.parts, "bytes_total": dice.randrange(2**30), "bytes_done": 0,
            "summary": self._url[:512], "error": error, "tag": f"tag-{dice.randrange(200)}",
            "application": f"app-{dice.randrange(60)}", "priority": 6, "bio": "", "created_at": self._created,
            "started_at": self._created + 300, "finished_at": self._ended, "base_at": self._ended,
            "deadline_at": self._created + 3_600_000, "updated_at": self._ended,
        }  # fmt: skip
        self.args = orjson.dumps(self._args(dice)).decode()
        self.result = orjson.dumps(self._result(uuid, state, error)).decode()

    def _args(self, dice: random.Random) -> Mapping[str, Any]:
        return {
            "application": self.row["application"], "concurrent_peer_count": 500, "concurrent_task_count": 8, "count": None,
            "filtered_query_params": _SIGNING, "headers": {"Authorization": MASK, "Connection": "keep-alive"}, "ips": None,
            "password": MASK, "percentage": None, "piece_length": dice.choice((None, 4 << 20, 16 << 20)),
            "platform": dice.choice(("linux/amd64", "linux/arm64", "")), "scope": dice.choice(("single_seed_peer", "all_peers")),
            "tag": self.row["tag"], "timeout": 3_600_000_000_000, "type": "file", "url": self._url, "urls": None,
            "username": f"robot-{dice.randrange(20)}",
        }  # fmt: skip

    def _result(self, uuid: str, state: str, error: str) -> Mapping[str, Any]:
        entry = {"url": self._url, **self._host}
        states = {"success_tasks": [] if error else [entry], "failure_tasks": [{**entry, "description": error}] if error else []}
        return {
            "group_uuid": f"group_{uuid}", "state": state, "created_at": self._created, "updated_at": self._ended,
            "job_states": [{
                "task_uuid": f"task_{uuid}_1", "task_name": self.row["type"], "state": state, "error": error, "ttl": 86400,
                "results": [{**states, "scheduler_cluster_id": 1}],
            }],
        }  # fmt: skip

    def parts(self) -> Iterator[dict[str, Any]]:
        hosts = orjson.dumps(
            [{**self._host, "host_id": f"{self._dice.getrandbits(256):064x}", "seed": False, "state": "succeeded"}]
        )
        times = {
            "created_at": self._created,
            "started_at": self._created + 300,
            "finished_at": self._ended,
            "updated_at": self._ended,
        }
        for ordinal in range(self._shape.parts):
            state = self.row["state"]
            facts = {"id": (self.id - 1) * self._shape.parts + ordinal + 1, "job_id": self.id, "cluster_id": 1, "ordinal": ordinal}
            yield {**facts, "url": self._url, "state": state, "hosts": hosts, **times}

    def events(self) -> Iterator[dict[str, Any]]:
        kinds = ("created", "planned", "running", "ended")
        for number in range(self._shape.events):
            kind = kinds[number % len(kinds)]
            key = (self.id - 1) * self._shape.events + number + 1
            yield {"id": key, "job_id": self.id, "at": self._created + number * 100, "kind": kind, "message": f"{kind} by a worker"}


def _put(conn: Connection, *, shape: Shape, first: int, count: int) -> None:
    for table, rows in rows_of(shape, first, count):
        if rows:
            conn.execute(insert(table), rows)


def _multiply(conn: Connection, *, offset: int, count: int, shift_ms: int) -> None:
    """Copy the first `count` jobs to the ids after `offset`, later by `shift_ms`. The copies keep their uuids."""
    for table in _COPIED:
        key = table.c.id if table is job else table.c.job_id
        per_job = conn.execute(select(func.count()).where(key == 1)).scalar_one()
        if not per_job:
            continue
        values = [_moved(column, offset * (1 if table is job else per_job), offset, shift_ms) for column in table.columns]
        source = select(*values).where(key <= count)
        conn.execute(insert(table).from_select([column.name for column in table.columns], source))


def _count_on(conn: Connection) -> None:
    """PostgreSQL's sequences do not see ids that were given to it."""
    for table in (job, job_part, job_event):
        highest = conn.execute(select(func.max(table.c.id))).scalar_one() or 0
        conn.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), highest + 1)))


def _moved(column: Any, id_offset: int, job_offset: int, shift_ms: int) -> Any:  # noqa: ANN401  (SQLAlchemy's)
    if column.name == "id":
        return column + id_offset
    if column.name == "job_id":
        return column + job_offset
    if column.name == "at" or column.name.endswith("_at"):
        return column + shift_ms
    return column


def _weighted(dice: random.Random, options: tuple[tuple[str, int], ...]) -> str:
    return dice.choices([name for name, _ in options], [weight for _, weight in options])[0]
