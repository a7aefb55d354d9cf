"""The scheduler's link to a manager, which may be absent: it registers, says that it lives, and reads applications.

Flows out: who this scheduler is. Flows in: applications and their priorities. Whatever fails is tried again; the scheduler works
without a manager, only new daemons do not find it.
"""

import asyncio
import json

from darner.core.errors import DarnerError, NotFoundError
from darner.core.fleet import SchedulerInfo
from darner.kit.log import get_logger
from darner.kit.retry import backoff
from darner.scheduler.engine import SchedulerEngine
from darner.scheduler.ports import ManagerPort

MAX_WAIT_S = 10.0
_log = get_logger("scheduler")


class ManagerLink:
    """Run `run()` beside the engine until it is cancelled."""

    def __init__(
        self,
        manager: ManagerPort,
        engine: SchedulerEngine,
        info: SchedulerInfo,
        *,
        keep_alive_s: float = 5.0,
        refresh_s: float = 60.0,
    ) -> None:
        """`info` says who this scheduler is; its id is the manager's to give."""
        self._manager = manager
        self._engine = engine
        self._info = info
        self._keep_alive_s = keep_alive_s
        self._refresh_s = refresh_s
        self.registered = asyncio.Event()

    async def run(self) -> None:
        """Register and stay registered; read applications."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay())
            group.create_task(self._refresh())

    async def _stay(self) -> None:
        info, waits = self._info, backoff(cap_s=MAX_WAIT_S)
        config = json.dumps({"manager": {"keepAlive": {"interval": int(self._keep_alive_s * 1e9)}}}).encode()
        while True:
            try:
                await self._manager.update_scheduler(info, config)
                self.registered.set()
                waits = backoff(cap_s=MAX_WAIT_S)
                _log.info("registered with the manager", host=info.hostname, cluster=info.scheduler_cluster_id)
                await self._manager.keep_alive(info.hostname, info.ip, info.scheduler_cluster_id, self._keep_alive_s)
                reason = "the manager ended the stream"
            except DarnerError as error:
                reason = error.message
            _log.warning("the link to the manager is down", reason=reason)
            await asyncio.sleep(next(waits))

    async def _refresh(self) -> None:
        while True:
            try:
                self._engine.know_applications(await self._manager.list_applications(self._info.hostname, self._info.ip))
            except NotFoundError:
                self._engine.know_applications(())
            except DarnerError as error:
                _log.info("applications could not be read", reason=error.message)
            await asyncio.sleep(self._refresh_s)
