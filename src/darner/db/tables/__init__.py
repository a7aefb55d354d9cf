"""All tables, as SQLAlchemy Core objects on one `metadata`."""

from darner.db.tables import access, fleet, retention
from darner.db.tables.meta import metadata

__all__ = ["access", "fleet", "metadata", "retention"]
