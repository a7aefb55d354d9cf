"""How the database grows: a sample each hour. `body` is JSON (retention.growth)."""

from sqlalchemy import Column, Index

from darner.db.tables.meta import Id, LongText, Millis, numbered_table

# `slot`: the hour that a sample is of, counted from 1970, so that no hour has two.
growth_sample = numbered_table(
    "growth_sample",
    Column("at", Millis, nullable=False),
    Column("slot", Id, nullable=False),
    Column("body", LongText, nullable=False),
    Index("ix_growth_sample_at", "at", "id"),
    Index("ix_growth_sample_slot", "slot", unique=True),
)
