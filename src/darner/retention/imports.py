"""What an upstream installation was told to keep, as a policy: the TTLs of its `configs` table, or of an old manager.yaml.

Upstream's newer releases ignore the file and begin with 6h, so an operator's own figure is easily lost (spec/retention.md, fact 1).
Here it becomes a policy of upstream's form and stays until a person changes it. A TTL below the hour's floor is raised to it; zero,
a negative one, and one that is missing where its section is there, mean that jobs are kept. Plain functions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from darner.core.errors import InvalidInputError
from darner.retention.parse import age_from_json
from darner.retention.policy import FLOOR_MS, MAX_AGE_MS, Age, Bookkeeping, Policy
from darner.retention.presets import dragonfly_policy

ORIGIN = "grandfathered"
_FLOOR = Age(text="1h", ms=FLOOR_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A policy, and in sentences what became of what. `fields`: the dotted keys that it was read from."""

    policy: Policy
    notes: tuple[str, ...]
    fields: tuple[str, ...]


def policy_from_configs(value: str | bytes | Mapping[str, Any]) -> Imported | None:
    """The row named `gc` of upstream's `configs`: `{"audit": {"ttl": ns}, "job": {"ttl": ns}}`, as JSON text or parsed.

    None when it says nothing about jobs or audit. InvalidInputError names the field. This is also what a face that speaks
    upstream's `PUT /api/v1/configs/{id}` calls.
    """
    data: Any = value
    if isinstance(value, str | bytes):
        try:
            data = json.loads(value)
        except ValueError as error:
            raise InvalidInputError(f"The row is not valid JSON: {error}.", field="value") from error
    if not isinstance(data, Mapping):
        raise InvalidInputError("An object is expected.", field="value")
    return _imported(data, {"job": ("job", "ttl"), "audit": ("audit", "ttl")})


def policy_from_manager_yaml(data: Mapping[str, Any]) -> Imported | None:
    """An old manager.yaml: `job.gc.ttl`, and `audit.gc.ttl` beside it. None when it has neither section."""
    return _imported(data, {"job": ("job", "gc", "ttl"), "audit": ("audit", "gc", "ttl")})


def _imported(data: Mapping[str, Any], paths: Mapping[str, tuple[str, ...]]) -> Imported | None:
    found = {name: _value(data, path) for name, path in paths.items()}
    if not any(there for there, _ in found.values()):
        return None
    policy, notes = dragonfly_policy(for_ever=True), []
    if found["job"][0]:
        age, note = _kept(found["job"][1], ".".join(paths["job"]), "jobs are kept")
        policy, notes = (policy if age is None else dragonfly_policy(age)), [note]
    else:
        notes.append("Nothing is said about jobs, so they are kept.")
    if found["audit"][0]:
        age, note = _kept(found["audit"][1], ".".join(paths["audit"]), f"the audit is kept {Bookkeeping().audit.text}")
        policy = policy if age is None else replace(policy, bookkeeping=replace(policy.bookkeeping, audit=age))
        notes.append(note)
    return Imported(policy=policy, notes=tuple(notes), fields=tuple(".".join(paths[name]) for name in paths if found[name][0]))


def _value(data: Mapping[str, Any], path: tuple[str, ...]) -> tuple[bool, Any]:
    """(whether the section is there, the TTL in it or None)."""
    inner: Any = data
    for key in path[:-1]:
        if not isinstance(inner, Mapping) or key not in inner:
            return False, None
        inner = inner[key]
    return True, inner.get(path[-1]) if isinstance(inner, Mapping) else None


def _kept(value: Any, at: str, otherwise: str) -> tuple[Age | None, str]:  # noqa: ANN401  (JSON or YAML)
    """The age that a TTL means, and what to say about it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    age = age_from_json("keep" if isinstance(value, str) and value.strip() in {"0", "-1"} else value, at)
    if age is None:
        return None, f"{at} is not set, so {otherwise}."
    if age.text.startswith("-") or not set(age.text) & set("123456789"):
        return None, f"{at} is {age.text}, so {otherwise}."
    if age.ms < FLOOR_MS:
        return _FLOOR, f"{at} is {age.text}, raised to 1h: clients ask for a job up to half an hour after its end."
    if age.ms > MAX_AGE_MS:
        return None, f"{at} is {age.text}, more than 10 years, so {otherwise}."
    return age, f"{at} is {age.text}, and stays so."
