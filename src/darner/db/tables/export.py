"""Jobs on their way to a log system: a row per job and sink, from when the job's rule names a sink until the job is gone.

Waiting rows are those without `acked_at`; where the database can, only they are in the index that finds the next ones. A row is due
from `not_before` on, which is its `created_at` until a sink has refused it.
"""

from sqlalchemy import Column, Index, Integer, String, UniqueConstraint, text

from darner.db.tables.meta import Id, Millis, keyed_table, numbered_table

_WAITING = text("acked_at IS NULL")

export_outbox = numbered_table(
    "export_outbox",
    Column("job_id", Id, nullable=False),
    Column("sink", String(64), nullable=False),
    # How often the sink has refused this very row, and what it said last.
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Millis, nullable=False),
    Column("not_before", Millis, nullable=False, server_default="0"),
    Column("acked_at", Millis),
    Column("error", String(512), nullable=False, server_default=""),
    UniqueConstraint("job_id", "sink"),
    Index(
        "ix_export_outbox_sink", "sink", "acked_at", "not_before", "created_at", "id",
        sqlite_where=_WAITING, postgresql_where=_WAITING,
    ),
)  # fmt: skip

# Every sink that a job was ever put on the way to, and how the last deliveries went, for whichever manager is asked.
export_sink = keyed_table(
    "export_sink",
    Column("name", String(64), primary_key=True),
    Column("delivered", Id, nullable=False, server_default="0"),
    # Jobs that were gone before they were delivered: a person removed them.
    Column("lost", Id, nullable=False, server_default="0"),
    Column("acked_at", Millis),
    # Deliveries that failed in a row, since when, and why the last one did.
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("failing_since", Millis),
    Column("failed_at", Millis),
    Column("error", String(512), nullable=False, server_default=""),
)
