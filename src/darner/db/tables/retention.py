"""What may be forgotten: versioned policy, the history of runs, the lease of the sweeper, and what it knows about the clock."""

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, UniqueConstraint, false

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
    # When and by whom what it removes was confirmed, with a preview's token or on a run that was held back.
    Column("confirmed_at", Millis),
    Column("confirmed_by", String(128), nullable=False, server_default=""),
    **NUMBERED,
)

# A retention class: the rule that decides about a job, under one way of sorting them (`scheme`). Ids below 16 are fixed
# (`retention.rules`).
retention_class = numbered_table(
    "retention_class",
    Column("scheme", String(16), nullable=False),
    Column("rule", String(64), nullable=False),
    UniqueConstraint("scheme", "rule"),
)

# Keeps a job (`job_id`), or all jobs that match (`selector`, JSON like a rule's match), whatever the policy says.
retention_hold = numbered_table(
    "retention_hold",
    Column("job_id", Id),
    Column("selector", LongText),
    Column("reason", String(512), nullable=False),
    Column("created_at", Millis, nullable=False),
    Column("created_by", String(128), nullable=False, server_default=""),
    Column("until", Millis),
    Index("ix_retention_hold_job_id", "job_id"),
)

# What a person was shown before a change or a run; its token binds them to it.
retention_preview = keyed_table(
    "retention_preview",
    Column("token", String(64), primary_key=True),
    Column("policy_digest", String(64), nullable=False),
    Column("body", LongText, nullable=False),
    Column("created_at", Millis, nullable=False),
    Column("created_by", String(128), nullable=False, server_default=""),
    Index("ix_retention_preview_created_at", "created_at"),
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
    # Jobs moved by step: hot to warm, to the archive, hidden (soft-deleted), and gone.
    Column("folded", Id, nullable=False, server_default="0"),
    Column("archived", Id, nullable=False, server_default="0"),
    Column("hidden", Id, nullable=False, server_default="0"),
    Column("removed", Id, nullable=False, server_default="0"),
    Column("bytes", Id, nullable=False, server_default="0"),
    Column("cancel_asked", Boolean, nullable=False, server_default=false()),
    Column("error", String(1024), nullable=False, server_default=""),
    Column("report", LongText),
    Index("ix_retention_run_state", "state", "id"),
)

# The audit of each transaction that moved or removed jobs. Content-free: counts, ranges, and a digest of the ids.
# `action`: fold, archive, hide, delete, … `removed` counts the jobs, `bytes` what they took before.
retention_batch = numbered_table(
    "retention_batch",
    Column("run_id", Id, nullable=False),
    Column("rule", String(64), nullable=False),
    Column("action", String(16), nullable=False),
    Column("at", Millis, nullable=False),
    Column("removed", Integer, nullable=False),
    Column("bytes", Id, nullable=False, server_default="0"),
    Column("policy_version", Id),
    Column("epoch", Id, nullable=False, server_default="0"),
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
