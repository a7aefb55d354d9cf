"""Requests of warm jobs, for the groups of rules that keep the last of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from darner.core.errors import DarnerError
from darner.history.codec import Codec
from darner.history.rows import read_folds
from darner.kit.log import get_logger

_log = get_logger("retention")


class WarmArgs:
    """Reads them with a codec of its own."""

    def __init__(self) -> None:
        """Dictionaries are read when they are needed."""
        self._codec = Codec()

    def __call__(self, conn: Connection, ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """By id; those that cannot be read are left away."""
        try:
            return {key: blob["a"] for key, blob in read_folds(conn, ids, self._codec).items()}
        except DarnerError:
            return {key: args for key in ids if (args := self._one(conn, key)) is not None}

    def _one(self, conn: Connection, key: int) -> Mapping[str, Any] | None:
        try:
            blobs = read_folds(conn, [key], self._codec)
        except DarnerError as error:
            _log.warning("a warm job cannot be read", job=key, reason=error.message)
            return None
        return blobs[key]["a"] if key in blobs else None
