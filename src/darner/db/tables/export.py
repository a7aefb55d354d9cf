"""Jobs on their way to a log system: a row per job and sink, from when the job's rule names a sink until the job is gone."""

from sqlalchemy import Column, Index, Integer, String, UniqueConstraint

from darner.db.tables.meta import Id, Millis, numbered_table

export_outbox = numbered_table(
    "export_outbox",
    Column("job_id", Id, nullable=False),
    Column("sink", String(64), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Millis, nullable=False),
    Column("not_before", Millis, nullable=False, server_default="0"),
    Column("acked_at", Millis),
    Column("error", String(512), nullable=False, server_default=""),
    UniqueConstraint("job_id", "sink"),
    Index("ix_export_outbox_sink", "sink", "acked_at", "not_before", "id"),
)
