"""The policy as the sweeper carries it out while room is scarce. A plain function; sorting (`rules.scheme_of`) is never changed.

Jobs are folded and archived earlier where their rule does so anyway: both lose nothing. Nothing is removed earlier, unless a person
opted in: then the ages of rules for successes come down first, in bounded steps and never below that person's floor; failures last.
Held jobs, and those that are the last of their group, are no matter of durations, so none of this touches them.
"""

from dataclasses import dataclass, replace

from darner.core.job import DetailState, Tier
from darner.retention.growth.ladder import MAX_CUTS, Stage
from darner.retention.policy import DAY_MS, HOUR_MS, Age, Basis, Policy, Rule, Stay

HOT_LEAST = Age(text="6h", ms=6 * HOUR_MS)
WARM_LEAST = Age(text="24h", ms=DAY_MS)
_STEPS = MAX_CUTS // 2
_SUCCESSES = (str(DetailState.SUCCEEDED),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How scarce room is: the ladder's stage, and how often it has shortened. `floor` None: nobody has opted in."""

    stage: Stage = Stage.CALM
    cut: int = 0
    floor: Age | None = None


NO_PRESSURE = Pressure()


def adjusted(policy: Policy, pressure: Pressure) -> Policy:
    """What to carry out instead of `policy`; the same object if nothing is to be done."""
    if pressure.stage < Stage.FOLD:
        return policy
    return replace(policy, rules=tuple(_rule(rule, pressure) for rule in policy.rules))


def folds_earlier(policy: Policy) -> bool:
    """Whether there are jobs that could be folded earlier."""
    return any(_folded(rule) != rule for rule in policy.rules)


def archives_earlier(policy: Policy) -> bool:
    """Whether there are jobs that could be archived earlier."""
    return any(_archived(_folded(rule)) != _folded(rule) for rule in policy.rules)


def _rule(rule: Rule, pressure: Pressure) -> Rule:
    found = _folded(rule)
    if pressure.stage >= Stage.ARCHIVE:
        found = _archived(found)
    if pressure.stage >= Stage.SHORTEN and pressure.floor is not None:
        found = _shortened(found, pressure.cut, pressure.floor)
    return found


def _folded(rule: Rule) -> Rule:
    """Ages from the creation say nothing about how long ago a job ended, so such rules stay as they are."""
    if rule.basis != Basis.FINISHED or rule.stay(Tier.WARM) is None:
        return rule
    return replace(rule, stays=tuple(_by(stay, HOT_LEAST) if stay.tier == Tier.HOT else stay for stay in rule.stays))


def _archived(rule: Rule) -> Rule:
    """Out of warm (or hot, where that is the last before the archive) after a day."""
    before = [stay for stay in rule.stays if stay.tier != Tier.ARCHIVE]
    last = before[-1]
    if rule.stay(Tier.ARCHIVE) is None or (last.tier == Tier.HOT and rule.basis != Basis.FINISHED):
        return rule
    hot = rule.stays[0].until if last.tier != Tier.HOT else None
    least = hot if hot is not None and hot.ms > WARM_LEAST.ms else WARM_LEAST
    return replace(rule, stays=tuple(_by(stay, least) if stay is last else stay for stay in rule.stays))


def _shortened(rule: Rule, cut: int, floor: Age) -> Rule:
    ends = rule.ends
    times = min(cut, _STEPS) if rule.match.states == _SUCCESSES else min(max(cut - _STEPS, 0), _STEPS)
    if ends is None or not times or ends.ms <= floor.ms:
        return rule
    age_ms = max(int(ends.ms * (1 - times / (_STEPS + 1))), floor.ms)
    age = Age(text=f"{age_ms // HOUR_MS}h", ms=age_ms)
    return replace(rule, stays=tuple(replace(stay, until=_least(stay.until, age)) for stay in rule.stays))


def _by(stay: Stay, age: Age) -> Stay:
    """The stay, ended at that age if it would end later."""
    return stay if stay.until is None or stay.until.ms <= age.ms else replace(stay, until=age)


def _least(until: Age | None, age: Age) -> Age:
    return age if until is None or until.ms > age.ms else until
