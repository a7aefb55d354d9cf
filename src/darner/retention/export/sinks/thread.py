"""One thread for a sink that blocks, so that a disk or server that hangs takes no thread that others need."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class OneThread:
    """Runs one function after the other, even when nobody waits for it any more."""

    def __init__(self, name: str) -> None:
        """The thread begins with the first function."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"export-{name}")
        self._closed = False

    async def run(self, act: Callable[[], None]) -> None:
        """Wait for it."""
        await asyncio.get_running_loop().run_in_executor(self._pool, act)

    async def close(self, last: Callable[[], None] = lambda: None) -> None:
        """Run the last function, then end; the second time nothing."""
        if not self._closed:
            self._closed = True
            try:
                await self.run(last)
            finally:
                self._pool.shutdown(wait=False)
