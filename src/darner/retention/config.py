"""The sweeper's pace. These are limits of the mechanism, not policy: what is kept for how long is in the database."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig:
    """Figures from spec/retention.md, 5.4.

    `first_after_s`: the first sweep comes that long after the start, at random between the two, so that managers started together
    do not meet. `target_hold_s`: how long one transaction may hold the write lock
    (SQLite; servers: `server_hold_s`); the batch size follows it. `prompt_s`: how often newly ended jobs are sorted.
    `batch_deadline_s`: a batch that takes longer has failed. `lag_limit_s`: replicas further behind than that are waited for.
    """

    interval_s: float = 300.0
    first_after_s: tuple[float, float] = (60.0, 120.0)
    lease_ttl_s: float = 30.0
    target_hold_s: float = 0.020
    server_hold_s: float = 0.050
    prompt_s: float = 10.0
    first_batch: int = 200
    min_batch: int = 20
    max_batch: int = 2000
    min_pause_s: float = 0.005
    batch_deadline_s: float = 600.0
    lag_limit_s: float = 10.0
    checkpoint_every: int = 4
    clock_tolerance_s: float = 300.0
