"""Whole contents against the digests that somebody expects of them: which of the two is wrong when they differ.

A content whose bytes are those that its source sent is right, and a digest that disagrees is wrong: one asker's mistake must not
cost everybody else the content. The source's word is the BLAKE3 of each piece, by whoever read the origin: this daemon, or a peer
for whom the scheduler speaks. A blob's name is stronger still.
"""

from collections.abc import Mapping
from functools import partial

from darner.core.digest import Digest
from darner.core.errors import DarnerError, DigestMismatchError
from darner.core.piece import TrafficType, piece_span
from darner.core.url import blob_of, redacted
from darner.daemon.digests import file_digest, span_digest
from darner.daemon.loading import Parts
from darner.store import TaskRecord

ANCHOR = "blake3"


def mismatch(url: str, found: Digest, expected: Digest, *, kept: bool) -> DigestMismatchError:
    """The error for the asker who expects `expected`."""
    said = f"{redacted(url)} has digest {found}, not {expected} as expected"
    if kept:
        return DigestMismatchError(f"{said}; this is what its source sent, so the content stays: check the expected digest")
    return DigestMismatchError(f"{said}; the content was dropped")


async def digest_of(parts: Parts, record: TaskRecord, algorithm: str) -> Digest:
    """The digest of a whole stored content. Raises NotFoundError if it is gone."""

    def read() -> Digest:
        with parts.store.open_file(record.id) as file:
            return file_digest(file.fd, record.content_length, algorithm)

    return await parts.on_whole_file(read)


async def is_sound(parts: Parts, record: TaskRecord, url: str) -> bool:
    """Whether a stored content, all pieces of which are here, is proved to be what its source sent.

    Not where nobody vouches for a piece, and not where the source names no version: pieces of two versions would each be genuine.
    """
    blob = blob_of(url)
    if blob is not None:
        named = Digest.parse(blob[1], field="url")
        return await digest_of(parts, record, named.algorithm) == named
    header = record.response_header
    if record.piece_count > 1 and not (header.find("etag") or header.find("last-modified")):
        return False
    anchors = await _anchors(parts, record)
    return await parts.on_whole_file(partial(_matches, parts, record, anchors))


async def _anchors(parts: Parts, record: TaskRecord) -> Mapping[int, str]:
    """What the source sent, piece by piece: BLAKE3 in hex."""
    pieces = parts.store.pieces(record.id).values()
    own = {
        piece.number: piece.blake3.hex() for piece in pieces if piece.traffic_type is TrafficType.BACK_TO_SOURCE and piece.blake3
    }
    if len(own) == record.piece_count:
        return own
    for address in parts.directory.in_order(record.id):
        try:
            info = await parts.directory.client(address).stat_task(parts.host().id, record.id)
        except DarnerError:
            continue
        told = [(piece.number, piece.digest.partition(":")) for piece in info.pieces]
        return {**own, **{number: value for number, (algorithm, _, value) in told if algorithm == ANCHOR}}
    return own


def _matches(parts: Parts, record: TaskRecord, anchors: Mapping[int, str]) -> bool:
    """Whether the bytes on disk, as they are now, are those that the anchors name."""
    if len(anchors) < record.piece_count:
        return False
    with parts.store.open_file(record.id) as file:
        for number in range(record.piece_count):
            span = piece_span(number, record.content_length, record.piece_length)
            if span_digest(file.fd, span, ANCHOR).value != anchors.get(number):
                return False
    return True
