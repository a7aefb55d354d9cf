"""The policy as a value: ordered rules, the first that fits a job decides. Durations keep the text a person typed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from darner.core.errors import InvalidInputError
from darner.core.job import END_STATES, DetailState, JobType

HOUR_MS = 3_600_000
# Harbor polls a job for up to 1801 s and fails its own when one poll fails (spec/retention.md, 5.2). Not configurable.
FLOOR_MS = HOUR_MS
MAX_AGE_MS = 10 * 366 * 24 * HOUR_MS
MAX_RULES = 64
NAME_LIMIT = 48


class Basis(StrEnum):
    """From which moment an age is counted. `created` is upstream's; the floor is counted from the end on either."""

    FINISHED = "finished"
    CREATED = "created"


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """A duration as typed, and in milliseconds."""

    text: str
    ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which jobs a rule is for. An empty field means any."""

    types: tuple[str, ...] = field(default=())
    states: tuple[str, ...] = field(default=())
    owners: tuple[str, ...] = field(default=())
    tags: tuple[str, ...] = field(default=())
    applications: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How long the jobs that fit are kept. `hot` None: for ever. After the hot time they are deleted."""

    name: str
    match: Match = field(default_factory=Match)
    basis: Basis = Basis.FINISHED
    hot: Age | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules, in order. A job that none fits is kept."""

    rules: tuple[Rule, ...]


SEED_POLICY = Policy(rules=(Rule(name="default", hot=Age(text="6h", ms=6 * HOUR_MS)),))


def check_policy(policy: Policy) -> None:
    """InvalidInputError, naming the field, for a policy that must not come into force."""
    if not 1 <= len(policy.rules) <= MAX_RULES:
        raise InvalidInputError(f"A policy has 1 to {MAX_RULES} rules, not {len(policy.rules)}.", field="rules")
    seen: set[str] = set()
    for index, rule in enumerate(policy.rules):
        at = f"rules[{index}]"
        _check_name(rule.name, seen, f"{at}.name")
        check_age(rule.hot, f"{at}.hot")
        _check_words(rule.match.types, [str(one) for one in JobType], f"{at}.match.types")
        _check_words(rule.match.states, sorted(END_STATES), f"{at}.match.states")


def check_age(age: Age | None, at: str) -> None:
    """At least one hour and at most ten years; None is for ever."""
    if age is None:
        return
    if age.ms <= 0:
        raise InvalidInputError(f"{age.text!r} would keep nothing; the least is 1h, and 'keep' keeps for ever.", field=at)
    if age.ms < FLOOR_MS:
        raise InvalidInputError(f"{age.text!r} is too short: a job is kept for 1h after its end at least.", field=at)
    if age.ms > MAX_AGE_MS:
        raise InvalidInputError(f"{age.text!r} is too long: at most 10 years (3660d); 'keep' keeps for ever.", field=at)


def _check_name(name: str, seen: set[str], at: str) -> None:
    plain = name.replace("-", "").replace("_", "")
    if not plain.isascii() or not plain.isalnum() or len(name) > NAME_LIMIT:
        raise InvalidInputError(f"{name!r} is no name for a rule: up to {NAME_LIMIT} letters, digits, - and _.", field=at)
    if name in seen:
        raise InvalidInputError(f"Two rules are named {name!r}.", field=at)
    seen.add(name)


def _check_words(words: Iterable[str], known: list[str] | list[DetailState], at: str) -> None:
    for word in words:
        if word not in known:
            raise InvalidInputError(f"{word!r} is not known; choose from {', '.join(known)}.", field=at)
