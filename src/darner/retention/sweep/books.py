"""The work that forgets the room's own old records: runs and their batches, growth samples, previews."""

from sqlalchemy import Connection

from darner.db import bounded_delete
from darner.db.tables.growth import growth_sample
from darner.db.tables.retention import retention_preview
from darner.retention.policy import DAY_MS
from darner.retention.sql.runs import forget_runs
from darner.retention.sweep.hold import Hold
from darner.retention.sweep.work import Done, SweepContext

PREVIEWS_MS = 7 * DAY_MS


class BooksWork:
    """Each batch takes some of each, oldest first."""

    name = "books"
    removes = False

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        """Forget at most `limit` of each."""
        hold = Hold()

        def forget(conn: Connection) -> int:
            hold.begins()
            now_ms, ages = sweep.fence(conn), sweep.order.policy.bookkeeping
            samples, previews = growth_sample.c, retention_preview.c
            old_samples = bounded_delete(
                conn, growth_sample, samples.at < now_ms - ages.samples.ms, limit=limit, order_by=[samples.at, samples.id]
            )
            old_previews = bounded_delete(
                conn, retention_preview, previews.created_at < now_ms - PREVIEWS_MS, limit=limit, order_by=[previews.created_at]
            )
            return forget_runs(conn, before_ms=now_ms - ages.runs.ms, limit=limit) + old_samples + old_previews

        gone = await sweep.db.write(forget, durable=False, committed=hold.ends)
        return Done(examined=gone, changed=gone, more=gone > 0, held_s=hold.held_s)
