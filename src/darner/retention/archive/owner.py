"""Whose archive it is: asked before anything is written or deleted there."""

import asyncio

from sqlalchemy import Connection, select

from darner.core.errors import UnavailableError
from darner.db import Database
from darner.db.tables.archive import archive_segment
from darner.retention.archive.catalog import SegmentState
from darner.retention.archive.storage import Storage
from darner.retention.sweep.begin import instance_of


async def claim(db: Database, storage: Storage) -> None:
    """UnavailableError unless the archive is this database's. It is marked as such while no segment was ever stored."""

    def known(conn: Connection) -> tuple[str, bool]:
        stored = archive_segment.c.state.not_in([SegmentState.PLANNED, SegmentState.DROPPED])
        return instance_of(conn), conn.execute(select(archive_segment.c.id).where(stored).limit(1)).first() is None

    owner, fresh = await db.read(known)
    if not owner:
        raise UnavailableError("This database has no id yet; the archive waits for the manager to give it one.")
    await asyncio.to_thread(lambda: storage.claim(owner, fresh=fresh))
