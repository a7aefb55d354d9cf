"""Where the archive lies, and how much of the machine it may use."""

from dataclasses import dataclass
from pathlib import Path

from darner.kit.config import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveConfig:
    """`url` empty: there is no archive, and no policy can name it as a step that jobs get to."""

    url: str = setting("", "Where old jobs are archived: a directory, s3://…, gs://… or az://…; empty: nowhere.")
    cache_dir: Path | None = setting(
        None, "Where segments of an object store are kept for reading (default: beside the system's temporary files)."
    )
    cache_size: int = setting(1 << 30, "How much of them is kept.", unit="size")
    segment_jobs: int = setting(20_000, "How many jobs one file takes at most when it is first written.")
    least_jobs: int = setting(
        1_000, "How many jobs are worth a file of their own; fewer wait in the warm tier, but not longer than patience."
    )
    patience: float = setting(21_600.0, "How long few jobs wait.", unit="duration")
    merged_jobs: int = setting(1_000_000, "How many jobs one file takes after small ones were merged.")
    search_time: float = setting(15.0, "How long a search may take before it is given up.", unit="duration")
    memory: int = setting(256 << 20, "How much memory a search may use.", unit="size")
    threads: int = setting(2, "How many threads a search may use.")
