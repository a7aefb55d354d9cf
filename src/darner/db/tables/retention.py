"""What may be forgotten: versioned policy, the history of runs, the lease of the sweeper, and what it knows about the clock."""

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, false

from darner.db.tables.meta import NUMBERED, Id, LongText, Millis, keyed_table, metadata, numbered_table

# One row per version, never changed: the newest is in force. `body` is the policy as JSON, durations as typed.
retention_policy = Table(
    "retention_policy",
    metadata,
    Column("version", Id, primary_key=True),
    Column("body", LongText, nullable=False),
    Column("origin", String(32), nullable=False),
    Column("created_at", Millis, nullable=False),
    Column("created_by", String(128), nullable=False, server_default=""),
    Column("reason", String(1024), nullable=False, server_default=""),
    **NUMBERED,
)

retention_run = numbered_table(
    "retention_run",
    Column("policy_version", Id),
    Column("trigger", String(32), nullable=False),
    Column("dry_run", Boolean, nullable=False, server_default=false()),
    Column("state", String(16), nullable=False),
    Column("holder", String(128), nullable=False, server_default=""),
    Column("epoch", Id, nullable=False),
    Column("started_at", Millis, nullable=False),
    Column("finished_at", Millis),
    Column("classified", Id, nullable=False, server_default="0"),
    Column("examined", Id, nullable=False, server_default="0"),
    Column("removed", Id, nullable=False, server_default="0"),
    Column("error", String(1024), nullable=False, server_default=""),
    Column("report", LongText),
    Index("ix_retention_run_state", "state", "id"),
)

# The audit of each deleting transaction. Content-free: counts, ranges, and a digest of the ids.
retention_batch = numbered_table(
    "retention_batch",
    Column("run_id", Id, nullable=False),
    Column("rule", String(64), nullable=False),
    Column("action", String(16), nullable=False),
    Column("at", Millis, nullable=False),
    Column("removed", Integer, nullable=False),
    Column("oldest_at", Millis, nullable=False),
    Column("newest_at", Millis, nullable=False),
    Column("ids_digest", String(64), nullable=False),
    Index("ix_retention_batch_run_id", "run_id", "id"),
)

lease = keyed_table(
    "lease",
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("epoch", Id, nullable=False),
    Column("until", Millis, nullable=False),
)

# Switches and marks that are not policy: `paused`, `clock`. `body` is JSON.
retention_mark = keyed_table(
    "retention_mark",
    Column("name", String(32), primary_key=True),
    Column("body", LongText, nullable=False),
    Column("changed_at", Millis, nullable=False),
    Column("changed_by", String(128), nullable=False, server_default=""),
)
