"""The catalogue of the archive: which segments there are, how far their handover is, and which of their jobs no longer count."""

from sqlalchemy import Column, Index, Integer, String

from darner.db.tables.meta import Id, LongText, Millis, keyed_table, numbered_table

# `state`: PLANNED, WRITTEN, SEALED, LIVE, EXPIRED, REPLACED, DROPPING, DROPPED (spec/retention.md, 5.5). `location` is relative to
# the archive's root. One segment holds jobs of one rule, so that it falls due as a whole, by `max_base_at`. `facets`: JSON, what a
# search can rule out.
archive_segment = numbered_table(
    "archive_segment",
    Column("state", String(16), nullable=False),
    Column("rule", String(64), nullable=False),
    Column("policy_version", Id, nullable=False),
    Column("epoch", Id, nullable=False),
    Column("location", String(512), nullable=False, server_default=""),
    Column("format", Integer, nullable=False, server_default="1"),
    Column("row_count", Id, nullable=False, server_default="0"),
    Column("deleted", Id, nullable=False, server_default="0"),
    Column("skipped", Id, nullable=False, server_default="0"),
    Column("bytes", Id, nullable=False, server_default="0"),
    Column("sha256", String(64), nullable=False, server_default=""),
    Column("rows_digest", String(64), nullable=False, server_default=""),
    Column("min_id", Id, nullable=False, server_default="0"),
    Column("max_id", Id, nullable=False, server_default="0"),
    Column("min_created_at", Millis, nullable=False, server_default="0"),
    Column("max_created_at", Millis, nullable=False, server_default="0"),
    Column("max_base_at", Millis, nullable=False, server_default="0"),
    Column("facets", LongText),
    Column("replaced_by", Id),
    Column("error", String(1024), nullable=False, server_default=""),
    Column("created_at", Millis, nullable=False),
    Column("sealed_at", Millis),
    Column("expired_at", Millis),
    Index("ix_archive_segment_state", "state", "max_created_at", "id"),
)

# Jobs in a segment that are not to be found there: they stayed at the handover, were restored, or erased.
archive_absent = keyed_table(
    "archive_absent",
    Column("segment_id", Id, primary_key=True, autoincrement=False),
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("reason", String(16), nullable=False),
    Index("ix_archive_absent_job_id", "job_id"),
)

# Who had jobs erased from the archive, and why. `ids`: JSON; nothing of what the jobs were.
archive_erasure = numbered_table(
    "archive_erasure",
    Column("at", Millis, nullable=False),
    Column("by", String(128), nullable=False),
    Column("reason", String(512), nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("segments", Integer, nullable=False),
    Column("ids", LongText, nullable=False),
)
