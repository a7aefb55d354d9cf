"""What MariaDB, MySQL and PostgreSQL need beyond SQL: settings of each connection, lean binary logs, limits, replicas.

A connection whose other end vanished without a word is noticed in half a minute, on both sides: the driver's socket by keep-alive,
the server's transaction by a limit on idling, or its locks would stay for hours.
"""

import socket
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, exc
from sqlalchemy.engine import URL

from darner.core.errors import InvalidInputError

MYSQL = frozenset({"mysql", "mariadb"})
GALERA_CAP = 1_000
_CONNECT_S = 5
_IDLE_S, _PROBE_S, _PROBES = 10, 5, 3
_UNACKED_MS = 20_000
_IDLE_IN_TRANSACTION_S = 120
_DENIED = frozenset({1227, 1193})  # a privilege is missing; there is no such variable
_LEAN, _LEAN_DENIED = "darner_lean", "darner_lean_denied"


def connect_arguments(backend: str, drivername: str) -> dict[str, Any]:
    """What the driver is given when it connects."""
    if backend == "postgresql" and drivername.endswith("+psycopg"):
        alive = {"keepalives": 1, "keepalives_idle": _IDLE_S, "keepalives_interval": _PROBE_S, "keepalives_count": _PROBES}
        return {"connect_timeout": _CONNECT_S, "tcp_user_timeout": _UNACKED_MS, "application_name": "darner", **alive}
    return {"connect_timeout": _CONNECT_S} if backend in MYSQL else {}


def checked(url: URL) -> URL:
    """The URL; InvalidInputError if it names no database."""
    if not url.database:
        raise InvalidInputError("The database URL names no database: write …@host/name.", field="database")
    return url


def on_connect(dialect: str, lock_wait_s: float) -> Callable[[Any, object], None]:
    """Prepares a new connection."""
    settings = _settings(dialect, lock_wait_s)

    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401  (the driver's)
        if dialect in MYSQL:
            _keep_alive(getattr(connection, "_sock", None))
        cursor = connection.cursor()
        for setting, is_needed in settings:
            try:
                cursor.execute(setting)
            except Exception:
                if is_needed:
                    raise
        cursor.close()
        connection.commit()

    return prepare


def _settings(dialect: str, lock_wait_s: float) -> list[tuple[str, bool]]:
    """Statements, and whether Darner cannot do without them."""
    if dialect in MYSQL:
        return [
            ("SET SESSION time_zone = '+00:00'", True),
            ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", True),
            # Beyond 200 keys in a list MariaDB would not look at the index, guess, and read the whole table.
            ("SET SESSION eq_range_index_dive_limit = 0", False),
            (f"SET SESSION innodb_lock_wait_timeout = {max(1, round(lock_wait_s))}", True),
            (f"SET SESSION idle_transaction_timeout = {_IDLE_IN_TRANSACTION_S}", False),  # MariaDB's
        ]
    return [
        ("SET TIME ZONE 'UTC'", True),
        (f"SET lock_timeout = {round(lock_wait_s * 1000)}", True),
        (f"SET idle_in_transaction_session_timeout = '{_IDLE_IN_TRANSACTION_S}s'", True),
    ]


def _keep_alive(sock: object) -> None:
    if not isinstance(sock, socket.socket) or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("IDLE", _IDLE_S), ("INTVL", _PROBE_S), ("CNT", _PROBES)):
        if (option := getattr(socket, f"TCP_KEEP{name}", None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, _UNACKED_MS)


def lean_binlog(conn: Connection) -> bool:
    """Ask for a binary log that names deleted rows by their key alone, until this transaction ends; whether it will.

    28 bytes per deleted row instead of 2,000 (spec/retention.md, fact 9). It takes a privilege (BINLOG ADMIN; MySQL:
    SESSION_VARIABLES_ADMIN); without it all stays as it is, and is not tried again on this connection. False on other dialects.
    """
    if conn.dialect.name not in MYSQL or conn.info.get(_LEAN_DENIED):
        return False
    if not conn.info.get(_LEAN):
        try:
            conn.exec_driver_sql("SET SESSION binlog_row_image = 'MINIMAL'")
        except exc.DBAPIError as error:
            if error.orig is None or error.orig.args[:1] == () or error.orig.args[0] not in _DENIED:
                raise
            conn.info[_LEAN_DENIED] = True
            return False
        conn.info[_LEAN] = True
    return True


def forget_lean(conn: Connection) -> None:
    """The opposite, after the end of a transaction. Never raises: what was committed stays so."""
    if conn.dialect.name not in MYSQL or conn.invalidated:
        return
    try:
        if conn.info.pop(_LEAN, None):
            conn.exec_driver_sql("SET SESSION binlog_row_image = DEFAULT")
    except exc.DBAPIError:
        conn.invalidate()


def batch_cap(conn: Connection) -> int | None:
    """The most rows that one transaction should change: Galera and group replication stop the cluster for larger ones."""
    if conn.dialect.name not in MYSQL:
        return None
    found = variables(conn, "wsrep_on", "group_replication_group_name")
    return GALERA_CAP if found.get("wsrep_on") == "ON" or found.get("group_replication_group_name") else None


def replica_lag_s(conn: Connection) -> float | None:
    """How far this server is behind the one it copies from (seconds); None if it copies from none, or that may not be read."""
    if conn.dialect.name == "postgresql":
        lag = "SELECT CASE WHEN pg_is_in_recovery() THEN EXTRACT(EPOCH FROM now() - pg_last_xact_replay_timestamp()) END"
        value = conn.exec_driver_sql(lag).scalar()
        return None if value is None else float(value)
    if conn.dialect.name not in MYSQL:
        return None
    try:
        row = conn.exec_driver_sql("SHOW REPLICA STATUS").mappings().first()
    except exc.DBAPIError:
        return None
    value = None if row is None else row.get("Seconds_Behind_Source", row.get("Seconds_Behind_Master"))
    return None if value is None else float(value)


def variables(conn: Connection, *names: str) -> dict[str, str]:
    """Variables of MySQL; those that it does not have are left out."""
    listed = ", ".join(f"'{name}'" for name in names)
    return {str(name): str(value) for name, value in conn.exec_driver_sql(f"SHOW VARIABLES WHERE Variable_name IN ({listed})")}
