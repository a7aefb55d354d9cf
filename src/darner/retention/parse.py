"""The policy as JSON: what people send and what the database keeps. Refuses unknown fields."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from darner.core.errors import InvalidInputError
from darner.kit.units import parse_duration
from darner.retention.policy import Age, Basis, Match, Policy, Rule, check_policy

FOR_EVER = "keep"
_FOR_EVER_WORDS = frozenset({"keep", "forever", "for ever", "never", "-1", ""})
_RULE_FIELDS = ("name", "match", "basis", "hot", "then")
_MATCH_FIELDS = ("types", "states", "owners", "tags", "applications")


def policy_from_json(data: Mapping[str, Any]) -> Policy:
    """`{"rules": […]}`, or `{"keep": "36h"}` for one rule for all jobs. InvalidInputError names the field."""
    if "rules" in data:
        rules = data["rules"]
        if not isinstance(rules, list):
            raise InvalidInputError("Rules are a list.", field="rules")
        policy = Policy(rules=tuple(_rule(rule, f"rules[{index}]") for index, rule in enumerate(rules)))
        check_policy(policy)
        return policy
    short = next((name for name in ("keep", "hot") if name in data), None)
    if short is None:
        raise InvalidInputError("Say what to keep: `rules`, or `keep` with a duration like 36h.", field="keep")
    policy = Policy(rules=(Rule(name="default", hot=age_from_json(data[short], short)),))
    try:
        check_policy(policy)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field=short) from error
    return policy


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """The form that is stored and shown; durations as typed."""
    return {
        "rules": [
            {
                "name": rule.name,
                "match": {name: list(getattr(rule.match, name)) for name in _MATCH_FIELDS if getattr(rule.match, name)},
                "basis": str(rule.basis),
                "hot": rule.hot.text if rule.hot else FOR_EVER,
                "then": "delete" if rule.hot else "keep",
            }
            for rule in policy.rules
        ]
    }


def policy_from_text(text: str) -> Policy:
    """A stored policy."""
    return policy_from_json(json.loads(text))


def age_from_json(value: Any, at: str) -> Age | None:  # noqa: ANN401  (JSON)
    """A duration: text like `36h`, or an integer of nanoseconds as upstream sends it. Absent, null, `keep` and -1: for ever.

    Zero, negative durations and what is no duration are refused, never taken for "at once".
    """
    if value is None or value == -1 or (isinstance(value, str) and value.strip().lower() in _FOR_EVER_WORDS):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return Age(text=f"{value}ns", ms=value // 1_000_000)
    if not isinstance(value, str):
        raise InvalidInputError(f"{value!r} is not a duration; write it like 36h.", field=at)
    text = value.strip()
    try:
        seconds = parse_duration(text.removeprefix("-"))
    except ValueError as error:
        raise InvalidInputError(f"{str(error).replace(text.removeprefix('-'), text)}; the least is 1h.", field=at) from error
    return Age(text=text, ms=round(seconds * 1000) * (-1 if text.startswith("-") else 1))


def _rule(data: Any, at: str) -> Rule:  # noqa: ANN401  (JSON)
    _check_fields(data, _RULE_FIELDS, at)
    name = data.get("name")
    if not isinstance(name, str):
        raise InvalidInputError("A rule needs a name.", field=f"{at}.name")
    basis = data.get("basis", Basis.FINISHED)
    if basis not in set(Basis):
        raise InvalidInputError(f"{basis!r} is not known; choose from {', '.join(Basis)}.", field=f"{at}.basis")
    then = data.get("then", "delete")
    if then not in {"delete", "keep"}:
        raise InvalidInputError(f"{then!r} is not known; choose from delete, keep.", field=f"{at}.then")
    hot = age_from_json(data.get("hot"), f"{at}.hot") if then == "delete" else None
    return Rule(name=name, match=_match(data.get("match") or {}, f"{at}.match"), basis=Basis(basis), hot=hot)


def _match(data: Any, at: str) -> Match:  # noqa: ANN401  (JSON)
    _check_fields(data, _MATCH_FIELDS, at)
    for name, words in data.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InvalidInputError("A list of words is expected.", field=f"{at}.{name}")
    return Match(**{name: tuple(words) for name, words in data.items()})


def _check_fields(data: Any, known: tuple[str, ...], at: str) -> None:  # noqa: ANN401  (JSON)
    if not isinstance(data, Mapping):
        raise InvalidInputError("An object is expected.", field=at)
    for name in data:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            raise InvalidInputError(f"{name!r} is not a field; {hint}", field=f"{at}.{name}")
