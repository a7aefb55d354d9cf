"""What the manager gives its retention engine: folding, dictionaries, and an archive if one is configured."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from darner.db import Database, batch_cap
from darner.history.codec import Codec
from darner.kit.config import setting
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.engine import Archive
from darner.retention.engine import RetentionEngine
from darner.retention.export.config import ExportConfig
from darner.retention.export.exporter import Exporter
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.growth import Growth
from darner.retention.ports import RetentionParts
from darner.retention.sweep.work import Work
from darner.retention.works.dictionaries import DictionaryWork
from darner.retention.works.fold import fold_work


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """What retention needs of the machine. How long what is kept is no configuration: it is in the database, with its history."""

    archive: ArchiveConfig = setting(ArchiveConfig(), "The archive of old jobs.")
    export: ExportConfig = setting(ExportConfig(), "Log systems that important jobs are told to.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The parts of retention that run in a manager."""

    engine: RetentionEngine
    codec: Codec
    archive: Archive | None = None
    exporter: Exporter | None = None
    growth: Growth | None = None


@asynccontextmanager
async def keeping(db: Database, config: RetentionConfig) -> AsyncIterator[Keeping]:
    """Run retention on a migrated database. InvalidInputError for an archive that cannot be used."""
    codec = Codec()
    await db.read(codec.refresh)
    async with AsyncExitStack() as stack:
        archive = await stack.enter_async_context(Archive(db, config.archive, codec)) if config.archive.url else None
        exporter = await stack.enter_async_context(Exporter(db, codec, config.export.sinks))
        directory = _directory_of(config.archive.url)
        growth = Growth(db, archive_dir=directory, config=GrowthConfig(archive_local=directory is not None))
        works: list[Callable[[], Work]] = [
            partial(DictionaryWork, codec),
            partial(fold_work, codec),
            *(archive.works() if archive else ()),
        ]
        parts = RetentionParts(
            works=works,
            enqueue=exporter.enqueue,
            known_sinks=exporter.known_sinks,
            batch_cap=batch_cap,
            restore_archived=archive.restore if archive else None,
            adjust=growth.adjusted,
        )
        engine = await stack.enter_async_context(RetentionEngine(db, parts=parts))
        growth.on_full = partial(_sweep_now, engine)
        await stack.enter_async_context(growth)
        yield Keeping(engine=engine, codec=codec, archive=archive, exporter=exporter, growth=growth)


async def _sweep_now(engine: RetentionEngine) -> None:
    """A write found the disk full: what is due goes now."""
    await engine.run(dry_run=False, by="system: the disk is full")


def _directory_of(url: str) -> Path | None:
    """Of an archive in a directory; its disk is watched too."""
    path = url.removeprefix("file://")
    return Path(path) if path and "://" not in path else None
