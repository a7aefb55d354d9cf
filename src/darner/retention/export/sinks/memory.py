"""A sink in memory, the twin of the real ones: it keeps what it takes, is away when told so, and refuses what it is told to."""

from collections.abc import Callable, Sequence

from darner.retention.export.ports import Limits, RefusedError, SinkAwayError
from darner.retention.export.values import Document


class MemorySink:
    """`taken`: every document, as often as it came. `refuses` says why a document is not wanted, or an empty text."""

    def __init__(self, limits: Limits | None = None, *, refuses: Callable[[Document], str] = lambda _: "") -> None:
        """Takes everything at first."""
        self._limits = limits or Limits()
        self.refuses = refuses
        self.away: SinkAwayError | None = None
        self.names_refused = False
        self.taken: list[Document] = []
        self.batches: list[int] = []
        self.closed = False

    @property
    def limits(self) -> Limits:
        """As given."""
        return self._limits

    async def deliver(self, batch: Sequence[Document]) -> None:
        """Keep the batch."""
        self.batches.append(len(batch))
        if self.away is not None:
            raise self.away
        reasons = {one.key: reason for one in batch if (reason := self.refuses(one))}
        if reasons and not self.names_refused:
            raise RefusedError(next(iter(reasons.values())))
        self.taken += [one for one in batch if one.key not in reasons]
        if reasons:
            raise RefusedError("Some are refused.", refused=reasons)

    async def close(self) -> None:
        """Nothing to give back."""
        self.closed = True
