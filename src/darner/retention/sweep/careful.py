"""One job that cannot be moved must not keep all others from it: a batch that fails is tried with fewer jobs, down to one."""

from collections.abc import Awaitable, Callable

from darner.core.errors import DarnerError, StorageFullError, TimedOutError, UnavailableError
from darner.db import LeaseLostError
from darner.kit.log import get_logger
from darner.retention.sweep.errors import SweepEndedError
from darner.retention.sweep.work import Done

_log = get_logger("retention")
_NOT_OF_A_JOB = (LeaseLostError, SweepEndedError, UnavailableError, TimedOutError, StorageFullError)
_MOST_SKIPPED = 20


class Careful:
    """The attempts of one work. Jobs that fail alone are passed over until the next sweep; at the end the work has failed."""

    def __init__(self, what: str) -> None:
        """`what` is in the message: what could not be done with them."""
        self._what = what
        self._fewer: int | None = None
        self._skipped = 0
        self._first = ""

    async def attempt(self, limit: int, act: Callable[[int], Awaitable[Done]], skip: Callable[[], Awaitable[int | None]]) -> Done:
        """Do a batch. `skip` passes over the next job and gives its id. DarnerError when nothing is left, or too many failed."""
        at_once = limit if self._fewer is None else min(limit, self._fewer)
        try:
            done = await act(at_once)
        except _NOT_OF_A_JOB:
            raise
        except Exception as error:  # noqa: BLE001  (a bug with one job is no reason to stop)
            if at_once > 1:
                self._fewer = max(1, at_once // 4)
                return Done(more=True)
            return await self._pass_over(error, skip)
        if self._fewer is not None:
            self._fewer = None if self._fewer >= limit else self._fewer * 2
        if self._skipped and not done.more:
            raise DarnerError(self._told())
        return done

    async def _pass_over(self, error: Exception, skip: Callable[[], Awaitable[int | None]]) -> Done:
        reason = error.message if isinstance(error, DarnerError) else f"unexpected {type(error).__name__}"
        key = await skip()
        self._skipped += 1
        self._first = self._first or f"job {key}: {reason}"
        _log.warning("a job is passed over", job=key, what=self._what, reason=reason, exc_info=not isinstance(error, DarnerError))
        if key is None or self._skipped >= _MOST_SKIPPED:
            raise DarnerError(self._told()) from error
        return Done(examined=1, more=True)

    def _told(self) -> str:
        several = "1 job" if self._skipped == 1 else f"{self._skipped} jobs"
        return f"{several} could not be {self._what}: {self._first}"
