"""What is done when room gets scarce, step by step, the gentlest first (spec/retention.md, 5.7). A plain state machine.

Up one step at a time, so that each has time to help; a step that helps nobody is passed over. Down only after a whole day without
need, so that nothing flaps. Only two steps go further than moving things: shortening, which a person must have opted into, and
refusing new jobs of low importance; both end as soon as the emergency does. What is not known never counts as fine.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

HOUR_MS = 3_600_000
GIB = 1024**3
HYSTERESIS_MS = 24 * HOUR_MS
# The gentle steps: how long each has before the next, and when the limit is passed already.
DWELL_MS = HOUR_MS
DWELL_OVER_MS = HOUR_MS // 10
CUT_EVERY_MS = HOUR_MS
MAX_CUTS = 6
_WARN_SHARE, _CALM_SHARE = 0.90, 0.85
_WARN_DAYS, _CALM_DAYS = 7, 10
_SHORTEN_BELOW, _SHORTEN_UNTIL = 0.05, 0.075
_REFUSE_BELOW, _REFUSE_UNTIL = 0.02, 0.03
_CALM_FACTOR = 1.2


class Stage(IntEnum):
    """How far up the ladder. Each stage does what those before it do."""

    CALM = 0
    WARN = 1
    VACUUM = 2
    FOLD = 3
    ARCHIVE = 4
    SUGGEST = 5
    SHORTEN = 6
    REFUSE = 7

    @property
    def word(self) -> str:
        """As the API and the command line write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How things stand. Sizes in bytes; None: not known, or there is no such thing.

    `limit`: of `used`, from a budget; `disk` and `free`: of the disk beside the database, `keep_free` of it stays free by budget;
    `days`: until a limit is reached, nine times of ten not before. `full`: a write found the disk full a moment ago.
    What can help: `folds` and `archives`, whether rules have steps that may come earlier; `shortens`, whether a person opted in.
    """

    used: int | None = None
    limit: int | None = None
    disk: int | None = None
    free: int | None = None
    keep_free: int | None = None
    days: float | None = None
    full: bool = False
    folds: bool = False
    archives: bool = False
    shortens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Where it stands. Times in unix ms. `cut`: how many times history was shortened since SHORTEN began."""

    stage: Stage = Stage.CALM
    since: int = 0
    calm_since: int | None = None
    cut: int = 0
    cut_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change of stage (or one more cut), for the audit."""

    at: int
    before: Stage
    after: Stage
    cut: int
    why: str


def warn_below(disk: int) -> int:
    """Free bytes below which a disk is getting full; small disks are not full for being small."""
    return min(max(10 * GIB, disk // 10), disk // 5)


def critical_below(disk: int) -> int:
    """Free bytes below which a disk is nearly full."""
    return min(max(5 * GIB, disk // 20), disk // 10)


def shares_left(reading: Reading) -> float | None:
    """The share of the scarcer of disk and budget that is left; None when neither is known."""
    left = []
    if reading.limit and reading.used is not None:
        left.append((reading.limit - reading.used) / reading.limit)
    if reading.disk and reading.free is not None:
        left.append(reading.free / reading.disk)
    return 0.0 if reading.full else min(left, default=None)


def why_tight(reading: Reading) -> str:
    """Why something should be done, in a sentence; empty: it need not."""
    if reading.full:
        return "A write found the disk full."
    if reading.limit and reading.used is not None and reading.used >= reading.limit * _WARN_SHARE:
        return f"{reading.used * 100 // reading.limit} % of the budget is used."
    if reading.disk and reading.free is not None:
        wanted = max(warn_below(reading.disk), reading.keep_free or 0)
        if reading.free < wanted:
            return f"{reading.free * 100 // reading.disk} % of the disk is free."
    if reading.days is not None and reading.days <= _WARN_DAYS:
        return f"The limit may be reached in {reading.days:.1f} days."
    return ""


def is_over(reading: Reading) -> bool:
    """Whether a limit is passed already."""
    over_budget = bool(reading.limit and reading.used is not None and reading.used >= reading.limit)
    scarce = False
    if reading.disk and reading.free is not None:
        scarce = reading.free < max(critical_below(reading.disk), reading.keep_free or 0)
    return reading.full or over_budget or scarce


def is_calm(reading: Reading) -> bool:
    """Whether there is room to spare, more than warns; what is not known is not calm."""
    if reading.full or (reading.used is None and reading.free is None):
        return False
    if reading.limit and (reading.used is None or reading.used >= reading.limit * _CALM_SHARE):
        return False
    if reading.disk:
        wanted = max(warn_below(reading.disk), reading.keep_free or 0)
        if reading.free is None or reading.free < wanted * _CALM_FACTOR:
            return False
    elif reading.keep_free:
        return False
    return reading.days is None or reading.days > _CALM_DAYS


def step(ladder: Ladder, reading: Reading, now_ms: int) -> tuple[Ladder, list[Step]]:
    """The next state, and what changed. To be asked every minute or so."""
    if ladder.stage >= Stage.SHORTEN and (ended := _end_emergency(ladder, reading, now_ms)) is not None:
        return ended
    calm_since = (ladder.calm_since or now_ms) if is_calm(reading) else None
    ladder = replace(ladder, calm_since=calm_since)
    if calm_since is not None:
        if ladder.stage != Stage.CALM and now_ms - max(calm_since, ladder.since) >= HYSTERESIS_MS:
            return _to(ladder, Stage.CALM, "There has been room to spare for a day.", now_ms)
        return ladder, []
    return _up(ladder, reading, now_ms)


def _up(ladder: Ladder, reading: Reading, now_ms: int) -> tuple[Ladder, list[Step]]:
    # A budget of the history's own size is met by the gentle steps first; a disk does not wait.
    patient = replace(reading, limit=None) if ladder.stage < Stage.SUGGEST else reading
    left = shares_left(patient)
    if left is not None and left < _REFUSE_BELOW and ladder.stage < Stage.REFUSE and not _shorten_first(ladder, reading, now_ms):
        return _to(ladder, Stage.REFUSE, f"Only {max(left, 0):.1%} is left.", now_ms)
    if left is not None and left < _SHORTEN_BELOW and reading.shortens:
        if ladder.stage >= Stage.SHORTEN and ladder.cut < MAX_CUTS and now_ms - ladder.cut_at >= CUT_EVERY_MS:
            cut = replace(ladder, cut=ladder.cut + 1, cut_at=now_ms)
            why = f"Only {max(left, 0):.1%} is left, and the budget allows to shorten."
            return cut, [Step(at=now_ms, before=ladder.stage, after=ladder.stage, cut=cut.cut, why=why)]
        if ladder.stage == Stage.SUGGEST:
            return _to(ladder, Stage.SHORTEN, f"Only {max(left, 0):.1%} is left.", now_ms)
    why = why_tight(reading)
    dwell = DWELL_OVER_MS if is_over(reading) else DWELL_MS
    if not why or ladder.stage >= Stage.SUGGEST or (ladder.stage > Stage.CALM and now_ms - ladder.since < dwell):
        return ladder, []
    return _to(ladder, _next(ladder.stage, reading), why, now_ms)


def _shorten_first(ladder: Ladder, reading: Reading, now_ms: int) -> bool:
    """Whether a budget is left to shortening, which a person opted into, before jobs are refused for it."""
    if not reading.shortens or reading.full or (reading.disk and (reading.free or 0) < reading.disk * _REFUSE_BELOW):
        return False
    return ladder.cut < MAX_CUTS or now_ms - ladder.cut_at < CUT_EVERY_MS


def _next(stage: Stage, reading: Reading) -> Stage:
    skipped: dict[Stage, Callable[[], bool]] = {
        Stage.FOLD: lambda: not reading.folds,
        Stage.ARCHIVE: lambda: not reading.archives,
    }
    following = Stage(stage + 1)
    while following in skipped and skipped[following]():
        following = Stage(following + 1)
    return following


def _end_emergency(ladder: Ladder, reading: Reading, now_ms: int) -> tuple[Ladder, list[Step]] | None:
    """Shortening and refusing end with their reason; history must not get shorter than it has to."""
    left = shares_left(reading)
    if left is None:
        return _to(ladder, Stage.SUGGEST, "Nothing says any more that room is scarce.", now_ms)
    if ladder.stage == Stage.REFUSE and left >= _REFUSE_UNTIL:
        shortening = reading.shortens and ladder.cut > 0 and left < _SHORTEN_UNTIL
        return _to(ladder, Stage.SHORTEN if shortening else Stage.SUGGEST, f"{left:.1%} is left again.", now_ms)
    if ladder.stage == Stage.SHORTEN and (left >= _SHORTEN_UNTIL or not reading.shortens):
        why = f"{left:.1%} is left again." if reading.shortens else "Nobody wants history shortened any more."
        return _to(ladder, Stage.SUGGEST, why, now_ms)
    return None


def _to(ladder: Ladder, stage: Stage, why: str, now_ms: int) -> tuple[Ladder, list[Step]]:
    keeps_cuts = stage >= Stage.SHORTEN
    changed = Ladder(
        stage=stage,
        since=now_ms,
        calm_since=ladder.calm_since,
        cut=ladder.cut if keeps_cuts else 0,
        cut_at=ladder.cut_at if keeps_cuts else 0,
    )
    return changed, [Step(at=now_ms, before=ladder.stage, after=stage, cut=changed.cut, why=why)]
