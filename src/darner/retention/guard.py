"""The shrink guard: whether a sweep may remove what it would (spec/retention.md, 5.4 and fact 3). Plain decisions.

It looks at the jobs that fall due because the policy or the clock changed, never at those that merely got old: `due_anew` is due
under the policy in force and the database's clock, but not under the last settled policy (one that a sweep removed under, or that
a person confirmed) and the clock that was expected. Moves that lose nothing are not its business.
"""

from dataclasses import dataclass

from darner.retention.policy import DAY_MS

# Below that many jobs nothing is held back.
LEAST_ROWS = 1_000
MOST_SHARE = 0.20
YOUNG_MS = DAY_MS
# A clock that is off by less than this changes nothing worth counting.
CLOCK_SLACK_MS = 60_000
# How long a finding holds before the jobs are counted again.
COUNTED_AGAIN_MS = 3_600_000
# After a start of the machine: an outage of at most so long is believed once the clock has run evenly for so long.
OUTAGE_MS = 7 * DAY_MS
EVEN_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changed since the last removal. `changed_at`: when the version in force was made; `clock_ms`: how far the clock is off.

    `unknown_clock`: the machine was started since, so the clock cannot be compared. `believed_at` (unix ms): when it will be
    nevertheless, if it runs evenly until then; None: a person must look at it.
    """

    policy: bool
    changed_at: int
    confirmed: bool
    clock_ms: int = 0
    unknown_clock: bool = False
    believed_at: int | None = None

    @property
    def clock(self) -> bool:
        """Whether the clock may have made jobs due."""
        return self.unknown_clock or abs(self.clock_ms) > CLOCK_SLACK_MS

    @property
    def counts(self) -> bool:
        """Whether jobs must be counted at all."""
        return (self.policy and not self.confirmed) or self.clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why removal is held back. `again_at` (unix ms): when it is looked at again by itself; `passes`: and will be let go on."""

    reason: str
    rows: int
    share: float
    again_at: int
    passes: bool = False


def decide(change: Change, *, due_anew: int, table_rows: int, now_ms: int) -> Finding | None:
    """None: removal may go on."""
    if due_anew < LEAST_ROWS:
        return None
    share = due_anew / max(table_rows, due_anew)
    cause = _cause(change)
    what = f"{due_anew} jobs ({share:.0%} of all) fall due because {cause}"
    again_at = now_ms + COUNTED_AGAIN_MS
    if share > MOST_SHARE and change.believed_at is not None and not (change.policy and not change.confirmed):
        said = f"{what}. They are taken for an outage if the clock runs evenly for an hour."
        return Finding(reason=said, rows=due_anew, share=share, again_at=change.believed_at, passes=True)
    if share > MOST_SHARE:
        return Finding(reason=f"{what}; that is more than {MOST_SHARE:.0%}.", rows=due_anew, share=share, again_at=again_at)
    young = change.policy and not change.confirmed and now_ms - change.changed_at < YOUNG_MS
    if not young:
        return None
    said = f"{what}, less than 24h ago and without a preview's token."
    return Finding(reason=said, rows=due_anew, share=share, again_at=min(again_at, change.changed_at + YOUNG_MS))


def believed_at(*, now_ms: int, last_ms: int, even_ms: int) -> int | None:
    """When a clock that cannot be compared is believed; not later than now: it is; None: never.

    `last_ms`: the database's clock when jobs were removed last; `even_ms`: for how long it has run evenly since the start.
    While a machine was off over a weekend nothing fell due that did not merely get old. A clock that is wrong at the start looks
    the same, but it is soon set right, which is a jump, or it is off by more than a week.
    """
    return now_ms + max(0, EVEN_MS - even_ms) if now_ms - last_ms <= OUTAGE_MS else None


def _cause(change: Change) -> str:
    causes = []
    if change.policy and not change.confirmed:
        causes.append("the policy was tightened")
    if change.unknown_clock:
        causes.append("the machine was started anew and nobody knows how long it was off")
    elif change.clock:
        causes.append(f"the database's clock moved by {change.clock_ms // 1000} s more than time passed")
    return " and ".join(causes) or "of a change"
