"""Keeps the compression good: trains a dictionary for each type of jobs that has enough of them, and again when it fits badly."""

from sqlalchemy import Connection

from darner.core.errors import DarnerError
from darner.db import db_now_ms
from darner.history.codec import Codec
from darner.history.dictionary import store, store_none, train_type, types_to_train
from darner.kit.log import get_logger
from darner.retention.sweep.work import Done, SweepContext

_log = get_logger("retention")


class DictionaryWork:
    """All types that need one, in one go: it comes before jobs are folded, or the first ones would be folded without."""

    name = "dictionaries"
    removes = False

    def __init__(self, codec: Codec) -> None:
        """The codec learns what is trained."""
        self._codec = codec

    async def batch(self, sweep: SweepContext, limit: int) -> Done:  # noqa: ARG002  (dictionaries are few)
        """Train in transactions that only read; store each."""
        await sweep.db.read(self._codec.refresh)
        for job_type in await sweep.db.read(lambda conn: types_to_train(conn, db_now_ms(conn))):
            await self._train(sweep, job_type)
        return Done()

    async def _train(self, sweep: SweepContext, job_type: str) -> None:
        try:
            trained = await sweep.db.read(lambda conn: train_type(conn, job_type, self._codec))
            if trained.ratio <= 1:
                raise DarnerError("it makes nothing smaller")
        except DarnerError as error:
            _log.info("no dictionary this time", job_type=job_type, reason=error.message)
            await sweep.db.write(lambda conn: store_none(conn, job_type, sweep.fence(conn)))
            return

        def keep(conn: Connection) -> None:
            store(conn, trained, sweep.fence(conn))
            self._codec.refresh(conn)

        await sweep.db.write(keep)
        _log.info("trained a dictionary", job_type=job_type, samples=trained.samples, ratio=round(trained.ratio, 2))
