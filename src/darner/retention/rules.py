"""Which job is due when, and if not, why. Plain functions: a job's facts and a policy in, a verdict out.

This is the only place that decides. The sweeper's SQL narrows down which rows to look at; each of them is asked here again before
it goes.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Protocol

from darner.core.job import END_STATES
from darner.retention.policy import FLOOR_MS, Basis, Match, Policy, Rule

UNCLASSIFIED = ""
HELD = "held"
HOT = "hot"
_NO_RULE = "-"


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
    def created_at(self) -> int: ...  # noqa: D102
    @property
    def finished_at(self) -> int | None: ...  # noqa: D102
    @property
    def held(self) -> bool | int: ...  # noqa: D102
    @property
    def tier(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What will happen to a job. `forgotten_at` (unix ms) None: nothing, as things are; `reason` is a sentence for people."""

    rule: str
    tier: str
    forgotten_at: int | None
    reason: str

    def due(self, now_ms: int) -> bool:
        """Whether it may go now."""
        return self.forgotten_at is not None and self.forgotten_at <= now_ms


def verdict(job: JobFacts, policy: Policy) -> Verdict:
    """When a job is forgotten under a policy, or why it is not."""
    rule = rule_for(job, policy)
    name = rule.name if rule else ""
    if job.state not in END_STATES or job.finished_at is None:
        return Verdict(rule=name, tier=job.tier, forgotten_at=None, reason="It has not ended.")
    if job.held:
        return Verdict(rule=name, tier=job.tier, forgotten_at=None, reason="It is held.")
    if rule is None:
        return Verdict(rule="", tier=job.tier, forgotten_at=None, reason="No rule fits it, so it is kept.")
    if rule.hot is None:
        return Verdict(rule=name, tier=job.tier, forgotten_at=None, reason=f"Rule {name} keeps it for ever.")
    since = job.finished_at if rule.basis == Basis.FINISHED else job.created_at
    floor = job.finished_at + FLOOR_MS
    at = max(since + rule.hot.ms, floor)
    counted = "its end" if rule.basis == Basis.FINISHED else "its creation"
    floored = ", but not before 1h after its end" if at == floor and since + rule.hot.ms < floor else ""
    return Verdict(
        rule=name, tier=job.tier, forgotten_at=at, reason=f"Rule {name} keeps it {rule.hot.text} from {counted}{floored}."
    )


def forgotten_at(job: JobFacts, policy: Policy) -> int | None:
    """Unix milliseconds; None: not at all, as things are."""
    return verdict(job, policy).forgotten_at


def rule_for(job: JobFacts, policy: Policy) -> Rule | None:
    """The first rule that fits."""
    return next((rule for rule in policy.rules if fits(job, rule.match)), None)


def fits(job: JobFacts, match: Match) -> bool:
    """Whether every field of a match that is not empty names the job's value."""
    wanted = (match.types, match.states, match.owners, match.tags, match.applications)
    facts = (job.type, job.state, job.owner, job.tag, job.application)
    return all(not words or fact in words for words, fact in zip(wanted, facts, strict=True))


def scheme_of(policy: Policy) -> str:
    """A name for how this policy sorts jobs into classes. It is the same for policies that differ in durations only.

    So a change of durations moves no row, and one of matches re-classifies before anything is removed.
    """
    sorting = [[rule.name, asdict(rule.match)] for rule in policy.rules]
    return hashlib.blake2s(json.dumps(sorting, sort_keys=True).encode(), digest_size=4).hexdigest()


def class_of(job: JobFacts, policy: Policy, scheme: str) -> str:
    """The retention class an ended job belongs to. Held jobs have one of their own, so that a sweep need not step over them."""
    if job.held:
        return HELD
    rule = rule_for(job, policy)
    return class_name(scheme, rule.name if rule else _NO_RULE)


def class_name(scheme: str, rule: str) -> str:
    """The stored form of a class."""
    return f"{scheme}:{rule}"


def stale_classes(found: Iterable[str], policy: Policy, scheme: str) -> list[str]:
    """Those of the classes in the table that this policy does not make; their jobs must be classified anew."""
    current = {class_name(scheme, rule.name) for rule in policy.rules} | {class_name(scheme, _NO_RULE), HELD}
    return sorted(set(found) - current)
