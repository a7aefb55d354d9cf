"""Which job moves when, and if not, why. Plain functions: a job's facts and a policy in, a verdict out.

This is the only place that decides. The sweeper's SQL narrows down which rows to look at; each of them is asked here again before
it moves. A *move* takes jobs of one rule from a tier to the next, or out of the database.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from darner.core.job import END_STATES, Importance, Tier
from darner.retention.policy import FLOOR_MS, UNDO_MS, Age, Basis, Match, Policy, Rule

# Classes that every scheme shares; those of rules are rows of `retention_class`, from 16 on.
UNCLASSIFIED = 0
HELD = 1
# Names of classes that are no rule: what no rule fits, what a selector holds, and the last successes that a rule keeps.
NO_RULE = "-"
HELD_BY_SELECTOR = ":held"  # no name of a rule, not even of one that an earlier release let pass
KEPT_PREFIX = "kept:"
_UNDO = Age(text="24h", ms=UNDO_MS)
# Jobs that no rule fits are kept, but those of them that a person removed are gone after a time like all others.
NOBODYS = Rule(name=NO_RULE)


class JobFacts(Protocol):
    """What the rules look at. Times in unix milliseconds."""

    @property
    def type(self) -> str: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def owner(self) -> str: ...  # noqa: D102
    @property
    def tag(self) -> str: ...  # noqa: D102
    @property
    def application(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def importance(self) -> int: ...  # noqa: D102
    @property
    def clusters(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def created_at(self) -> int: ...  # noqa: D102
    @property
    def finished_at(self) -> int | None: ...  # noqa: D102
    @property
    def base_at(self) -> int | None: ...  # noqa: D102
    @property
    def held(self) -> bool | int: ...  # noqa: D102
    @property
    def tier(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A hold on all jobs that match, now and later."""

    id: int
    match: Match
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is in force: the policy and the selectors that hold against it."""

    policy: Policy
    selectors: tuple[Selector, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One step of a rule: jobs in `start` whose age is at least `age` and below `before` go to `to` (None: gone).

    Ages count from `base_at`: the end or the creation, as the rule's basis says; of a hidden job the moment it was hidden.
    """

    rule: Rule
    start: Tier
    to: Tier | None
    age: Age
    before: Age | None = None

    @property
    def removes(self) -> bool:
        """Whether a job is seen less afterwards; hot to warm to archive loses nothing."""
        return self.to is None or self.to == Tier.DELETED

    @property
    def takes_last(self) -> bool:
        """Whether it takes those that its rule keeps as the last of a group: folding loses nothing, hidden ones do not count."""
        return self.to == Tier.WARM or self.start == Tier.DELETED


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What will happen to a job. Times in unix ms, None: not, as things are. `reason` is a sentence for people.

    `moves_at`: when it leaves its tier, for `next_tier` (None with a time: it is gone then). `forgotten_at`: when lists stop
    showing it.
    """

    rule: str
    tier: Tier
    reason: str
    moves_at: int | None = None
    next_tier: Tier | None = None
    forgotten_at: int | None = None

    def due(self, now_ms: int) -> bool:
        """Whether it may leave its tier now."""
        return self.moves_at is not None and self.moves_at <= now_ms


def moves(rule: Rule) -> list[Move]:
    """All steps of a rule, lossless ones first, the final removal of hidden jobs last."""
    found = []
    ends = rule.ends
    for start in (Tier.HOT, Tier.WARM):
        leaves = _leaves(rule, start)
        following = [stay for stay in rule.stays if stay.tier > start]
        for stay in following:
            if leaves is not None:
                found.append(Move(rule=rule, start=start, to=stay.tier, age=leaves, before=stay.until))
                leaves = stay.until
    if ends is not None:
        to = Tier.DELETED if rule.undo else None
        found += [Move(rule=rule, start=start, to=to, age=ends) for start in (Tier.HOT, Tier.WARM)]
    found.append(Move(rule=rule, start=Tier.DELETED, to=None, age=_undo_of(rule)))
    return found


def deciding(policy: Policy) -> tuple[Rule, ...]:
    """The rules of a policy, and the one for what they leave out."""
    return (*policy.rules, NOBODYS)


def _undo_of(rule: Rule) -> Age:
    """How long hidden jobs can be restored. A rule without `undo` hides none, but a person, or an earlier policy, may have."""
    return rule.undo or _UNDO


def _leaves(rule: Rule, tier: Tier) -> Age | None:
    """The age at which jobs leave a tier. One that the rule does not name ends with the last before it."""
    until = rule.stays[0].until
    for stay in rule.stays:
        if stay.tier <= tier:
            until = stay.until
    return until


def verdict(job: JobFacts, order: Order) -> Verdict:
    """What will happen to a job, or why nothing will."""
    tier = Tier(job.tier)
    rule = _rule_for(job, order.policy)
    name = rule.name if rule and rule is not NOBODYS else ""
    stays = _why_it_stays(job, rule, order)
    if stays or rule is None or job.finished_at is None:
        forgotten = job.base_at if tier == Tier.DELETED else None
        return Verdict(rule=name, tier=tier, reason=stays, forgotten_at=forgotten)
    moves_at = _moves_at(job, rule, job.finished_at)
    if tier == Tier.DELETED:
        undo = _undo_of(rule)
        reason = f"It was deleted; it can be restored for {undo.text} after that."
        return Verdict(rule=name, tier=tier, moves_at=moves_at, forgotten_at=job.base_at or 0, reason=reason)
    floor = job.finished_at + FLOOR_MS
    base = job.finished_at if rule.basis == Basis.FINISHED else job.created_at
    forgotten = None if rule.ends is None else max(base + rule.ends.ms, floor)
    return Verdict(
        rule=name,
        tier=tier,
        moves_at=moves_at,
        next_tier=None if moves_at is None else _next_tier(rule, tier),
        forgotten_at=forgotten,
        reason=_story(rule, base, floor),
    )


def leaving(job: JobFacts, order: Order) -> tuple[str, int | None]:
    """What a sweep asks about each of very many jobs: the `rule` and the `moves_at` of its verdict, without the words."""
    rule = _rule_for(job, order.policy)
    if rule is None:
        return "", None
    if job.finished_at is None or _why_it_stays(job, rule, order):
        return rule.name, None
    return rule.name, _moves_at(job, rule, job.finished_at)


def _moves_at(job: JobFacts, rule: Rule, finished_at: int) -> int | None:
    """When an ended job leaves its tier, if nothing but its rule decides."""
    floor = finished_at + FLOOR_MS
    if job.tier == Tier.DELETED:
        return max((job.base_at or 0) + _undo_of(rule).ms, floor)
    leaves = _leaves(rule, Tier(job.tier))
    base = finished_at if rule.basis == Basis.FINISHED else job.created_at
    return None if leaves is None else max(base + leaves.ms, floor)


def _why_it_stays(job: JobFacts, rule: Rule | None, order: Order) -> str:
    if job.state not in END_STATES or job.finished_at is None:
        return "It has not ended."
    if job.held:
        return "It is held."
    selector = next((one for one in order.selectors if fits(job, one.match)), None)
    if selector is not None:
        return f"It is held with others: {selector.reason}."
    if rule is None:
        return "No rule fits it, so it is kept."
    if rule.stays[0].until is None and job.tier != Tier.DELETED:
        return f"Rule {rule.name} keeps it for ever."
    return ""


def _next_tier(rule: Rule, tier: Tier) -> Tier | None:
    following = [stay.tier for stay in rule.stays if stay.tier > tier]
    return following[0] if following else Tier.DELETED if rule.undo else None


def _story(rule: Rule, base: int, floor: int) -> str:
    counted = "its end" if rule.basis == Basis.FINISHED else "its creation"
    ends = rule.ends
    if ends is None:
        return f"Rule {rule.name} keeps it for ever, in the {rule.stays[-1].tier.word} tier at last."
    floored = ", but not before 1h after its end" if base + ends.ms < floor else ""
    return f"Rule {rule.name} keeps it {ends.text} from {counted}{floored}."


def _rule_for(job: JobFacts, policy: Policy) -> Rule | None:
    """The rule that decides, also about a hidden job that none fits."""
    return rule_for(job, policy) or (NOBODYS if job.tier == Tier.DELETED else None)


def rule_for(job: JobFacts, policy: Policy) -> Rule | None:
    """The first rule that fits."""
    for rule in policy.rules:  # a generator would take longer than most matches
        if fits(job, rule.match):
            return rule
    return None


def fits(job: JobFacts, match: Match) -> bool:
    """Whether every field of a match that is not empty names the job's value."""
    if (
        (match.types and job.type not in match.types)
        or (match.states and job.state not in match.states)
        or (match.owners and job.owner not in match.owners)
        or (match.tags and job.tag not in match.tags)
        or (match.applications and job.application not in match.applications)
        or (match.importance and Importance(job.importance).word not in match.importance)
        or (match.clusters and not set(match.clusters) & set(job.clusters))
    ):
        return False
    return not match.labels or _has_labels(job, match)


def _has_labels(job: JobFacts, match: Match) -> bool:
    labels: dict[str, set[str]] = {}
    for key, value in match.labels:
        labels.setdefault(key, set()).add(value)
    return all(job.labels.get(key) in values for key, values in labels.items())


def scheme_of(order: Order) -> str:
    """A name for how jobs are sorted into classes. It is the same for policies that differ in durations only.

    So a change of durations moves no row, and one of matches, bases, sinks or holds sorts anew before anything moves.
    """
    rules = [
        [rule.name, asdict(rule.match), rule.basis, rule.export, asdict(rule.keep_last) if rule.keep_last else None]
        for rule in order.policy.rules
    ]
    holds = sorted(json.dumps(asdict(one.match), sort_keys=True) for one in order.selectors)
    return hashlib.blake2s(json.dumps([rules, holds], sort_keys=True).encode(), digest_size=6).hexdigest()


def class_of(job: JobFacts, order: Order) -> str:
    """The name of the class an ended job belongs to; empty: it is held by itself (class `HELD`, the same in every scheme)."""
    return class_under(job, rule_for(job, order.policy), order)


def class_under(job: JobFacts, rule: Rule | None, order: Order) -> str:
    """`class_of`, for who knows the job's rule already."""
    if job.held:
        return ""
    if order.selectors and any(fits(job, one.match) for one in order.selectors):
        return HELD_BY_SELECTOR
    return rule.name if rule else NO_RULE


def class_names(policy: Policy) -> Iterable[str]:
    """All classes of a scheme."""
    yield from (NO_RULE, HELD_BY_SELECTOR)
    for rule in policy.rules:
        yield rule.name
        if rule.keep_last is not None:
            yield f"{KEPT_PREFIX}{rule.name}"
