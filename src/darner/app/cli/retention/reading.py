"""A policy as a person gives it: a file, a text in an editor, or a change of one rule. The manager checks it."""

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from darner.app.cli.retention.words import TIERS
from darner.app.cli.run import UsageProblem
from darner.core.errors import DarnerError, InvalidInputError, NotFoundError

NONE = "none"
POLICY_FIELDS = ("rules", "bookkeeping", "keep")
# What `policy show --json` prints beside the policy itself; a file with these is what it printed.
SHOWN_FIELDS = ("version", "origin", "created_at", "created_by", "reason", "confirmed_at", "confirmed_by", "diff")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A policy, and the version it was made from if the text says so."""

    data: dict[str, Any]
    base_version: int | None = None


def read_policy(path: str) -> Given:
    """YAML or JSON from a file, or from stdin for `-`. Raises DarnerError, which names the file."""
    name = "stdin" if path == "-" else path
    try:
        text = sys.stdin.read(_MAX_BYTES + 1) if path == "-" else _text(Path(path))
    except OSError as error:
        raise DarnerError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DarnerError(f"{name} is no text") from None
    if len(text) > _MAX_BYTES:
        raise DarnerError(f"{name} is too long for a policy")
    return parse_policy(text, name)


def _text(path: Path) -> str:
    with path.open() as file:
        return file.read(_MAX_BYTES + 1)


def parse_policy(text: str, name: str) -> Given:
    """A policy from text. Raises DarnerError; what its fields may be is the manager's to say."""
    try:
        data = yaml.safe_load(text)
        json.dumps(data, allow_nan=False)
    except yaml.YAMLError as error:
        raise DarnerError(f"{name} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise DarnerError(f"{name} has a value that is no text, number or list; put it in quotes ({error})") from None
    if isinstance(data, list):
        data = {"rules": data}
    if not isinstance(data, dict) or not data:
        raise DarnerError(f"{name} is no policy: `rules:` with a list of rules is expected (`darner retention policy show --yaml`)")
    version = data.get("version")
    policy = {key: value for key, value in data.items() if key not in SHOWN_FIELDS}
    return Given(data=policy, base_version=version if isinstance(version, int) and not isinstance(version, bool) else None)


def to_yaml(policy: Mapping[str, Any]) -> str:
    """The rules of a policy as YAML that can be read back."""
    return yaml.safe_dump({key: policy[key] for key in POLICY_FIELDS if key in policy}, sort_keys=False, allow_unicode=True)


def change_rule(policy: Mapping[str, Any], name: str, wanted: Mapping[str, str | None]) -> dict[str, Any]:
    """The policy with one rule changed; `wanted` by field, None: as it is, `none`: without it. NotFoundError, UsageProblem."""
    names = [str(rule["name"]) for rule in policy["rules"]]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise NotFoundError(f"the policy has no rule {name!r}; {hint}")
    changes = {field: value for field, value in wanted.items() if value is not None}
    if not changes:
        raise UsageProblem(f"--rule {name}: say what to change, like --warm 14d")
    rules = [_changed(rule, changes) if rule["name"] == name else dict(rule) for rule in policy["rules"]]
    return {**{key: policy[key] for key in POLICY_FIELDS if key in policy}, "rules": rules}


def _changed(rule: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    made = dict(rule)
    for field, value in changes.items():
        if value.lower() == NONE:
            if field in {"hot", "basis"}:
                said = "every job is hot first" if field == "hot" else "finished or created is expected"
                raise UsageProblem(f"--{field} {value}: {said}")
            made.pop(field, None)
        else:
            made[field] = _keep_last(value) if field == "keep_last" else value
    return {key: made[key] for key in ("name", "match", "basis", *TIERS, "undo", "keep_last", "export") if key in made}


def _keep_last(text: str) -> dict[str, Any]:
    """`3`, `3/url` or `3/image`."""
    count, _, per = text.partition("/")
    if not count.isascii() or not count.isdigit():
        raise UsageProblem(f"--keep-last {text}: a number is expected, like 3, 3/url or 3/image")
    return {"count": int(count), **({"per": per} if per else {})}


def named(error: InvalidInputError, data: Mapping[str, Any]) -> InvalidInputError:
    """The error with the rule that it is about, which the manager names by its place."""
    field, rules = error.field or "", data.get("rules")
    place, _, rest = field.removeprefix("rules[").partition("]")
    if not field.startswith("rules[") or not place.isdigit() or not isinstance(rules, list) or int(place) >= len(rules):
        return error
    rule = rules[int(place)]
    name = rule.get("name") if isinstance(rule, Mapping) else None
    where = f"rule {name}" if isinstance(name, str) and name and rest != ".name" else f"rule number {int(place) + 1}"
    return InvalidInputError(f"{where}{', ' if rest else ''}{rest.removeprefix('.')}: {error.message}", field=error.field)
