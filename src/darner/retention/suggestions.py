"""What might be better than the policy in force. A suggestion is shown with what it would do, and never applied by itself.

A default of the code that changed is no reason to forget anything: what is in force are rows (spec/retention.md, 5.6).
"""

from dataclasses import dataclass

from darner.retention.imports import ORIGIN as GRANDFATHERED
from darner.retention.policy import Policy
from darner.retention.presets import DEFAULT, SEED_ORIGIN, preset
from darner.retention.values import PolicyVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A policy that a person may choose: by this preset's name."""

    preset: str
    title: str
    policy: Policy


def suggestions(found: PolicyVersion, *, archive: bool) -> list[Suggestion]:
    """What to suggest instead of the version in force. What a person chose is left alone."""
    seeded = found.origin == "seed" or found.origin.startswith("seed:")
    if found.origin == SEED_ORIGIN or not (seeded or found.origin == GRANDFATHERED):
        return []
    today = preset(DEFAULT, archive=archive)
    if today.policy.rules == found.policy.rules:
        return []
    came = "the default of an earlier release" if seeded else "taken over from upstream"
    title = f"The policy in force is {came}. Today's default: {today.about}"
    return [Suggestion(preset=today.name, title=title, policy=today.policy)]
