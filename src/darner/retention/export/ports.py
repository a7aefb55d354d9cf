"""What the exporter needs of a log system. One conformance suite holds for every sink (tests/conformance/test_sinks.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from darner.core.errors import DarnerError, UnavailableError
from darner.retention.export.values import Document


class SinkAwayError(UnavailableError):
    """The sink does not take anything at present; the same documents are sent again later."""

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        """`retry_after_s`: when the sink itself wants to be asked again."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(DarnerError):
    """The sink does not want some of these documents, whenever they are sent."""

    kind = "refused"

    def __init__(self, message: str | None = None, *, refused: Mapping[str, str] | None = None) -> None:
        """`refused`: reasons by key, if the sink says which; then it has acknowledged the others. Else it took none."""
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sink takes at once: documents, bytes of all, bytes of one. A single document may always be sent."""

    documents: int = 500
    batch_bytes: int = 1 << 20
    document_bytes: int = 256 * 1024


class Sink(Protocol):
    """Takes documents. One task at a time uses it."""

    @property
    def limits(self) -> Limits:
        """The same throughout the sink's life."""

    async def deliver(self, batch: Sequence[Document]) -> None:
        """Return when the other side has every document for good. Raises SinkAwayError and RefusedError.

        After SinkAwayError it may have some of them: they are sent again with the same keys. May be cancelled.
        """

    async def close(self) -> None:
        """Give back what is open; nothing is delivered after."""
