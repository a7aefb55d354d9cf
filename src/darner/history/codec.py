"""Few bytes for a job: zstd with a dictionary per job type (spec/retention.md, 4.4).

One compressor per thread and dictionary is made once and used again, five times as fast as one-shot calls. A dictionary is never
changed: a better one gets a new id, and blobs name theirs.
"""

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Connection, func, select

from darner.core.errors import DarnerError, NotFoundError
from darner.db.tables.jobs import history_dictionary

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DICTIONARY_BYTES = 16 * 1024
_LEVEL = 3
_PLAIN = 0
# The dictionary is known from the row, and pages have checksums of their own.
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: _LEVEL,
    zstd.CompressionParameter.checksum_flag: 0,
    zstd.CompressionParameter.dict_id_flag: 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """Compressed bytes, the dictionary that reads them (0: none), and their length before."""

    dict_id: int
    raw_len: int
    body: bytes


class Codec:
    """Compresses and decompresses; any thread may use it. Dictionaries are read from the database when they are first met."""

    def __init__(self) -> None:
        """No dictionaries yet; see `refresh`."""
        self._lock = threading.Lock()
        self._dictionaries: dict[int, zstd.ZstdDict] = {}
        self._newest: dict[str, int] = {}
        self._local = threading.local()

    @classmethod
    def with_dictionary(cls, job_type: str, body: bytes) -> Self:
        """A codec that knows one dictionary, for trying it out."""
        made = cls()
        made._dictionaries, made._newest = {1: zstd.ZstdDict(body)}, {job_type: 1}
        return made

    def refresh(self, conn: Connection) -> None:
        """Learn which dictionary is the newest of each job type, so that new blobs use it."""
        known = history_dictionary.c
        newest = select(known.job_type, func.max(known.id)).where(func.length(known.body) > 0).group_by(known.job_type)
        found = {str(job_type): int(dict_id) for job_type, dict_id in conn.execute(newest)}
        self.learn(conn, found.values())
        with self._lock:
            self._newest = found

    def learn(self, conn: Connection, dict_ids: Any) -> None:  # noqa: ANN401  (ids in any collection)
        """Read dictionaries that are not known yet, before blobs that name them are unfolded."""
        missing = set(dict_ids) - set(self._dictionaries) - {_PLAIN}
        if not missing:
            return
        wanted = select(history_dictionary.c.id, history_dictionary.c.body).where(history_dictionary.c.id.in_(missing))
        for dict_id, body in conn.execute(wanted):
            with self._lock:
                self._dictionaries[int(dict_id)] = zstd.ZstdDict(bytes(body))

    def fold(self, job_type: str, raw: bytes) -> Folded:
        """Compress with the newest dictionary of the type, or without one."""
        return self._compressed(self._newest.get(job_type, _PLAIN), raw)

    def _compressed(self, dict_id: int, raw: bytes) -> Folded:
        body = self._compressor(dict_id).compress(raw, mode=zstd.ZstdCompressor.FLUSH_FRAME)
        return Folded(dict_id=dict_id, raw_len=len(raw), body=body)

    def unfold(self, dict_id: int, body: bytes) -> bytes:
        """The bytes before. NotFoundError for a dictionary that was not learned, DarnerError for damaged bytes."""
        if dict_id != _PLAIN and dict_id not in self._dictionaries:
            raise NotFoundError(f"Dictionary {dict_id} is missing; the jobs that were folded with it cannot be read.")
        # A decompressor reads one frame; making it is most of the time that this takes.
        reader = zstd.ZstdDecompressor(self._dictionaries[dict_id].as_digested_dict if dict_id != _PLAIN else None)
        try:
            raw = reader.decompress(body)
        except zstd.ZstdError as error:
            raise DarnerError(f"A folded job cannot be read: {error}.") from error
        if not reader.eof or reader.unused_data:
            raise DarnerError("A folded job cannot be read: its bytes are cut off, or there are too many.")
        return raw

    def refold(self, dict_id: int, raw: bytes) -> Folded:
        """Compress again what was changed, with the dictionary that it had. NotFoundError if that was not learned."""
        if dict_id != _PLAIN and dict_id not in self._dictionaries:
            raise NotFoundError(f"Dictionary {dict_id} is missing.")
        return self._compressed(dict_id, raw)

    def _compressor(self, dict_id: int) -> zstd.ZstdCompressor:
        made: dict[int, zstd.ZstdCompressor] = self._local.__dict__.setdefault("compressors", {})
        if dict_id not in made:
            dictionary = self._dictionaries[dict_id] if dict_id != _PLAIN else None
            made[dict_id] = zstd.ZstdCompressor(options=_OPTIONS, zstd_dict=dictionary)
        return made[dict_id]


def train(samples: Sequence[bytes]) -> bytes:
    """A dictionary for blobs like the samples. DarnerError if they are too few or too alike."""
    try:
        return bytes(zstd.train_dict(samples, DICTIONARY_BYTES).dict_content)
    except (zstd.ZstdError, ValueError) as error:
        raise DarnerError(f"No dictionary can be trained from {len(samples)} samples: {error}.") from error
