"""The policy as a value: ordered rules, the first that fits a job decides. Durations keep the text a person typed."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from darner.core.errors import InvalidInputError
from darner.core.job import END_STATES, Importance, JobType, Tier

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# Harbor polls a job for up to 1801 s and fails its own when one poll fails (spec/retention.md, 5.2). Not configurable.
FLOOR_MS = HOUR_MS
MAX_AGE_MS = 10 * 366 * DAY_MS
MAX_UNDO_MS = 90 * DAY_MS
MAX_RULES = 64
MAX_KEPT = 1_000
NAME_LIMIT = 48
SINK_LIMIT = 64
# Of one field of a match: how many words, and how long each may be (the columns of jobs have at most that many characters).
MAX_WORDS = 100
WORD_LIMIT = 1_024
LABEL_KEYS = 16
MAX_ID = 2**63 - 1
# Names of classes of jobs that no rule may have.
RESERVED_NAMES = frozenset({"held", "kept"})
# How long a job that a person removed can be restored where its rule has no `undo`.
UNDO_MS = DAY_MS
# The tiers a job can stay in, in the order in which it passes them.
PATH = (Tier.HOT, Tier.WARM, Tier.ARCHIVE)


class Basis(StrEnum):
    """From which moment an age is counted. `created` is upstream's; the floor is counted from the end on either."""

    FINISHED = "finished"
    CREATED = "created"


class Group(StrEnum):
    """What `keep_last` counts by: the exact URL, or for images the repository, so that its tags count together."""

    URL = "url"
    IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """A duration as typed, and in milliseconds."""

    text: str
    ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which jobs a rule is for. An empty field means any; of several fields all must fit, of several words one.

    `clusters`: ids; a job fits if one of its clusters is named. `labels`: pairs of a key and one of its values.
    """

    types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    clusters: tuple[int, ...] = ()
    owners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    applications: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    importance: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLast:
    """The newest `count` successful jobs of each group stay in the database, however old they get."""

    count: int
    per: Group = Group.URL


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A tier that jobs pass, and the age at which they leave it; `until` None: never."""

    tier: Tier
    until: Age | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How long the jobs that fit are kept, and where.

    `stays` in the order of `PATH`, the first is hot; after the last one's end a job is removed: hidden for `undo`, then gone
    (`undo` None: gone at once). `export` names the sink that must have acknowledged a job before it may leave the database.
    """

    name: str
    match: Match = field(default_factory=Match)
    basis: Basis = Basis.FINISHED
    stays: tuple[Stay, ...] = (Stay(tier=Tier.HOT),)
    undo: Age | None = None
    keep_last: KeepLast | None = None
    export: str = ""

    def stay(self, tier: Tier) -> Stay | None:
        """The stay in a tier, if jobs pass it."""
        return next((one for one in self.stays if one.tier == tier), None)

    @property
    def ends(self) -> Age | None:
        """The age at which a job is removed; None: it is kept for ever."""
        return self.stays[-1].until


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookkeeping:
    """How long the room's own records are kept: sweeps and their batches, growth samples, and the audit of people's changes."""

    runs: Age = Age(text="400d", ms=400 * DAY_MS)
    samples: Age = Age(text="400d", ms=400 * DAY_MS)
    audit: Age = Age(text="400d", ms=400 * DAY_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules, in order. A job that none fits is kept."""

    rules: tuple[Rule, ...]
    bookkeeping: Bookkeeping = field(default_factory=Bookkeeping)

    def rule(self, name: str) -> Rule | None:
        """The rule of that name, if there is one."""
        return next((one for one in self.rules if one.name == name), None)


def check_policy(policy: Policy) -> None:
    """InvalidInputError, naming the field, for a policy that must not come into force."""
    if not 1 <= len(policy.rules) <= MAX_RULES:
        raise InvalidInputError(f"A policy has 1 to {MAX_RULES} rules, not {len(policy.rules)}.", field="rules")
    seen: set[str] = set()
    for index, rule in enumerate(policy.rules):
        at = f"rules[{index}]"
        _check_name(rule.name, seen, f"{at}.name")
        check_match(rule.match, f"{at}.match")
        _check_stays(rule.stays, at)
        if rule.undo is not None:
            check_age(rule.undo, f"{at}.undo", most_ms=MAX_UNDO_MS)
        if rule.keep_last is not None and not 1 <= rule.keep_last.count <= MAX_KEPT:
            raise InvalidInputError(f"1 to {MAX_KEPT} jobs can be kept per group.", field=f"{at}.keep_last.count")
        if rule.export:
            _check_word(rule.export, SINK_LIMIT, "a sink", f"{at}.export")
    for name in ("runs", "samples", "audit"):
        check_age(getattr(policy.bookkeeping, name), f"bookkeeping.{name}")


def check_match(match: Match, at: str) -> None:
    """InvalidInputError, naming the field: types, states or importance that do not exist, and more or longer words than fit."""
    _check_known(match.types, [str(one) for one in JobType], f"{at}.types")
    _check_known(match.states, sorted(END_STATES), f"{at}.states")
    _check_known(match.importance, [one.word for one in Importance], f"{at}.importance")
    for name in ("owners", "tags", "applications"):
        _check_words(getattr(match, name), f"{at}.{name}")
    if len(match.clusters) > MAX_WORDS or not all(0 < one <= MAX_ID for one in match.clusters):
        raise InvalidInputError(f"At most {MAX_WORDS} ids of clusters are expected.", field=f"{at}.clusters")
    keys = dict.fromkeys(key for key, _ in match.labels)
    if len(keys) > LABEL_KEYS:
        raise InvalidInputError(f"A job has at most {LABEL_KEYS} labels, so a match has no more.", field=f"{at}.labels")
    for key in keys:
        _check_words([key, *(value for one, value in match.labels if one == key)], f"{at}.labels.{key[:NAME_LIMIT]}")


def check_age(age: Age | None, at: str, *, most_ms: int = MAX_AGE_MS) -> None:
    """At least one hour and at most ten years (or `most_ms`); None is for ever."""
    if age is None:
        return
    if age.ms <= 0:
        raise InvalidInputError(f"{age.text!r} would keep nothing; the least is 1h, and 'keep' keeps for ever.", field=at)
    if age.ms < FLOOR_MS:
        raise InvalidInputError(f"{age.text!r} is too short: a job is kept for 1h after its end at least.", field=at)
    if age.ms > most_ms:
        most = "10 years (3660d); 'keep' keeps for ever" if most_ms == MAX_AGE_MS else f"{most_ms // DAY_MS}d"
        raise InvalidInputError(f"{age.text!r} is too long: at most {most}.", field=at)


def _check_stays(stays: tuple[Stay, ...], at: str) -> None:
    tiers = [stay.tier for stay in stays]
    if not tiers or tiers[0] != Tier.HOT or tiers != sorted(set(tiers)):
        raise InvalidInputError("A job is hot first, then warm, then in the archive.", field=f"{at}.hot")
    before: Stay | None = None
    for stay in stays:
        where = f"{at}.{stay.tier.word}"
        check_age(stay.until, where)
        if before is not None:
            if before.until is None:
                raise InvalidInputError(f"{before.tier.word} is for ever, so {stay.tier.word} never begins.", field=where)
            if stay.until is not None and stay.until.ms < before.until.ms:
                said = f"{stay.until.text!r} ends before {before.tier.word} does ({before.until.text})."
                raise InvalidInputError(said, field=where)
        before = stay


def _check_name(name: str, seen: set[str], at: str) -> None:
    _check_word(name, NAME_LIMIT, "a rule", at)
    if name in RESERVED_NAMES:
        raise InvalidInputError(f"{name!r} means jobs that are kept against the rules; choose another name.", field=at)
    if name in seen:
        raise InvalidInputError(f"Two rules are named {name!r}.", field=at)
    seen.add(name)


def _check_word(name: str, limit: int, of: str, at: str) -> None:
    plain = name.replace("-", "").replace("_", "")
    if not plain.isascii() or not plain.isalnum() or len(name) > limit:
        shown = name if len(name) <= limit else f"{name[:limit]}…"
        raise InvalidInputError(f"{shown!r} is no name for {of}: up to {limit} letters, digits, - and _.", field=at)


def _check_known(words: Sequence[str], known: list[str], at: str) -> None:
    _check_words(words, at)
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word.upper() if known[0].isupper() else word.lower(), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? Known are" if near else "choose from"
            raise InvalidInputError(f"{word[:NAME_LIMIT]!r} is not known; {hint} {', '.join(known)}.", field=at)


def _check_words(words: Sequence[str], at: str) -> None:
    if len(words) > MAX_WORDS:
        raise InvalidInputError(f"{len(words)} words are too many; at most {MAX_WORDS}.", field=at)
    for word in words:
        if len(word) > WORD_LIMIT or "\0" in word:
            raise InvalidInputError(
                f"{word[:NAME_LIMIT]!r}… fits no job: at most {WORD_LIMIT} characters, none of them NUL.", field=at
            )
