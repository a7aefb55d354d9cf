"""Jobs and policies for the tests of retention: some to read, and all that hypothesis can think of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from darner.core.job import END_STATES, DetailState, Importance, JobType, Tier
from darner.retention.policy import HOUR_MS, PATH, Age, Basis, Group, KeepLast, Match, Policy, Rule, Stay
from darner.retention.rules import Order, Selector


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A job as the rules see it."""

    type: str = "preheat"
    state: str = "SUCCEEDED"
    owner: str = "ann"
    tag: str = "nightly"
    application: str = "shop"
    labels: Mapping[str, str] = field(default_factory=dict)
    importance: int = 0
    clusters: Sequence[int] = (1,)
    created_at: int = 10 * HOUR_MS
    finished_at: int | None = 13 * HOUR_MS
    base_at: int | None = 13 * HOUR_MS
    held: bool | int = False
    tier: int = 0


def age(hours: float) -> Age:
    """So many hours."""
    return Age(text=f"{hours}h", ms=int(hours * HOUR_MS))


def keep(
    hours: float | None,
    *,
    name: str = "r",
    basis: Basis = Basis.FINISHED,
    match: Match | None = None,
    warm: float | None = None,
    undo: float | None = None,
) -> Rule:
    """A rule: hot for so many hours (None: for ever), then warm until `warm`."""
    stays = [Stay(tier=Tier.HOT, until=None if hours is None else age(hours))]
    stays += [] if warm is None else [Stay(tier=Tier.WARM, until=age(warm))]
    return Rule(name=name, basis=basis, stays=tuple(stays), match=match or Match(), undo=None if undo is None else age(undo))


def policy(*rules: Rule) -> Policy:
    """These rules."""
    return Policy(rules=rules)


def order(*rules: Rule, selectors: Sequence[Selector] = ()) -> Order:
    """These rules in force."""
    return Order(policy=policy(*rules), selectors=tuple(selectors))


TYPES = [str(one) for one in JobType]
OWNERS, TAGS, APPLICATIONS = ["ann", "Ann", "bob", ""], ["nightly", "100%", ""], ["shop", 'a"b', ""]
LABELS = {"env": ["prod", "test", "p%", 'q"\\'], "e_v": ["prod", "ü"]}
CLUSTERS = [1, 2, 3]


def some(values: Sequence[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    """A few of these."""
    return st.lists(st.sampled_from(values), max_size=most, unique=True).map(tuple)


moments = st.integers(min_value=1, max_value=10**12)


@st.composite
def jobs(draw: st.DrawFn, *, ended: bool = False) -> Facts:
    """Any job; with `ended` one that can be stored as an ended one."""
    created = draw(moments)
    finished = created + draw(st.integers(0, 40 * HOUR_MS))
    none_too = st.just(finished) if ended else st.none() | st.just(finished)
    states = sorted(END_STATES) if ended else [str(one) for one in DetailState]
    tier = draw(st.sampled_from([Tier.HOT, Tier.WARM, Tier.DELETED]))
    base = draw(st.integers(created, finished + 10**9)) if tier == Tier.DELETED else finished
    return Facts(
        type=draw(st.sampled_from(TYPES)),
        state=draw(st.sampled_from(states)),
        owner=draw(st.sampled_from(OWNERS)),
        tag=draw(st.sampled_from(TAGS)),
        application=draw(st.sampled_from(APPLICATIONS)),
        labels={key: draw(st.sampled_from(LABELS[key])) for key in draw(some(list(LABELS)))},
        importance=draw(st.sampled_from([int(one) for one in Importance])),
        clusters=draw(some(CLUSTERS)),
        created_at=created,
        finished_at=draw(none_too),
        base_at=base,
        held=draw(st.booleans()),
        tier=int(tier),
    )


label_pairs = [(key, value) for key, values in LABELS.items() for value in values]
matches = st.builds(
    Match,
    types=some(TYPES),
    states=some(sorted(END_STATES)),
    clusters=some(CLUSTERS),
    owners=some(OWNERS),
    tags=some(TAGS),
    applications=some(APPLICATIONS),
    labels=some(label_pairs),
    importance=some([one.word for one in Importance]),
) | st.sampled_from([Match(), Match(types=("preheat",)), Match(states=("FAILED", "PARTIAL")), Match(owners=("ann",))])


@st.composite
def rules(draw: st.DrawFn, name: str = "r", *, keep_last: bool = True) -> Rule:
    """Any rule that may come into force."""
    tiers = [Tier.HOT, *sorted(draw(some(PATH[1:])))]
    hours = sorted(draw(st.lists(st.integers(1, 60), min_size=len(tiers), max_size=len(tiers))))
    ends: list[Age | None] = [age(one) for one in hours]
    if draw(st.integers(0, 4)) == 0:
        ends[-1] = None
    last = st.none() | st.builds(KeepLast, count=st.integers(1, 5), per=st.sampled_from(list(Group)))
    return Rule(
        name=name,
        match=draw(matches),
        basis=draw(st.sampled_from(list(Basis))),
        stays=tuple(Stay(tier=tier, until=until) for tier, until in zip(tiers, ends, strict=True)),
        undo=draw(st.none() | st.integers(1, 40).map(age)),
        keep_last=draw(last) if keep_last else None,
    )


@st.composite
def policies(draw: st.DrawFn, *, keep_last: bool = True) -> Policy:
    """Any policy that may come into force."""
    count = draw(st.integers(1, 4))
    return Policy(rules=tuple(draw(rules(f"r{number}", keep_last=keep_last)) for number in range(count)))


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Any policy, and what holds against it."""
    held = draw(st.lists(matches, max_size=2))
    return Order(policy=draw(policies()), selectors=tuple(Selector(id=n, match=one, reason="law") for n, one in enumerate(held)))
