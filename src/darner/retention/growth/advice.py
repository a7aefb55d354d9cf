"""What a person can do about room that Darner does not give back by itself, and about a ladder that has no steps left. Texts."""

from sqlalchemy import Connection, text

from darner.db.servers import MYSQL
from darner.db.sizes import TableSize, sizes
from darner.kit.units import format_size
from darner.retention.growth.ladder import Stage, warn_below
from darner.retention.growth.values import Disk, Sample

_WORTH_BYTES = 64 * 1024**2
_WORTH_SHARE = 0.2
_ADVISED = 3


def server_advice(conn: Connection) -> list[str]:
    """Tables of a server whose free room is worth a person's time; nothing on SQLite, where it is given back."""
    if conn.dialect.name == "sqlite":
        return []
    wasteful = [one for one in sizes(conn).tables if one.reclaimable >= max(_WORTH_BYTES, one.bytes * _WORTH_SHARE)][:_ADVISED]
    if conn.dialect.name in MYSQL:
        return [_mysql(one) for one in wasteful]
    vacuumed = _vacuumed(conn)
    return [_postgresql(one, vacuumed.get(one.name)) for one in wasteful]


def ladder_advice(stage: Stage, sample: Sample | None, *, opted_in: bool) -> list[str]:
    """What to do at a stage where gentle steps did not suffice."""
    if stage < Stage.SUGGEST:
        return []
    found = ["What loses nothing is done; consider a shorter archive (or removal) in the policy: `darner retention preview`."]
    if sample is not None and sample.counts.tier_bytes:
        heaviest, takes = max(sample.counts.tier_bytes.items(), key=lambda one: one[1])
        found.append(f"Most room is taken by {heaviest} jobs: about {format_size(takes)}.")
    if not opted_in:
        found.append("Darner removes nothing early unless asked to: `darner retention budget set … --shorten 7d`.")
    if stage == Stage.REFUSE:
        found.append("New jobs of low importance are refused until there is room: enlarge the disk, or shorten the history.")
    return found


def archive_advice(disk: Disk | None) -> list[str]:
    """What to do when the archive's own disk is nearly full; archiving earlier would not help it."""
    if disk is None or disk.free >= warn_below(disk.bytes):
        return []
    left = f"{format_size(disk.free)} of {format_size(disk.bytes)}"
    return [
        f"The archive's disk has {left} left; when it is full, jobs wait in the database. Enlarge it, or archive for less long."
    ]


def _mysql(table: TableSize) -> str:
    room = format_size(table.reclaimable)
    how = f"`OPTIMIZE TABLE {table.name}` returns it, by copying the table"
    return f"{table.name}: {room} free inside the table, which new rows will use. {how}."


def _postgresql(table: TableSize, vacuumed: str | None) -> str:
    last = f"autovacuum last ran {vacuumed}" if vacuumed else "autovacuum has not run yet"
    return (
        f"{table.name}: about {format_size(table.reclaimable)} of dead rows ({last}). `VACUUM {table.name}` frees it for new rows; "
        f"`REINDEX TABLE CONCURRENTLY {table.name}` shrinks its indexes."
    )


def _vacuumed(conn: Connection) -> dict[str, str]:
    asked = text(
        "SELECT relname, GREATEST(last_autovacuum, last_vacuum) FROM pg_stat_user_tables WHERE schemaname = current_schema()"
    )
    return {name: f"{at:%Y-%m-%d %H:%M} UTC" for name, at in conn.execute(asked) if at is not None}
