"""The pace of watching, and how much room is kept back. Limits of the mechanism; what people want is the budget."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthConfig:
    """`look_s`: between two looks; of one hour, one becomes a sample. `first_s`: before the first.

    `facts_s`: how old figures for Prometheus may get. `full_s`: for how long a report of a full disk counts. `vacuum_s`: how long
    one pass of giving room back may take. `archive_local`: whether the archive counts as room that the operator pays for here.
    """

    first_s: float = 20.0
    look_s: float = 60.0
    lease_ttl_s: float = 150.0
    facts_s: float = 240.0
    full_s: float = 120.0
    vacuum_s: float = 30.0
    reserve_bytes: int = 64 * 1024**2
    archive_local: bool = True
