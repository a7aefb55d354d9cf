"""Sets of jobs, as far as matches can tell jobs apart: whether there can be a job that fits some matches and not others.

By that a change of policy is judged without looking at any row. A set is a product of what each fact may be; what a match leaves
over is one set per field of it, so the search goes through those, and gives up after a bounded number of steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from darner.core.job import END_STATES, DetailState, Importance, JobType
from darner.retention.policy import Match

_STEPS = 4_000
# Facts with one word each, and the field of a match that names them; with words a person would expect.
_FIELDS = {
    "type": "types",
    "state": "states",
    "owner": "owners",
    "tag": "tags",
    "application": "applications",
    "importance": "importance",
}
_USUAL: dict[str, str | None] = {
    "type": str(JobType.PREHEAT),
    "state": str(DetailState.SUCCEEDED),
    "importance": Importance.NORMAL.word,
    "owner": "someone",
    "tag": "",
    "application": "",
}


class UnsureError(Exception):
    """The search took too many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a fact may be: one of `among` (None: anything), and none of `but`. A label may also be missing: None."""

    among: frozenset[str | None] | None = None
    but: frozenset[str | None] = frozenset()

    def within(self, words: Iterable[str]) -> "Words":
        """Only these words."""
        wanted = frozenset(words)
        return replace(self, among=wanted if self.among is None else self.among & wanted)

    def without(self, words: Iterable[str]) -> "Words":
        """None of these words."""
        return replace(self, but=self.but | frozenset(words))

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return self.among is not None and not self.among - self.but

    def example(self, usual: str | None) -> str | None:
        """One that it may be, the usual one if possible."""
        if self.among is not None:
            left = self.among - self.but
            return usual if usual in left else min(str(one) for one in left)
        number, found = 1, usual
        while found in self.but:
            number, found = number + 1, f"other{number}"
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A job of a set, as the rules see it; its times are the asker's business."""

    type: str
    state: str
    owner: str
    tag: str
    application: str
    importance: int
    labels: Mapping[str, str]
    clusters: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """A set of ended jobs. Of `some` clusters a job is in one of each; in none of `no_clusters`."""

    facts: Mapping[str, Words]
    labels: Mapping[str, Words] = field(default_factory=dict)
    some: tuple[frozenset[int], ...] = ()
    no_clusters: frozenset[int] = frozenset()

    def that_fit(self, match: Match) -> "Jobs | None":
        """Those that a match fits; None if there are none."""
        facts = {name: one.within(words) if (words := getattr(match, _FIELDS[name])) else one for name, one in self.facts.items()}
        labels = dict(self.labels)
        for key, values in _labels(match).items():
            labels[key] = labels.get(key, Words()).within(values)
        some = (*self.some, frozenset(match.clusters)) if match.clusters else self.some
        found = replace(self, facts=facts, labels=labels, some=some)
        return None if found.empty else found

    def that_do_not_fit(self, match: Match) -> list["Jobs"]:
        """Those that it does not fit, as sets that may overlap."""
        found = []
        for name, words in self.facts.items():
            if named := getattr(match, _FIELDS[name]):
                found.append(replace(self, facts={**self.facts, name: words.without(named)}))
        for key, values in _labels(match).items():
            found.append(replace(self, labels={**self.labels, key: self.labels.get(key, Words()).without(values)}))
        if match.clusters:
            found.append(replace(self, no_clusters=self.no_clusters | frozenset(match.clusters)))
        return [one for one in found if not one.empty]

    def example(self) -> Example:
        """A job of the set."""
        words = {name: str(one.example(_USUAL[name])) for name, one in self.facts.items()}
        word = words.pop("importance")
        importance = next(int(one) for one in Importance if one.word == word)
        labels = {key: value for key, one in self.labels.items() if (value := one.example(None)) is not None}
        clusters = tuple(sorted({min(one - self.no_clusters) for one in self.some}))
        return Example(**words, importance=importance, labels=labels, clusters=clusters)

    @property
    def empty(self) -> bool:
        """Whether there is no such job."""
        lost = any(one.empty for one in (*self.facts.values(), *self.labels.values()))
        return lost or not all(one - self.no_clusters for one in self.some)


ALL_JOBS = Jobs(
    facts={
        "type": Words(among=frozenset(str(one) for one in JobType)),
        "state": Words(among=frozenset(str(one) for one in END_STATES)),
        "importance": Words(among=frozenset(one.word for one in Importance)),
        "owner": Words(),
        "tag": Words(),
        "application": Words(),
    }
)


class Search:
    """Finds jobs that fit some matches and none of others. One budget for all its questions."""

    def __init__(self) -> None:
        """A full budget."""
        self._left = _STEPS

    def jobs(self, fitting: Sequence[Match], not_fitting: Sequence[Match]) -> Jobs | None:
        """Such jobs, or None if there can be none. UnsureError when that is too hard to tell."""
        found: Jobs | None = ALL_JOBS
        for match in fitting:
            found = found.that_fit(match) if found is not None else None
        return None if found is None else self._without(found, not_fitting)

    def _without(self, jobs: Jobs, matches: Sequence[Match]) -> Jobs | None:
        self._left -= 1 + len(matches) // 8
        if self._left < 0:
            raise UnsureError
        still = [match for match in matches if jobs.that_fit(match) is not None]
        if not still:
            return jobs
        choices = [jobs.that_do_not_fit(match) for match in still]
        hardest = min(range(len(still)), key=lambda index: len(choices[index]))
        rest = [match for index, match in enumerate(still) if index != hardest]
        for smaller in choices[hardest]:
            found = self._without(smaller, rest)
            if found is not None:
                return found
        return None


def _labels(match: Match) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, value in match.labels:
        found.setdefault(key, set()).add(value)
    return found
