"""How much the archive holds, and what a person should look at."""

from typing import Any

from sqlalchemy import Connection, func, select

from darner.db.tables.archive import archive_absent, archive_segment
from darner.retention import records
from darner.retention.archive.catalog import ERASED, READABLE, SegmentState
from darner.retention.archive.tidy import STRAYS
from darner.retention.sql.marks import mark

_SHOWN = 20


def figures(conn: Connection) -> dict[str, Any]:
    """`{segments, jobs, bytes, handing_over, hidden, erasing, strays, problems}`. `bytes`: of all files that there are."""
    segment = archive_segment.c
    of_state = select(segment.state, func.count(), func.sum(segment.row_count), func.sum(segment.bytes)).group_by(segment.state)
    found = {row[0]: (int(row[1]), int(row[2] or 0), int(row[3] or 0)) for row in conn.execute(of_state)}
    there = [found[state] for state in SegmentState if state in found and state not in {SegmentState.DROPPED, SegmentState.PLANNED}]
    shown = [found[state] for state in READABLE if state in found]
    absent = select(func.count()).select_from(archive_absent.join(archive_segment, segment.id == archive_absent.c.segment_id))
    less = int(conn.execute(absent.where(segment.state.in_(READABLE))).scalar_one())
    erasing = select(func.count()).select_from(archive_absent).where(archive_absent.c.reason == ERASED)
    return {
        "segments": sum(one[0] for one in shown),
        "jobs": sum(one[1] for one in shown) - less,
        "bytes": sum(one[2] for one in there),
        "handing_over": found.get(SegmentState.SEALED, (0, 0, 0))[0],
        "hidden": found.get(SegmentState.EXPIRED, (0, 0, 0))[1],
        "erasing": int(conn.execute(erasing).scalar_one()),
        "strays": sorted(mark(conn, STRAYS).get("files", {})),
        "problems": _problems(conn),
    }


def _problems(conn: Connection) -> list[str]:
    """What went wrong with segments last, and segments of rules that there are no longer."""
    segment = archive_segment.c
    readable = segment.state.in_([*READABLE, SegmentState.EXPIRED])
    told = select(segment.error).where(readable, segment.error != "").order_by(segment.id).limit(_SHOWN)
    found = list(conn.execute(told).scalars())
    policy = records.policy_in_force(conn)
    names = {rule.name for rule in policy.policy.rules} if policy else set()
    rules = select(segment.rule, func.count()).where(readable).group_by(segment.rule).order_by(segment.rule)
    for name, count in conn.execute(rules):
        if policy and name not in names:
            found.append(f"{count} segments are of rule {name}, which there is no longer: they are kept until there is one again.")
    return found
