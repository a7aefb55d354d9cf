"""Hot to warm: jobs that are past their hot time become blobs in their own rows' place. Nothing is lost by it."""

from collections.abc import Sequence

from sqlalchemy import Connection

from darner.core.job import Tier
from darner.history.codec import Codec
from darner.history.fold import fold_jobs
from darner.retention.sweep.moving import MovesWork


def fold_work(codec: Codec) -> MovesWork:
    """The work of all rules that pass a warm tier."""

    def act(conn: Connection, ids: Sequence[int], _now_ms: int) -> int:
        return fold_jobs(conn, ids, codec)

    return MovesWork("fold", Tier.WARM, act)
