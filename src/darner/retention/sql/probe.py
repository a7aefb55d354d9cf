"""The oldest job of each class and tier, in one statement: a sweep begins no work that has nothing to do."""

from collections.abc import Iterable, Mapping
from itertools import islice

from sqlalchemy import Connection

from darner.core.job import Tier

Place = tuple[int, int]
_AT_ONCE = 60
_TIERS = (int(Tier.HOT), int(Tier.WARM), int(Tier.DELETED))


def oldest(conn: Connection, classes: Iterable[int]) -> Mapping[Place, int]:
    """By class and tier the smallest `base_at` (unix ms); places without ended jobs are left away. Each is a step in the index."""
    wanted = iter([(int(one), tier) for one in classes for tier in _TIERS])
    found: dict[Place, int] = {}
    while some := list(islice(wanted, _AT_ONCE)):
        asked = [f"(SELECT min(base_at) FROM job WHERE class = {one} AND tier = {tier} AND base_at >= 1)" for one, tier in some]  # noqa: S608  (numbers)
        row = conn.exec_driver_sql("SELECT " + ", ".join(asked)).one()
        found |= {place: int(at) for place, at in zip(some, row, strict=True) if at is not None}
    return found
