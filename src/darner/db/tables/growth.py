"""How the database grows: a sample each hour. `body` is JSON (retention.growth)."""

from sqlalchemy import Column, Index

from darner.db.tables.meta import LongText, Millis, numbered_table

growth_sample = numbered_table(
    "growth_sample",
    Column("at", Millis, nullable=False),
    Column("body", LongText, nullable=False),
    Index("ix_growth_sample_at", "at", "id"),
)
