"""How long a transaction waited for its locks and held them, by this process's clock: what the pace of batches follows."""

import time


class Hold:
    """`begins` first in the transaction (again if that is tried again), `ends` as soon as it is committed."""

    def __init__(self) -> None:
        """It waits from now on."""
        self._asked = self._began = self._ended = time.monotonic()

    def begins(self) -> None:
        """The locks are there: SQLite's write lock is taken before the first statement, servers lock as they go."""
        self._began = time.monotonic()

    def ends(self) -> None:
        """They are given back."""
        self._ended = time.monotonic()

    @property
    def held_s(self) -> float:
        """Without the time until this process noticed the end, which on a busy machine can be longer."""
        return max(0.0, self._ended - self._began)

    @property
    def waited_s(self) -> float:
        """Before that."""
        return max(0.0, self._began - self._asked)
