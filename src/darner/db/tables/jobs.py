"""Tables of jobs: the narrow job, its payload and secrets, its clusters, parts and timeline; and what they fold into.

An ended job is *hot* (rows in all these tables) or *warm*: then `job_fold` holds everything but the columns that lists filter and
sort by, and `job_payload` and `job_part` have no row of it (room `history`). Removing a job removes its rows in all of `JOB_TABLES`
in one transaction. SQLite ends every index with the key by itself, so there the migrations leave `id` away.
"""

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.dialects import mysql

from darner.db.tables.meta import Id, LongText, Millis, keyed_table, numbered_table

LongBinary = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")

job = numbered_table(
    "job",
    Column("uuid", String(36), nullable=False, server_default=""),
    Column("type", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", String(128), nullable=False, server_default=""),
    Column("cluster_count", Integer, nullable=False, server_default="0"),
    Column("part_count", Integer, nullable=False, server_default="0"),
    Column("part_done", Integer, nullable=False, server_default="0"),
    Column("part_failed", Integer, nullable=False, server_default="0"),
    Column("bytes_total", Id, nullable=False, server_default="0"),
    Column("bytes_done", Id, nullable=False, server_default="0"),
    Column("summary", String(512), nullable=False, server_default=""),
    Column("error", String(1024), nullable=False, server_default=""),
    Column("tag", String(1024), nullable=False, server_default=""),
    Column("application", String(1024), nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("bio", String(1000), nullable=False, server_default=""),
    Column("idempotency_key", String(64)),
    Column("created_at", Millis, nullable=False),
    Column("started_at", Millis),
    Column("finished_at", Millis),
    Column("deadline_at", Millis, nullable=False, server_default="0"),
    Column("updated_at", Millis, nullable=False),
    # What the rules match, beside type, state and owner: `labels` is JSON, keys sorted, or empty.
    Column("labels", String(1024), nullable=False, server_default=""),
    Column("importance", Integer, nullable=False, server_default="0"),
    # The retention class (`retention_class.id`) and the moment that ages are counted from: the end, or what its rule says.
    Column("class", Integer, nullable=False, server_default="0"),
    Column("tier", Integer, nullable=False, server_default="0"),
    Column("base_at", Millis),
    Column("held", Integer, nullable=False, server_default="0"),
    Column("hold_reason", String(512), nullable=False, server_default=""),
    Index("uq_job_idempotency_key", "idempotency_key", unique=True),
    Index("ix_job_class", "class", "tier", "base_at", "id"),
    Index("ix_job_created_at", "created_at", "id"),
    Index("ix_job_state", "state", "created_at", "id"),
    Index("ix_job_type", "type", "created_at", "id"),
    Index("ix_job_owner", "owner", "created_at", "id"),
)

job_payload = keyed_table(
    "job_payload",
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("args", LongText, nullable=False),
    Column("result", LongText),
)

# Dropped when the job ends.
job_secret = keyed_table(
    "job_secret",
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("sealed", LongBinary, nullable=False),
)

job_cluster = keyed_table(
    "job_cluster",
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("cluster_id", Id, primary_key=True, autoincrement=False),
)

# A job planned twice at the same time must not have its parts twice, hence the unique ordinal.
job_part = numbered_table(
    "job_part",
    Column("job_id", Id, nullable=False),
    Column("cluster_id", Id, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("url", Text, nullable=False),
    Column("digest", String(160), nullable=False, server_default=""),
    Column("size_bytes", Id, nullable=False, server_default="0"),
    Column("target_count", Integer, nullable=False, server_default="0"),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_id", String(36), nullable=False, server_default=""),
    Column("lease_holder", String(128), nullable=False, server_default=""),
    Column("lease_until", Millis, nullable=False, server_default="0"),
    Column("bytes_done", Id, nullable=False, server_default="0"),
    Column("piece_count", Integer, nullable=False, server_default="0"),
    Column("pieces_done", Integer, nullable=False, server_default="0"),
    Column("error", String(1024), nullable=False, server_default=""),
    Column("hosts", LongBinary, nullable=False),
    Column("verified", Integer, nullable=False, server_default="0"),
    Column("not_before", Millis, nullable=False, server_default="0"),
    Column("created_at", Millis, nullable=False),
    Column("started_at", Millis),
    Column("finished_at", Millis),
    Column("updated_at", Millis, nullable=False),
    UniqueConstraint("job_id", "cluster_id", "ordinal"),
    Index("ix_job_part_state", "state", "cluster_id", "not_before", "id"),
    Index("ix_job_part_job_id", "job_id", "id"),
    Index("ix_job_part_lease_id", "lease_id"),
)

job_event = numbered_table(
    "job_event",
    Column("job_id", Id, nullable=False),
    Column("part_id", Id),
    Column("at", Millis, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("message", String(1024), nullable=False, server_default=""),
    Index("ix_job_event_job_id", "job_id", "id"),
)

# A whole job, compressed. `dict_id` names the dictionary (`history_dictionary.id`), 0 for none; `raw_len` its length before.
job_fold = keyed_table(
    "job_fold",
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("dict_id", Integer, nullable=False),
    Column("raw_len", Integer, nullable=False),
    Column("body", LongBinary, nullable=False),
)

history_dictionary = numbered_table(
    "history_dictionary",
    Column("job_type", String(32), nullable=False),
    Column("body", LongBinary, nullable=False),
    Column("samples", Integer, nullable=False),
    # Bytes before over bytes after, on samples that were not trained on, times 100.
    Column("ratio_percent", Integer, nullable=False),
    Column("created_at", Millis, nullable=False),
    Index("ix_history_dictionary_job_type", "job_type", "id"),
)

# Only for jobs whose rule keeps the last N of a group; `group_key` is a hash of what they are grouped by.
job_group = keyed_table(
    "job_group",
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("group_key", Id, nullable=False),
    Column("finished_at", Millis, nullable=False),
    Index("ix_job_group_group_key", "group_key", "finished_at", "job_id"),
)

JOB_TABLES = (job, job_payload, job_secret, job_cluster, job_part, job_event, job_fold, job_group)
