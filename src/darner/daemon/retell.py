"""Tells schedulers what this daemon holds already (a registration with `metadata_only`), and what it holds no longer.

After a restart, of this daemon or of a scheduler, nobody would know otherwise; a few tasks are told at a time.
"""

import asyncio

from darner.core.announce import Failed, Finished, MetadataOnly, Register, SchedulerAnswer, Started
from darner.core.errors import DarnerError
from darner.core.task import Download
from darner.daemon.loading import Parts
from darner.daemon.session import Ids, Session, SessionLost
from darner.daemon.work import registration
from darner.kit.log import get_logger
from darner.store import TaskRecord

AT_ONCE = 8
ANSWER_TIMEOUT_S = 10.0
_log = get_logger("daemon")


class Retell:
    """Speaks of tasks that are complete here."""

    def __init__(self, parts: Parts) -> None:
        """Nothing is told yet."""
        self._parts = parts
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def all_held(self, address: str) -> None:
        """Tell a scheduler every finished task that is its own."""
        directory = self._parts.directory
        finished = [record for record in self._parts.store.tasks() if record.finished_at is not None]
        mine = [record for record in finished if directory.in_order(record.id)[:1] == [address]]
        await asyncio.gather(*(self._tell(address, record, None) for record in mine))
        if mine:
            _log.info("told a scheduler what is here", scheduler=address, tasks=len(mine))

    async def held(self, task_id: str, download: Download) -> None:
        """Tell the task's scheduler that it is here."""
        record = self._parts.store.task(task_id)
        for address in self._parts.directory.in_order(task_id)[:1]:
            if record is not None:
                await self._tell(address, record, download)

    async def gone(self, task_id: str) -> None:
        """Tell the task's scheduler that it is here no longer; without an answer it will find out."""
        for address in self._parts.directory.in_order(task_id)[:1]:
            try:
                async with self._slots:
                    await self._parts.directory.client(address).delete_task(self._parts.host().id, task_id)
            except DarnerError as error:
                _log.info("a scheduler did not hear that a task is gone", task=task_id, reason=error.message)

    async def _tell(self, address: str, record: TaskRecord, download: Download | None) -> None:
        known = download or Download(url=record.url, digest=record.digest)
        request = registration(
            known, content_length=record.content_length, piece_length=record.piece_length, concurrent=1, metadata_only=True
        )
        ids = Ids(host_id=self._parts.host().id, task_id=record.id, peer_id=self._parts.new_peer_id())
        answers: asyncio.Queue[SchedulerAnswer | SessionLost] = asyncio.Queue()
        async with self._slots:
            try:
                async with Session(self._parts.directory.client(address), ids, answers.put_nowait) as session:
                    session.say(Register(download=request))
                    async with asyncio.timeout(ANSWER_TIMEOUT_S):
                        answer = await answers.get()
                    if isinstance(answer, MetadataOnly):
                        session.say(Started())
                        await session.finish(Finished(content_length=record.content_length, piece_count=record.piece_count))
                    elif session.alive:
                        await session.finish(Failed(description="only a registration was meant"))
            except (DarnerError, TimeoutError) as error:
                _log.info("a scheduler did not hear that a task is here", task=record.id, reason=str(error))
