"""What a sample says. Times in unix ms, sizes in bytes; None: it could not be read."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system that the data directory is on: its size, and what of it this process may still take."""

    bytes: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Jobs by tier and by state. `exact`: counted; else estimated from windows of ids all over the history.

    `tier_bytes`: what all jobs of a tier take; `job_bytes`: what one takes on average, by `type/tier`. Indexes included; both are
    shares of what the database takes, by the lengths of some jobs' texts.
    """

    exact: bool = True
    tiers: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, int] = field(default_factory=dict)
    job_bytes: Mapping[str, int] = field(default_factory=dict)
    tier_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """`bytes`: what the database takes; `reclaimable`: of these, in use by no row; `log`: the write-ahead or binary log."""

    bytes: int
    reclaimable: int
    log: int | None = None

    @property
    def live(self) -> int:
        """In use by rows and indexes."""
        return self.bytes - self.reclaimable


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How far counting from ids has come: the newest job and the newest batch of a sweep that were seen."""

    job_id: int = 0
    batch_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One hour. `archive_disk`: where the archive has a disk of its own.

    `span_ms`: since the sample before, None if there is none; in it `created` jobs came, and `moved` were moved, by action: fold,
    archive, hide, delete.
    """

    at: int
    sizes: Sizes
    counts: Counts
    seen: Seen
    disk: Disk | None = None
    archive_bytes: int = 0
    archive_rows: int = 0
    archive_local: bool = True
    archive_disk: Disk | None = None
    span_ms: int | None = None
    created: int = 0
    moved: Mapping[str, int] = field(default_factory=dict)

    @property
    def slot(self) -> int:
        """The hour it is of."""
        return slot_of(self.at)

    @property
    def used(self) -> int:
        """What the history takes where the operator pays for it: the live part of the database, and an archive on the same disk."""
        return self.sizes.live + (self.archive_bytes if self.archive_local else 0)

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A stored one; fields of later versions are left away."""
        own = {name: data[name] for name in (one.name for one in dataclasses.fields(cls)) if name in data}
        own |= {"sizes": Sizes(**data["sizes"]), "counts": Counts(**data["counts"]), "seen": Seen(**data["seen"])}
        own |= {name: Disk(**data[name]) if data.get(name) else None for name in ("disk", "archive_disk")}
        return cls(**own)


def slot_of(at: int) -> int:
    """The hour that a moment is in, counted from 1970."""
    return at // HOUR_MS
