"""Tables, migrations, and everything that differs between SQLite, MySQL/MariaDB and PostgreSQL.

In: functions that take a SQLAlchemy connection. Out: their results, each call one transaction. Refuses: a schema newer than the
code, deletes and updates without a bound, and second attempts at a transaction that may have been committed.
"""

from darner.db.among import Keys, among, among_keys, delete_among
from darner.db.bounded import bounded_delete, bounded_update, lock_ids
from darner.db.clock import db_now_ms
from darner.db.database import Database
from darner.db.lease import Lease, LeaseLostError, acquire_lease, check_lease, new_holder, release_lease, renew_lease
from darner.db.migrate import Schema, migrate, schema_of
from darner.db.servers import batch_cap, lean_binlog, replica_lag_s
from darner.db.statement import Statement, given

__all__ = [
    "Database",
    "Keys",
    "Lease",
    "LeaseLostError",
    "Schema",
    "Statement",
    "acquire_lease",
    "among",
    "among_keys",
    "batch_cap",
    "bounded_delete",
    "bounded_update",
    "check_lease",
    "db_now_ms",
    "delete_among",
    "given",
    "lean_binlog",
    "lock_ids",
    "migrate",
    "new_holder",
    "release_lease",
    "renew_lease",
    "replica_lag_s",
    "schema_of",
]
