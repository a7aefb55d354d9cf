"""The policy as JSON: what people send and what the database keeps. Refuses unknown fields."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

from darner.core.errors import InvalidInputError
from darner.core.job import Tier
from darner.kit.units import parse_duration
from darner.retention.policy import (
    HOUR_MS,
    MAX_ID,
    MAX_RULES,
    PATH,
    Age,
    Basis,
    Bookkeeping,
    Group,
    KeepLast,
    Match,
    Policy,
    Rule,
    Stay,
    check_age,
    check_policy,
)

_Choice = TypeVar("_Choice", bound=StrEnum)
_Values = TypeVar("_Values", bound=Sequence[Any])
FOR_EVER = "keep"
_FOR_EVER_WORDS = frozenset({"keep", "forever", "for ever", "never", "-1", ""})
_POLICY_FIELDS = ("rules", "bookkeeping")
_SHORT_FIELDS = ("keep", "hot")
_RULE_FIELDS = ("name", "match", "basis", "hot", "warm", "archive", "undo", "keep_last", "export", "then")
_BOOKS = ("runs", "samples", "audit")
# What `{"keep": …}` gives beside the time itself.
_HOT = Age(text="6h", ms=6 * HOUR_MS)
_UNDO = Age(text="24h", ms=24 * HOUR_MS)
_DURATION_LIMIT = 48
_FIELD_LIMIT = 128
_WORDS = ("types", "states", "owners", "tags", "applications", "importance")


class _Then(StrEnum):
    DELETE = "delete"
    KEEP = "keep"


def policy_from_json(data: Mapping[str, Any]) -> Policy:
    """A policy that people send: `{"rules": […]}`, or `{"keep": "36h"}` for one rule for all jobs. Errors name the field.

    `keep` says how long ended jobs stay in lists. Within that they are hot for 6h and warm for the rest; afterwards they can be
    restored for 24h.
    """
    _check_fields(data, (*_POLICY_FIELDS, *_SHORT_FIELDS), "")
    short = [name for name in _SHORT_FIELDS if name in data]
    if "rules" in data:
        if short:
            raise InvalidInputError(f"Say `rules` or `{short[0]}`, not both.", field=short[0])
        policy = _policy(data)
        check_policy(policy)
        return policy
    if not short:
        raise InvalidInputError("Say what to keep: `rules`, or `keep` with a duration like 36h.", field="keep")
    if len(short) > 1:
        raise InvalidInputError("`hot` is the former word for `keep`; say one of them.", field="hot")
    return _one_rule(data, short[0])


def policy_from_text(text: str) -> Policy:
    """A stored policy. It was checked when it came into force, by the release that stored it, so its form alone is asked for."""
    return _policy(json.loads(text))


def _policy(data: Mapping[str, Any]) -> Policy:
    rules = data["rules"]
    if not isinstance(rules, list):
        raise InvalidInputError("Rules are a list.", field="rules")
    if len(rules) > MAX_RULES:
        raise InvalidInputError(f"A policy has 1 to {MAX_RULES} rules, not {len(rules)}.", field="rules")
    checked = tuple(_rule(rule, f"rules[{index}]") for index, rule in enumerate(rules))
    return Policy(rules=checked, bookkeeping=_bookkeeping(data.get("bookkeeping")))


def _one_rule(data: Mapping[str, Any], at: str) -> Policy:
    """What `{"keep": …}` means: see `policy_from_json`. Kept for ever, nothing is removed, so nothing is to undo."""
    keep = age_from_json(data[at], at)
    check_age(keep, at)
    stays = [Stay(tier=Tier.HOT, until=keep if keep is not None and keep.ms <= _HOT.ms else _HOT)]
    if stays[0].until is not keep:
        stays.append(Stay(tier=Tier.WARM, until=keep))
    policy = Policy(rules=(Rule(name="default", stays=tuple(stays), undo=_UNDO if keep else None),))
    return replace(policy, bookkeeping=_bookkeeping(data.get("bookkeeping")))


def _bookkeeping(data: Any) -> Bookkeeping:  # noqa: ANN401  (JSON)
    if data is None:
        return Bookkeeping()
    _check_fields(data, _BOOKS, "bookkeeping")
    ages = {name: age_from_json(data[name], f"bookkeeping.{name}") for name in _BOOKS if name in data}
    missing = next((name for name, age in ages.items() if age is None), None)
    if missing is not None:
        raise InvalidInputError("Records of the sweeper itself are kept for a time, not for ever.", field=f"bookkeeping.{missing}")
    return Bookkeeping(**{name: age for name, age in ages.items() if age is not None})


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """The form that is stored and shown; durations as typed, what a rule does not have left away."""
    books = policy.bookkeeping
    return {
        "rules": [_rule_json(rule) for rule in policy.rules],
        "bookkeeping": {"runs": books.runs.text, "samples": books.samples.text, "audit": books.audit.text},
    }


def _rule_json(rule: Rule) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": rule.name, "match": match_to_json(rule.match), "basis": str(rule.basis)}
    shown |= {stay.tier.word: stay.until.text if stay.until else FOR_EVER for stay in rule.stays}
    if rule.undo is not None:
        shown["undo"] = rule.undo.text
    if rule.keep_last is not None:
        shown["keep_last"] = {"count": rule.keep_last.count, "per": str(rule.keep_last.per)}
    if rule.export:
        shown["export"] = rule.export
    return shown


def match_to_json(match: Match) -> dict[str, Any]:
    """A match without its empty fields."""
    shown: dict[str, Any] = {name: list(getattr(match, name)) for name in (*_WORDS, "clusters") if getattr(match, name)}
    labels: dict[str, list[str]] = {}
    for key, value in match.labels:
        labels.setdefault(key, []).append(value)
    return {**shown, "labels": labels} if labels else shown


def age_from_json(value: Any, at: str) -> Age | None:  # noqa: ANN401  (JSON)
    """A duration: text like `36h`, or an integer of nanoseconds as upstream sends it. Absent, null, `keep` and -1: for ever.

    Zero, negative durations and what is no duration are refused, never taken for "at once".
    """
    if value is None or (isinstance(value, int) and value == -1):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value}ns" if abs(value) <= MAX_ID else "9" * _DURATION_LIMIT + "…"
    if not isinstance(value, str):
        raise InvalidInputError(f"{_short(value)} is not a duration; write it like 36h.", field=at)
    text = value.strip()
    if text.lower() in _FOR_EVER_WORDS:
        return None
    plain = text.removeprefix("-")
    try:
        ms = round(parse_duration(plain if len(plain) <= _DURATION_LIMIT else "") * 1000)
    except ValueError as error:
        said = str(error).replace(repr(plain), repr(text)) if len(plain) <= _DURATION_LIMIT else f"{_short(text)} is not a duration"
        raise InvalidInputError(f"{said}; the least is 1h.", field=at) from error
    return Age(text=text, ms=-ms if text.startswith("-") else ms)


def _short(value: Any) -> str:  # noqa: ANN401  (JSON)
    shown = repr(value)
    return shown if len(shown) <= _DURATION_LIMIT else f"{shown[:_DURATION_LIMIT]}…"


def _rule(data: Any, at: str) -> Rule:  # noqa: ANN401  (JSON)
    _check_fields(data, _RULE_FIELDS, at)
    name = data.get("name")
    if not isinstance(name, str):
        raise InvalidInputError("A rule needs a name.", field=f"{at}.name")
    export = data.get("export") or ""
    if not isinstance(export, str):
        raise InvalidInputError("The name of a sink is expected.", field=f"{at}.export")
    return Rule(
        name=name,
        match=match_from_json(data.get("match") or {}, f"{at}.match"),
        basis=_choice(Basis, data.get("basis", Basis.FINISHED), f"{at}.basis"),
        stays=_stays(data, at),
        undo=_undo(data.get("undo"), f"{at}.undo"),
        keep_last=_keep_last(data.get("keep_last"), f"{at}.keep_last"),
        export=export,
    )


def _stays(data: Mapping[str, Any], at: str) -> tuple[Stay, ...]:
    # `then: keep` is how rules that keep for ever were written at first.
    if _choice(_Then, data.get("then", _Then.DELETE), f"{at}.then") == _Then.KEEP:
        return (Stay(tier=Tier.HOT),)
    named = [tier for tier in PATH if tier == Tier.HOT or tier.word in data]
    unsaid = next((tier.word for tier in named if tier != Tier.HOT and data[tier.word] in (None, "")), None)
    if unsaid is not None:
        said = f"null may mean that jobs do not pass {unsaid} or stay there for ever: leave the field away, or say 'keep'."
        raise InvalidInputError(said, field=f"{at}.{unsaid}")
    return tuple(Stay(tier=tier, until=age_from_json(data.get(tier.word), f"{at}.{tier.word}")) for tier in named)


def _undo(value: Any, at: str) -> Age | None:  # noqa: ANN401  (JSON)
    """How long removed jobs can be restored; absent: not at all. It has an end, or nothing would ever be gone."""
    age = age_from_json(value, at)
    if age is None and value is not None:
        raise InvalidInputError("Removed jobs can be restored for a time, like 24h; to remove no jobs keep them.", field=at)
    return age


def _keep_last(data: Any, at: str) -> KeepLast | None:  # noqa: ANN401  (JSON)
    if data is None:
        return None
    if isinstance(data, int) and not isinstance(data, bool):
        data = {"count": data}
    _check_fields(data, ("count", "per"), at)
    count = data.get("count")
    if not isinstance(count, int) or isinstance(count, bool):
        raise InvalidInputError("A number of jobs is expected.", field=f"{at}.count")
    return KeepLast(count=count, per=_choice(Group, data.get("per", Group.URL), f"{at}.per"))


def match_from_json(data: Any, at: str) -> Match:  # noqa: ANN401  (JSON)
    """Which jobs a rule or a hold is for. InvalidInputError names the field."""
    _check_fields(data, (*_WORDS, "clusters", "labels"), at)
    words = {name: _words(data[name], f"{at}.{name}") for name in _WORDS if name in data}
    clusters = data.get("clusters", [])
    if not isinstance(clusters, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in clusters):
        raise InvalidInputError("A list of cluster ids is expected.", field=f"{at}.clusters")
    if "clusters" in data:
        _some(clusters, f"{at}.clusters")
    labels = data.get("labels", {})
    if not isinstance(labels, Mapping) or not all(isinstance(key, str) for key in labels):
        raise InvalidInputError("An object of keys and lists of values is expected.", field=f"{at}.labels")
    pairs = tuple((key, value) for key, values in labels.items() for value in _words(values, f"{at}.labels.{key}"))
    return Match(**words, clusters=tuple(clusters), labels=pairs)


def _words(data: Any, at: str) -> tuple[str, ...]:  # noqa: ANN401  (JSON)
    if not isinstance(data, list) or not all(isinstance(word, str) for word in data):
        raise InvalidInputError("A list of words is expected.", field=at)
    return _some(tuple(data), at)


def _some(values: _Values, at: str) -> _Values:
    """An empty list could mean any job or none, and one of the two removes too much."""
    if not values:
        raise InvalidInputError("An empty list fits no job; leave the field away if any will do.", field=at)
    return values


def _choice(kind: type[_Choice], word: Any, at: str) -> _Choice:  # noqa: ANN401  (JSON)
    try:
        return kind(word)
    except ValueError:
        raise InvalidInputError(f"{_short(word)} is not known; choose from {', '.join(kind)}.", field=at) from None


def _check_fields(data: Any, known: tuple[str, ...], at: str) -> None:  # noqa: ANN401  (JSON)
    if not isinstance(data, Mapping):
        raise InvalidInputError("An object is expected.", field=at or "policy")
    for name in data:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            raise InvalidInputError(f"{_short(name)} is not a field; {hint}", field=f"{at}.{name}".removeprefix(".")[:_FIELD_LIMIT])
