"""The jobs room's tables, read and written: `SqlJobBook`, `SqlWorkBook`, `SqlHistory`. Every call is one transaction."""

from darner.jobs.sql.book import SqlJobBook
from darner.jobs.sql.history import SqlHistory
from darner.jobs.sql.work import SqlWorkBook

__all__ = ["SqlHistory", "SqlJobBook", "SqlWorkBook"]
