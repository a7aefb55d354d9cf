"""Databases as released versions left them: rows written by hand, as the code of that release wrote them.

Nothing here may use today's tables or rules: they change, and these rows must not change with them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, MetaData, Table, delete, insert, select

from darner.db import Database, db_now_ms, migrate

HOUR_MS = 3_600_000
FLOOR_MS = HOUR_MS
ENDED = ("SUCCEEDED", "FAILED", "PARTIAL", "TIMED_OUT", "CANCELLED")
UNENDED = ("QUEUED", "RUNNING", "CANCELLING")
TYPES = ("preheat", "get_task", "delete_task", "gc", "sync_peers")
AGES_H = (0.2, 0.9, 1.2, 2.5, 5.8, 6.2, 25.0, 47.0, 49.0, 700.0)
TABLES_0001 = ("fleet_cluster", "access_token", "retention_policy", "retention_run", "retention_batch", "retention_mark", "lease")
TABLES_0002 = (*TABLES_0001, "job", "job_payload", "job_secret", "job_cluster", "job_part", "job_event")
# Tables whose key `id` is counted up.
NUMBERED = ("fleet_cluster", "access_token", "retention_run", "retention_batch", "job", "job_part", "job_event")

# Policies as 0001 and 0002 stored them: `hot` as typed, "keep", or upstream's nanoseconds; `then` says what follows.
POLICIES: dict[str, list[dict[str, Any]]] = {
    "seed": [{"name": "default", "match": {}, "basis": "finished", "hot": "6h", "then": "delete"}],
    "two days": [{"name": "default", "match": {}, "basis": "finished", "hot": "48h", "then": "delete"}],
    "for ever": [{"name": "default", "match": {}, "basis": "finished", "hot": "keep", "then": "keep"}],
    "from creation": [{"name": "all", "match": {}, "basis": "created", "hot": "6h", "then": "delete"}],
    "nanoseconds": [{"name": "default", "match": {}, "basis": "finished", "hot": "21600000000000ns", "then": "delete"}],
    "the least": [{"name": "default", "match": {}, "basis": "created", "hot": "1h", "then": "delete"}],
    "many": [
        {
            "name": "audit", "match": {"owners": ["o1"], "states": ["FAILED", "PARTIAL"]}, "basis": "finished", "hot": "keep",
            "then": "keep",
        },
        {"name": "gc", "match": {"types": ["gc", "sync_peers"]}, "basis": "created", "hot": "1h", "then": "delete"},
        {
            "name": "nightly", "match": {"tags": ["nightly"], "applications": ["app-1"]}, "basis": "created", "hot": "1d",
            "then": "delete",
        },
        {"name": "fails", "match": {"states": ["FAILED", "TIMED_OUT"]}, "basis": "finished", "hot": "1d", "then": "delete"},
        {"name": "held", "match": {"owners": ["o2"]}, "basis": "finished", "hot": "2h", "then": "delete"},
        {"name": "wins", "match": {"states": ["SUCCEEDED"]}, "basis": "finished", "hot": "2h30m", "then": "delete"},
    ],
    "short form without then": [{"name": "default", "hot": "6h"}],
}  # fmt: skip
_HOURS = {
    "6h": 6,
    "48h": 48,
    "1h": 1,
    "1d": 24,
    "2h": 2,
    "2h30m": 2.5,
    "21600000000000ns": 6,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What was in a database of a release. `rows`: by table; `highest`: the highest id ever given, by table, though it is gone."""

    rows: Mapping[str, list[dict[str, Any]]]
    highest: Mapping[str, int]
    now_ms: int
    policy: list[dict[str, Any]]


def make(db: Database, revision: str, policy: str) -> Released:
    """Migrate an empty database to a released revision and fill it."""
    migrate(db, to=revision)
    tables = TABLES_0001 if revision == "0001_base" else TABLES_0002
    return db.write_sync(lambda conn: _fill(conn, tables, POLICIES[policy]))


def store(db: Database, policy: list[dict[str, Any]]) -> int:
    """One more version of the policy, as the release stored it; its number."""

    def put(conn: Connection) -> int:
        row = {"body": json.dumps({"rules": policy}), "origin": "user", "created_at": db_now_ms(conn)}
        return _Writer(conn, _reflected(conn, ("retention_policy",)))("retention_policy", **row)

    return db.write_sync(put)


def expiry(job: Mapping[str, Any], policy: list[dict[str, Any]]) -> int | None:
    """When the released code would have deleted a job (unix ms); None: never. Written down, not imported."""
    if job["state"] not in ENDED or job["finished_at"] is None or job["held"]:
        return None
    rule = next((rule for rule in policy if _fits(job, rule.get("match", {}))), None)
    if rule is None or rule.get("then", "delete") == "keep":
        return None
    since = job["created_at"] if rule.get("basis") == "created" else job["finished_at"]
    return int(max(since + _HOURS[rule["hot"]] * HOUR_MS, job["finished_at"] + FLOOR_MS))


def read(conn: Connection, names: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """All rows of tables, in the order of their first key."""
    found, tables = {}, _reflected(conn, names)
    for name in names:
        table = tables[name]
        found[name] = [dict(row) for row in conn.execute(select(table).order_by(*table.primary_key.columns)).mappings()]
    return found


def _fits(job: Mapping[str, Any], match: Mapping[str, list[str]]) -> bool:
    columns = {"types": "type", "states": "state", "owners": "owner", "tags": "tag", "applications": "application"}
    return all(job[columns[field]] in words for field, words in match.items() if words)


def _reflected(conn: Connection, names: tuple[str, ...]) -> Mapping[str, Table]:
    found = MetaData()
    found.reflect(conn, only=names)
    return found.tables


def _fill(conn: Connection, names: tuple[str, ...], policy: list[dict[str, Any]]) -> Released:
    now_ms, put = db_now_ms(conn), _Writer(conn, _reflected(conn, names))
    _base(put, policy, now_ms)
    if "job" in names:
        for number, row in enumerate(_jobs(now_ms), 1):
            _job(put, number, row)
    highest = {name: put.gone(name) for name in NUMBERED if name in names}
    return Released(rows=read(conn, names), highest=highest, now_ms=now_ms, policy=policy)


def _base(put: "_Writer", policy: list[dict[str, Any]], now_ms: int) -> None:
    texts = dict.fromkeys(("config", "client_config", "seed_client_config", "scopes"), "{}")
    put("fleet_cluster", name="cluster-größe", **texts, created_at=now_ms, updated_at=now_ms)
    put("access_token", name="ci", prefix="dn_ab12", hash="a" * 64, scopes="job", created_at=now_ms)
    older = {"rules": POLICIES["seed"]}
    put("retention_policy", body=json.dumps(older), origin="seed", created_at=now_ms - 9 * HOUR_MS, created_by="system")
    put("retention_policy", body=json.dumps({"rules": policy}), origin="user", created_at=now_ms, created_by="ann", reason="größer")
    put("lease", name="retention-sweep", holder="m1", epoch=41, until=now_ms - 5)
    clock = {"database_ms": now_ms - 900_000, "readings": {"boot-1": [5_000, now_ms - 900_000]}}
    put("retention_mark", name="clock", body=json.dumps(clock), changed_at=now_ms, changed_by="m1")
    put("retention_mark", name="paused", body='{"paused": false}', changed_at=now_ms, changed_by="ann")
    done = {"holder": "m1", "started_at": now_ms - 99, "policy_version": 1, "trigger": "schedule"}
    put("retention_run", **done, state="DONE", epoch=40, finished_at=now_ms - 9, classified=7, examined=7, removed=5)
    put("retention_run", **done, state="RUNNING", epoch=41)
    batch = {"run_id": 1, "rule": "default", "action": "delete", "at": now_ms - 50, "removed": 5}
    put("retention_batch", **batch, oldest_at=1, newest_at=2, ids_digest="d" * 64)


def _jobs(now_ms: int) -> Iterator[dict[str, Any]]:
    """Every end state at every age, some held, some that ran for long; and some that have not ended, however old."""
    number = 0
    for age_h in AGES_H:
        for state in (*ENDED, *UNENDED):
            number += 1
            ended = state in ENDED
            finished = now_ms - int(age_h * HOUR_MS) if ended else None
            ran_h = 30.0 if number % 7 == 0 else 0.1
            yield {
                "type": TYPES[number % 5] if number % 3 else "preheat", "state": state, "owner": f"o{number % 4}",
                "tag": "nightly" if number % 4 == 0 else "", "application": f"app-{number % 3}",
                "held": int(ended and number % 11 == 0), "created_at": now_ms - int((age_h + ran_h) * HOUR_MS),
                "finished_at": finished,
                "class": ("", "4dbd2d00:default", "held", "4dbd2d00:-")[number % 4],
            }  # fmt: skip


def _job(put: "_Writer", number: int, row: dict[str, Any]) -> None:
    at = row["created_at"]
    reason = {"hold_reason": "the auditors want it"} if row["held"] else {}
    key = put(
        "job", **row, **reason, uuid=f"00000000-0000-0000-0000-{number:012}", summary=f"http://x/größe-{number}", part_count=1,
        idempotency_key=f"key-{number}" if number % 2 else None, deadline_at=at + 99, updated_at=row["finished_at"] or at,
        cluster_count=1,
    )  # fmt: skip
    put("job_payload", job_id=key, args=json.dumps({"url": f"http://x/{number}"}), result=None)
    put("job_cluster", job_id=key, cluster_id=1)
    state = row["state"] if row["state"] in ENDED else "WAITING"
    part = {"job_id": key, "cluster_id": 1, "ordinal": 0, "url": f"http://x/{number}", "state": state, "hosts": b"[]"}
    put("job_part", **part, created_at=at, updated_at=at)
    put("job_event", job_id=key, at=at, kind="created", message="made")
    if row["finished_at"] is None:
        put("job_secret", job_id=key, sealed=b"\x00\xff secret")


class _Writer:
    """Writes rows into tables as they are."""

    def __init__(self, conn: Connection, tables: Mapping[str, Table]) -> None:
        self._conn = conn
        self._tables = tables

    def __call__(self, table: str, **values: Any) -> int:
        """Write a row; its key, if that is a number."""
        made = self._conn.execute(insert(self._tables[table]).values(**values)).inserted_primary_key
        assert made is not None
        return int(made[0]) if isinstance(made[0], int) else 0

    def gone(self, name: str) -> int:
        """Copy the last row and delete the copy: its id was the highest ever given."""
        table = self._tables[name]
        last = dict(self._conn.execute(select(table).order_by(table.c.id.desc()).limit(1)).mappings().one())
        del last["id"]
        last |= {key: f"gone-{last[key]}"[:36] for key in ("name", "uuid", "idempotency_key", "hash") if last.get(key)}
        last |= {"ordinal": 9} if name == "job_part" else {}
        key = self(name, **last)
        self._conn.execute(delete(table).where(table.c.id == key))
        return key
