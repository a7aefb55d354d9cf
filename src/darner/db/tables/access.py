"""Who may do what."""

from sqlalchemy import Column, String, UniqueConstraint

from darner.db.tables.meta import Millis, numbered_table

# The token itself is not stored: `hash` is its SHA-256 (hex), `prefix` its first characters, to tell tokens apart in a list.
access_token = numbered_table(
    "access_token",
    Column("name", String(128), nullable=False),
    Column("bio", String(1024), nullable=False, server_default=""),
    Column("prefix", String(16), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("scopes", String(256), nullable=False),
    Column("created_by", String(128), nullable=False, server_default=""),
    Column("created_at", Millis, nullable=False),
    Column("expires_at", Millis),
    Column("last_used_at", Millis),
    Column("revoked_at", Millis),
    UniqueConstraint("hash"),
)
