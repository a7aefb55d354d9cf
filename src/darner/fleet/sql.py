"""The fleet's statements: functions that take a connection and give rows as values. Each is one step of a transaction."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, insert, select, true, update

from darner.core.errors import NotFoundError
from darner.core.fleet import ApplicationInfo, ClusterInfo, SchedulerInfo
from darner.core.work import SeenHost
from darner.db import bounded_delete, bounded_update, db_now_ms
from darner.db.tables.fleet import fleet_application, fleet_cluster, fleet_host, fleet_scheduler
from darner.fleet.rules import ACTIVE, FEATURES, INACTIVE, SEED_CLUSTER
from darner.fleet.values import ClusterRow, HostFilter, HostRow, SchedulerRow

_CHUNK = 500


def seed_cluster(conn: Connection) -> bool:
    """Make the default cluster of a fresh installation (spec/manager.md, 15); False if there is a cluster already."""
    if conn.execute(select(fleet_cluster.c.id).limit(1)).first():
        return False
    now = db_now_ms(conn)
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in SEED_CLUSTER.items()}
    conn.execute(insert(fleet_cluster).values(**values, is_default=True, created_at=now, updated_at=now))
    return True


def clusters(conn: Connection) -> list[ClusterRow]:
    """All clusters, by id."""
    alive = exists().where(fleet_scheduler.c.cluster_id == fleet_cluster.c.id, fleet_scheduler.c.state == ACTIVE)
    statement = select(fleet_cluster, alive.label("active")).order_by(fleet_cluster.c.id)
    return [
        ClusterRow(
            info=_cluster_info(row),
            is_default=row.is_default,
            active=bool(row.active),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in conn.execute(statement)
    ]


def schedulers(conn: Connection) -> list[SchedulerRow]:
    """All schedulers with their clusters, by id."""
    known = {row.info.id: row.info for row in clusters(conn)}
    return [_scheduler_row(row, known) for row in conn.execute(select(fleet_scheduler).order_by(fleet_scheduler.c.id))]


def find_scheduler(conn: Connection, hostname: str, ip: str, cluster_id: int) -> SchedulerInfo:
    """By host name and cluster; an address narrows it down, as several may share a name. NotFoundError."""
    mine = (fleet_scheduler.c.cluster_id == cluster_id) & (fleet_scheduler.c.hostname == hostname)
    rows = conn.execute(select(fleet_scheduler).where(mine).order_by(fleet_scheduler.c.updated_at.desc())).all()
    found = next((row for row in rows if row.ip == ip), rows[0] if rows else None)
    if found is None:
        raise NotFoundError(f"No scheduler {hostname!r} has registered in cluster {cluster_id}.")
    return _scheduler_row(found, {row.info.id: row.info for row in clusters(conn)}).info


def put_scheduler(conn: Connection, scheduler: SchedulerInfo, config: str) -> int:
    """Insert or update by (cluster, host name, address); its id. The state is left alone: only heartbeats say who lives."""
    if not conn.execute(select(fleet_cluster.c.id).where(fleet_cluster.c.id == scheduler.scheduler_cluster_id)).first():
        raise NotFoundError(f"There is no cluster {scheduler.scheduler_cluster_id}.", field="scheduler_cluster_id")
    key = {"cluster_id": scheduler.scheduler_cluster_id, "hostname": scheduler.hostname, "ip": scheduler.ip}
    now = db_now_ms(conn)
    values = {
        "port": scheduler.port,
        "idc": scheduler.idc,
        "location": scheduler.location,
        "features": json.dumps(scheduler.features or FEATURES),
        "config": config,
        "last_keep_alive_at": now,
        "updated_at": now,
    }
    same = and_(*(fleet_scheduler.c[name] == value for name, value in key.items()))
    found = conn.execute(select(fleet_scheduler.c.id).where(same)).scalar()
    if found is None:
        made = conn.execute(insert(fleet_scheduler).values(**key, **values, state=INACTIVE, created_at=now)).inserted_primary_key
        return int((made or [0])[0])
    conn.execute(update(fleet_scheduler).where(fleet_scheduler.c.id == found).values(**values))
    return int(found)


def mark_beats(conn: Connection, ids: Sequence[int]) -> None:
    """These schedulers live now."""
    values = {"state": ACTIVE, "last_keep_alive_at": db_now_ms(conn)}
    for start in range(0, len(ids), _CHUNK):
        conn.execute(update(fleet_scheduler).where(fleet_scheduler.c.id.in_(ids[start : start + _CHUNK])).values(**values))


def mark_inactive(conn: Connection, scheduler_id: int) -> None:
    """Its heartbeats ended."""
    conn.execute(update(fleet_scheduler).where(fleet_scheduler.c.id == scheduler_id).values(state=INACTIVE))


def mark_silent(conn: Connection, *, silent_s: float) -> int:
    """Schedulers whose manager died with them are inactive too; how many there were."""
    limit = db_now_ms(conn) - int(silent_s * 1000)
    silent = (fleet_scheduler.c.state == ACTIVE) & (fleet_scheduler.c.last_keep_alive_at < limit)
    order = [fleet_scheduler.c.last_keep_alive_at]
    return bounded_update(conn, fleet_scheduler, silent, {"state": INACTIVE}, limit=_CHUNK, order_by=order)


def applications(conn: Connection) -> list[ApplicationInfo]:
    """All applications, by id."""
    rows = conn.execute(select(fleet_application).order_by(fleet_application.c.id))
    return [_application(row) for row in rows]


def put_hosts(conn: Connection, cluster_id: int, hosts: Sequence[SeenHost]) -> None:
    """These hosts were seen now. An unchanged one costs only its `updated_at`."""
    if not conn.execute(select(fleet_cluster.c.id).where(fleet_cluster.c.id == cluster_id)).first():
        raise NotFoundError(f"There is no cluster {cluster_id}.", field="cluster_id")
    now = db_now_ms(conn)
    unique = list({host.id: host for host in hosts}.values())
    for start in range(0, len(unique), _CHUNK):
        _put_chunk(conn, cluster_id, unique[start : start + _CHUNK], now)


def _put_chunk(conn: Connection, cluster_id: int, hosts: Sequence[SeenHost], now: int) -> None:
    columns = (fleet_host.c.id, fleet_host.c.host_id, fleet_host.c.fingerprint)
    here = (fleet_host.c.cluster_id == cluster_id) & fleet_host.c.host_id.in_([host.id for host in hosts])
    known = {row.host_id: row for row in conn.execute(select(*columns).where(here))}
    added: list[dict[str, Any]] = []
    for host in hosts:
        values = _host_values(host, now)
        row = known.get(host.id)
        if row is None:
            added.append({**values, "cluster_id": cluster_id, "host_id": host.id, "created_at": now})
        elif row.fingerprint != values["fingerprint"]:
            conn.execute(update(fleet_host).where(fleet_host.c.id == row.id).values(**values))
    if known:
        keys = [row.id for row in known.values()]
        conn.execute(update(fleet_host).where(fleet_host.c.id.in_(keys)).values(updated_at=now))
    if added:
        conn.execute(insert(fleet_host), added)


def _host_values(host: SeenHost, now: int) -> dict[str, Any]:
    facts = json.dumps(dataclasses.asdict(host), sort_keys=True)
    fingerprint = hashlib.blake2s(facts.encode(), digest_size=16).hexdigest()
    same = {"hostname": host.hostname[:256], "ip": host.ip[:64], "seed": host.seed}
    return {**same, "facts": facts, "fingerprint": fingerprint, "updated_at": now}


def hosts(conn: Connection, wanted: HostFilter, *, silent_s: float, page: int, per_page: int) -> tuple[list[HostRow], int]:
    """One page of hosts by id, and how many there are in all."""
    where = _host_where(wanted)
    total = conn.execute(select(func.count()).select_from(fleet_host).where(where)).scalar_one()
    limit = db_now_ms(conn) - int(silent_s * 1000)
    statement = select(fleet_host).where(where).order_by(fleet_host.c.id).limit(per_page).offset((page - 1) * per_page)
    return [_host_row(row, limit) for row in conn.execute(statement)], int(total)


def find_host(conn: Connection, key: int, *, silent_s: float) -> HostRow:
    """One host by its row's id; NotFoundError."""
    row = conn.execute(select(fleet_host).where(fleet_host.c.id == key)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no host {key}.")
    return _host_row(row, db_now_ms(conn) - int(silent_s * 1000))


def forget_hosts(conn: Connection, *, forget_s: float) -> int:
    """Drop hosts not seen for that long, at most a chunk of them; how many."""
    old = fleet_host.c.updated_at < db_now_ms(conn) - int(forget_s * 1000)
    return bounded_delete(conn, fleet_host, old, limit=_CHUNK, order_by=[fleet_host.c.updated_at])


def _host_where(wanted: HostFilter) -> ColumnElement[bool]:
    terms: list[ColumnElement[bool]] = [true()]
    if wanted.seed is not None:
        terms.append(fleet_host.c.seed == wanted.seed)
    if wanted.cluster_id is not None:
        terms.append(fleet_host.c.cluster_id == wanted.cluster_id)
    if wanted.hostname:
        terms.append(fleet_host.c.hostname == wanted.hostname)
    if wanted.ip:
        terms.append(fleet_host.c.ip == wanted.ip)
    return and_(*terms)


def _host_row(row: Row[Any], active_from: int) -> HostRow:
    known = {field.name for field in dataclasses.fields(SeenHost)}
    facts = {key: value for key, value in json.loads(row.facts).items() if key in known}
    return HostRow(
        id=row.id,
        cluster_id=row.cluster_id,
        host=SeenHost(**facts),
        active=row.updated_at >= active_from,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _cluster_info(row: Row[Any]) -> ClusterInfo:
    return ClusterInfo(
        id=row.id,
        name=row.name,
        bio=row.bio,
        config=row.config.encode(),
        client_config=row.client_config.encode(),
        seed_client_config=row.seed_client_config.encode(),
        scopes=row.scopes.encode(),
    )


def _scheduler_row(row: Row[Any], known: dict[int, ClusterInfo]) -> SchedulerRow:
    info = SchedulerInfo(
        id=row.id,
        hostname=row.hostname,
        ip=row.ip,
        port=row.port,
        scheduler_cluster_id=row.cluster_id,
        state=row.state,
        idc=row.idc,
        location=row.location,
        features=tuple(json.loads(row.features)),
        cluster=known.get(row.cluster_id),
    )
    return SchedulerRow(
        info=info,
        config=row.config,
        last_keep_alive_at=row.last_keep_alive_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _application(row: Row[Any]) -> ApplicationInfo:
    priority = json.loads(row.priority)
    urls = tuple((str(one["regex"]), int(one["value"])) for one in priority.get("urls") or ())
    return ApplicationInfo(id=row.id, name=row.name, url=row.url, bio=row.bio, priority=int(priority.get("value", 0)), urls=urls)
