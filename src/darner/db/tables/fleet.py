"""Clusters, schedulers, applications, and the hosts that schedulers know. JSON is kept as text: lists never look into it."""

from sqlalchemy import Boolean, Column, Index, Integer, String, UniqueConstraint, false

from darner.db.tables.meta import Id, LongText, Millis, numbered_table

fleet_cluster = numbered_table(
    "fleet_cluster",
    Column("name", String(256), nullable=False),
    Column("bio", String(1024), nullable=False, server_default=""),
    Column("config", LongText, nullable=False),
    Column("client_config", LongText, nullable=False),
    Column("seed_client_config", LongText, nullable=False),
    Column("scopes", LongText, nullable=False),
    Column("is_default", Boolean, nullable=False, server_default=false()),
    Column("created_at", Millis, nullable=False),
    Column("updated_at", Millis, nullable=False),
    UniqueConstraint("name"),
)

fleet_scheduler = numbered_table(
    "fleet_scheduler",
    Column("cluster_id", Id, nullable=False),
    Column("hostname", String(256), nullable=False),
    Column("ip", String(64), nullable=False),
    Column("port", Integer, nullable=False),
    Column("state", String(16), nullable=False, server_default="inactive"),
    Column("idc", String(1024), nullable=False, server_default=""),
    Column("location", String(1024), nullable=False, server_default=""),
    Column("features", String(1024), nullable=False),
    Column("config", LongText, nullable=False),
    Column("last_keep_alive_at", Millis),
    Column("created_at", Millis, nullable=False),
    Column("updated_at", Millis, nullable=False),
    UniqueConstraint("cluster_id", "hostname", "ip"),
    Index("ix_fleet_scheduler_state", "state", "last_keep_alive_at"),
)

fleet_application = numbered_table(
    "fleet_application",
    Column("name", String(256), nullable=False),
    Column("url", LongText, nullable=False),
    Column("bio", String(1024), nullable=False, server_default=""),
    Column("priority", LongText, nullable=False),
    Column("created_at", Millis, nullable=False),
    Column("updated_at", Millis, nullable=False),
    UniqueConstraint("name"),
)

# `facts` is the host as it was reported (JSON), `fingerprint` its digest: an unchanged host costs only its new `updated_at`.
fleet_host = numbered_table(
    "fleet_host",
    Column("cluster_id", Id, nullable=False),
    Column("host_id", String(256), nullable=False),
    Column("hostname", String(256), nullable=False),
    Column("ip", String(64), nullable=False),
    Column("seed", Boolean, nullable=False, server_default=false()),
    Column("facts", LongText, nullable=False),
    Column("fingerprint", String(32), nullable=False),
    Column("created_at", Millis, nullable=False),
    Column("updated_at", Millis, nullable=False),
    UniqueConstraint("cluster_id", "host_id"),
    Index("ix_fleet_host_seed", "seed", "id"),
    Index("ix_fleet_host_updated_at", "updated_at"),
)
