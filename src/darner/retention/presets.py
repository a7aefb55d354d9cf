"""Policies to begin with. `default` is what a fresh installation gets (spec/retention.md, 5.3); the others are chosen by people.

Whether the archive is a step is decided when a preset becomes a version, and written there; nobody looks for an archive later.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from darner import __version__
from darner.core.errors import NotFoundError
from darner.core.job import END_STATES, DetailState, JobType, Tier
from darner.retention.policy import DAY_MS, HOUR_MS, Age, Basis, Bookkeeping, Match, Policy, Rule, Stay

DEFAULT = "default"
SEED_ORIGIN = f"seed:{__version__}"
_BOOKKEEPING = Match(types=(str(JobType.GC), str(JobType.SYNC_PEERS)))
_SUCCESS = Match(states=(str(DetailState.SUCCEEDED),))
_REST = Match(states=tuple(sorted(END_STATES - {DetailState.SUCCEEDED})))


def hours(count: int) -> Age:
    """So many hours."""
    return Age(text=f"{count}h", ms=count * HOUR_MS)


def days(count: int) -> Age:
    """So many days."""
    return Age(text=f"{count}d", ms=count * DAY_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A policy with a name, and in a sentence what it is for."""

    name: str
    about: str
    policy: Policy


def default_policy(*, archive: bool = False) -> Policy:
    """Six hours hot, then warm, then archived where there is an archive."""
    return Policy(
        rules=(
            _rule("bookkeeping", _BOOKKEEPING, hours(6), days(1)),
            _rule("success", _SUCCESS, hours(6), days(7), days(180) if archive else None),
            _rule("rest", _REST, hours(6), days(30), days(400) if archive else None),
        )
    )


def dragonfly_policy(keep: Age | None = None, *, for_ever: bool = False) -> Policy:
    """Upstream's behaviour: all jobs alike, gone six hours (or `keep`) after creation, with nothing before or after it."""
    until = None if for_ever else keep or hours(6)
    return Policy(rules=(Rule(name="all", basis=Basis.CREATED, stays=(Stay(tier=Tier.HOT, until=until),)),))


def frugal_policy() -> Policy:
    """As little disk as makes sense: warm after an hour, successes for a day, failures for two weeks, no archive."""
    return Policy(
        rules=(
            _rule("bookkeeping", _BOOKKEEPING, hours(1), hours(6), undo=hours(6)),
            _rule("success", _SUCCESS, hours(1), days(1), undo=hours(6)),
            _rule("rest", _REST, hours(1), days(14), undo=hours(6)),
        )
    )


def forensic_policy(*, archive: bool = False) -> Policy:
    """What happened can be told for long: successes for 400 days, all others for three years, a week to undo."""
    return Policy(
        rules=(
            _rule("bookkeeping", _BOOKKEEPING, hours(6), days(30), undo=days(7)),
            _rule("success", _SUCCESS, hours(24), *_long(days(90), days(400), archive=archive), undo=days(7)),
            _rule("rest", _REST, hours(24), *_long(days(90), days(1095), archive=archive), undo=days(7)),
        ),
        bookkeeping=Bookkeeping(runs=days(1095), samples=days(400), audit=days(1095)),
    )


_PRESETS: dict[str, tuple[str, Callable[[bool], Policy]]] = {
    DEFAULT: (
        "Hot for 6h after the end, then warm; successes for 7d, all others for 30d; archived after that where there is an archive.",
        lambda archive: default_policy(archive=archive),
    ),
    "dragonfly": (
        "As upstream: every job is deleted 6h after its creation, for good (but not before 1h after its end).",
        lambda _: dragonfly_policy(),
    ),
    "frugal": (
        "For small disks: warm after 1h, successes for 1d, all others for 14d, no archive.",
        lambda _: frugal_policy(),
    ),
    "forensic": (
        "To tell what happened long ago: successes for 400d, all others for 3 years, a week to undo.",
        lambda archive: forensic_policy(archive=archive),
    ),
}


def preset(name: str, *, archive: bool) -> Preset:
    """A preset by its name; NotFoundError. `archive`: whether there is one for jobs to go to."""
    found = _PRESETS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, _PRESETS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(_PRESETS)}."
        raise NotFoundError(f"There is no preset {name[:48]!r}. {hint}", field="preset")
    return Preset(name=name, about=found[0], policy=found[1](archive))


def presets(*, archive: bool) -> list[Preset]:
    """All presets, the default first."""
    return [preset(name, archive=archive) for name in _PRESETS]


def _long(warm: Age, whole: Age, *, archive: bool) -> tuple[Age, ...]:
    return (warm, whole) if archive else (whole,)


def _rule(name: str, match: Match, hot: Age, warm: Age, archive: Age | None = None, *, undo: Age | None = None) -> Rule:
    stays = [Stay(tier=Tier.HOT, until=hot), Stay(tier=Tier.WARM, until=warm)]
    if archive is not None:
        stays.append(Stay(tier=Tier.ARCHIVE, until=archive))
    return Rule(name=name, match=match, stays=tuple(stays), undo=undo or hours(24))
