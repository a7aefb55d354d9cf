"""A lease: one holder at a time, by a row with an epoch that only grows (spec/retention.md, 4.6).

Session locks get lost with their connection or outlive their owner; a row does neither. The epoch is checked inside each
transaction that does what only the holder may do (fencing), so a holder that was paused for an hour changes nothing.
All times are the database's.
"""

import os
import secrets
import socket
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, exc, insert, select, update

from darner.core.errors import ConflictError
from darner.db.clock import db_now_ms
from darner.db.migrate import refuse_unknown_schema
from darner.db.tables.retention import lease


class LeaseLostError(ConflictError):
    """The lease is held by someone else now; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease as it was given. `until_ms` is by the database's clock."""

    name: str
    holder: str
    epoch: int
    until_ms: int


def new_holder() -> str:
    """A name for this process that no other has: host, process id, and chance, because both come again."""
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(4)}"


def acquire_lease(conn: Connection, name: str, holder: str, *, ttl_s: float) -> Lease | None:
    """Take the lease if it is free, run out, or ours already; None when another holds it. The epoch grows each time.

    ConflictError if a newer Darner has upgraded the database meanwhile: what the lease is for may have changed its meaning.
    """
    refuse_unknown_schema(conn)
    now = db_now_ms(conn)
    until = now + int(ttl_s * 1000)
    row = conn.execute(select(lease).where(lease.c.name == name).with_for_update()).one_or_none()
    if row is None:
        try:
            with conn.begin_nested():
                conn.execute(insert(lease).values(name=name, holder=holder, epoch=1, until=until))
        except exc.IntegrityError:  # another made the row at the same moment, and holds it
            return None
        return Lease(name=name, holder=holder, epoch=1, until_ms=until)
    if row.holder not in {"", holder} and row.until > now:
        if row.until > until + int(ttl_s * 1000):
            # Given by a clock that was wrong. Whoever lives renews it; else it ends in time now.
            conn.execute(update(lease).where(lease.c.name == name).values(until=until))
        return None
    conn.execute(update(lease).where(lease.c.name == name).values(holder=holder, epoch=row.epoch + 1, until=until))
    return Lease(name=name, holder=holder, epoch=row.epoch + 1, until_ms=until)


def renew_lease(conn: Connection, held: Lease, *, ttl_s: float) -> Lease:
    """Hold on for another `ttl_s`; LeaseLostError if it ran out or another took it."""
    now = check_lease(conn, held)
    until = now + int(ttl_s * 1000)
    conn.execute(update(lease).where(_is(held)).values(until=until))
    return Lease(name=held.name, holder=held.holder, epoch=held.epoch, until_ms=until)


def check_lease(conn: Connection, held: Lease) -> int:
    """The fence: the present moment (unix ms) if the lease is still ours, else LeaseLostError. Locks the row on servers."""
    until = conn.execute(select(lease.c.until).where(_is(held)).with_for_update()).scalar_one_or_none()
    now = db_now_ms(conn)
    if until is None or until <= now:
        raise LeaseLostError
    return now


def release_lease(conn: Connection, held: Lease) -> None:
    """Give it back at once; does nothing when another holds it."""
    conn.execute(update(lease).where(_is(held)).values(holder="", until=0))


def _is(held: Lease) -> ColumnElement[bool]:
    return and_(lease.c.name == held.name, lease.c.holder == held.holder, lease.c.epoch == held.epoch)
