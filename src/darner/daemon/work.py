"""One download in progress: its ids, its board, its open file. What parents and origin deliver ends here, in the store.

`begin` fixes the facts and opens the file, `keep` records a piece whose bytes are written, `verify` checks the whole.
"""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from darner.core.digest import Digest
from darner.core.errors import DarnerError
from darner.core.piece import piece_count, piece_length_for
from darner.core.ranges import ByteRange, parse_range_header
from darner.core.task import Download
from darner.core.url import blob_of
from darner.daemon.board import Board, Facts
from darner.daemon.digests import RunningDigest
from darner.daemon.loading import Parts
from darner.daemon.session import Ids
from darner.daemon.wholes import is_sound, mismatch
from darner.store import NewTask, PieceRecord, TaskRecord


def whole_digest(download: Download) -> Digest | None:
    """What the whole content must hash to, when the asker says or the blob's name does."""
    if download.digest is not None:
        return download.digest
    blob = blob_of(download.url) if download.enable_task_id_based_blob_digest else None
    return Digest.parse(blob[1], field="url") if blob else None


def wanted_range(download: Download, content_length: int) -> ByteRange | None:
    """The part that is wanted: `range`, else the first range of a `Range` header; None for all. Raises InvalidInputError."""
    header = download.request_header.find("range")
    if download.range is not None or header is None:
        return download.range
    return parse_range_header(header, content_length)


class Work:
    """The state that a run, its puller and its source loader share."""

    def __init__(self, parts: Parts, ids: Ids, download: Download, *, ordered: bool) -> None:
        """Nothing is touched yet."""
        self.parts = parts
        self.ids = ids
        self.download = download
        self.ordered = ordered
        self.board = Board()
        self.resumed: dict[int, PieceRecord] = {}
        """Pieces that were on disk already: of an older content, perhaps."""
        self.told_length: int | None = None
        """The length that the scheduler was told."""
        self.verified: Digest | None = None
        """The digest of the whole, once it was checked in this run."""
        self._running: RunningDigest | None = None
        self._digesting = False
        self._files = ExitStack()
        self._fd: int | None = None
        self._touched_at = parts.clock.monotonic()

    @property
    def fd(self) -> int:
        """The task's file, open for writing."""
        if self._fd is None:
            raise DarnerError(f"task {self.ids.task_id} is not open")
        return self._fd

    def touch(self) -> None:
        """Something happened just now."""
        self._touched_at = self.parts.clock.monotonic()

    def idle_s(self) -> float:
        """Seconds since something happened."""
        return self.parts.clock.monotonic() - self._touched_at

    def known_facts(self) -> Facts:
        """The facts. Raises DarnerError before `begin`."""
        if self.board.facts is None:
            raise DarnerError(f"the length of task {self.ids.task_id} is not known yet")
        return self.board.facts

    def piece_length_for(self, content_length: int) -> int:
        """The piece length for a new task of that many bytes."""
        return self.download.piece_length or piece_length_for(content_length)

    def missing(self) -> frozenset[int]:
        """The wanted pieces that are not here yet."""
        facts = self.known_facts()
        return frozenset(facts.numbers(wanted_range(self.download, facts.content_length))) - self.board.pieces.keys()

    async def resume(self) -> None:
        """Take up what the store holds already: its facts, and its pieces as far as they still verify."""
        record = await self.parts.on_disk(partial(self.parts.store.task, self.ids.task_id))
        if record is not None:
            await self._open(record)

    async def begin(self, facts: Facts) -> None:
        """Fix the facts: the store makes room, the file is opened. Pieces on disk of the same content are kept."""
        self.close()
        self.board.restart()
        task = NewTask(
            id=self.ids.task_id,
            url=self.download.url,
            content_length=facts.content_length,
            piece_length=facts.piece_length,
            response_header=facts.header,
            digest=whole_digest(self.download),
        )
        await self._open(await self.parts.on_disk(partial(self.parts.store.create, task)))

    async def forget(self) -> None:
        """Drop what the store holds of the task: it is of another content."""
        self.close()
        self.board.restart()
        self.resumed.clear()
        await self.parts.on_disk(partial(self.parts.store.delete, self.ids.task_id))

    async def keep(self, record: PieceRecord) -> None:
        """A piece's bytes are written and verified: record it and show it on the board."""
        await self.parts.on_disk(partial(self.parts.store.record_piece, self.ids.task_id, record))
        self.parts.meters.traffic.labels(record.traffic_type.name).inc(record.length)
        self.touch()
        self.board.add(record.to_piece())
        await self._digest_more()

    async def complete(self) -> None:
        """Verify the whole and mark the task finished, if the whole is here. Raises DigestMismatchError.

        A range does not finish a task; content that is wrong as a whole is not kept. Content that is what its source sent is
        right, whatever digest was expected of it: then only those are refused who expect that digest (`Asker`).
        """
        if not self.board.holds(None):
            return
        record = await self.parts.on_disk(partial(self.parts.store.task, self.ids.task_id))
        if record is not None and record.finished_at is None:
            await self.verify(record, whole_digest(self.download))
            await self.parts.on_disk(partial(self.parts.store.finish, self.ids.task_id))

    async def verify(self, record: TaskRecord, digest: Digest | None) -> None:
        """Check the whole content. Raises DigestMismatchError, after the task was dropped from the store."""
        if digest is None:
            return
        running = self._running or RunningDigest(digest.algorithm)
        await self.parts.on_whole_file(partial(running.read_to, self.fd, record.content_length))
        found = running.digest()
        if found == digest:
            self.verified = digest
        elif not await is_sound(self.parts, record, self.download.url):
            await self.forget()
            raise mismatch(self.download.url, found, digest, kept=False)

    async def _digest_more(self) -> None:
        """Let the digest of the whole follow the download, so that its end need not wait for all of it."""
        running, facts = self._running, self.board.facts
        if running is None or facts is None or self._digesting:
            return
        number = running.at // facts.piece_length
        while number in self.board.pieces:
            number += 1
        stop = min(number * facts.piece_length, facts.content_length)
        if stop <= running.at:
            return
        self._digesting = True
        try:
            await self.parts.on_whole_file(partial(running.read_to, self.fd, stop))
        finally:
            self._digesting = False

    def close(self) -> None:
        """Close the file."""
        self._fd = None
        self._files.close()

    async def _open(self, record: TaskRecord) -> None:
        store = self.parts.store

        def open_file() -> int:
            # Owned from its first instant: if we are cancelled while the thread opens it, `close` still finds it.
            return self._files.enter_context(store.open_file(record.id, write=True)).fd

        def held() -> list[PieceRecord]:
            pieces = [store.verified_piece(record.id, number) for number in store.pieces(record.id)]
            return [piece for piece in pieces if piece is not None]

        # Both may read the whole file: one that an output shares is copied first, pieces of an earlier time are checked again.
        resumes = bool(await self.parts.on_disk(partial(store.pieces, record.id)))
        run = self.parts.on_whole_file if resumes else self.parts.on_disk
        self._fd = await run(open_file)
        self.board.learn(
            Facts(content_length=record.content_length, piece_length=record.piece_length, header=record.response_header)
        )
        digest = whole_digest(self.download)
        self._running = RunningDigest(digest.algorithm) if digest else None
        for piece in await run(held):
            self.resumed[piece.number] = piece
            self.board.add(piece.to_piece())


def registration(
    download: Download,
    *,
    content_length: int | None,
    piece_length: int | None,
    concurrent: int,
    metadata_only: bool = False,
) -> Download:
    """A download as a scheduler hears of it: where it is put is nobody's business, how long it is helps."""
    known = content_length is not None and piece_length
    return replace(
        download,
        output_path=None,
        metadata_only=metadata_only,
        concurrent_piece_count=concurrent,
        actual_content_length=content_length,
        actual_piece_length=piece_length,
        actual_piece_count=piece_count(content_length or 0, piece_length or 1) if known else None,
    )
