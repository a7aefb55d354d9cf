"""Policies to begin with. `default` is what a fresh installation gets (spec/retention.md, 5.3); the others are chosen by people."""

from darner.core.job import END_STATES, DetailState, JobType, Tier
from darner.retention.policy import DAY_MS, HOUR_MS, Age, Basis, Match, Policy, Rule, Stay

_UNDO = Age(text="24h", ms=24 * HOUR_MS)
_BOOKKEEPING_TYPES = (str(JobType.GC), str(JobType.SYNC_PEERS))
_FAILED = tuple(sorted(END_STATES - {DetailState.SUCCEEDED}))


def hours(count: int) -> Age:
    """So many hours."""
    return Age(text=f"{count}h", ms=count * HOUR_MS)


def days(count: int) -> Age:
    """So many days."""
    return Age(text=f"{count}d", ms=count * DAY_MS)


def default_policy(*, archive: bool = False) -> Policy:
    """Six hours hot, then warm, then archived where there is an archive; whether there is one is written into the rows."""
    return Policy(
        rules=(
            _passing("bookkeeping", Match(types=_BOOKKEEPING_TYPES), days(1), None),
            _passing("success", Match(states=(str(DetailState.SUCCEEDED),)), days(7), days(180) if archive else None),
            _passing("rest", Match(states=_FAILED), days(30), days(400) if archive else None),
        )
    )


def dragonfly_policy() -> Policy:
    """Upstream's behaviour: gone six hours after creation, whatever it was."""
    return Policy(rules=(Rule(name="all", basis=Basis.CREATED, stays=(Stay(tier=Tier.HOT, until=hours(6)),)),))


def _passing(name: str, match: Match, warm: Age, archive: Age | None) -> Rule:
    stays = [Stay(tier=Tier.HOT, until=hours(6)), Stay(tier=Tier.WARM, until=warm)]
    if archive is not None:
        stays.append(Stay(tier=Tier.ARCHIVE, until=archive))
    return Rule(name=name, match=match, stays=tuple(stays), undo=_UNDO)
