"""What a change of policy means: field by field, in words, and whether any job would be forgotten sooner. Plain functions.

A *lot* is all jobs that one rule decided about before and one rule decides about after. What happens to a lot is told by the two
rules alone, so a change is judged without looking at any row. *Tightened*: some job, there now or later, is forgotten sooner, can
be restored for a shorter time, or loses what kept it (the last successes of a group, a sink that must have it first). Moves
between tiers lose nothing and are neither.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from darner.core.job import Importance, Tier
from darner.retention.parse import policy_to_json
from darner.retention.policy import FLOOR_MS, UNDO_MS, Basis, Policy, Rule
from darner.retention.space import Example, Search, UnsureError


class Effect(StrEnum):
    """What a change does to jobs."""

    SAME = "same"
    TIGHTENED = "tightened"
    LOOSENED = "loosened"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field, as it was written and as it is; None: it was not, or is not, there."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """`change`: added, removed, changed, or moved (nothing but its place)."""

    rule: str
    change: str
    fields: tuple[FieldChange, ...]
    effect: Effect
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Jobs whose lot changes; rule names, empty for none. `example`: one of them, None if it was too hard to find."""

    before: str
    after: str
    tightens: tuple[str, ...]
    loosens: tuple[str, ...]
    example: Example | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDiff:
    """A change of policy."""

    effect: Effect
    rules: tuple[RuleChange, ...]
    bookkeeping: tuple[FieldChange, ...]
    lots: tuple[Lot, ...]

    @property
    def tightens(self) -> bool:
        """Whether it asks for somebody's consent."""
        return self.effect in {Effect.TIGHTENED, Effect.MIXED}


def diff_policies(before: Policy, after: Policy) -> PolicyDiff:
    """The change from one policy to another."""
    if before == after:
        return PolicyDiff(effect=Effect.SAME, rules=(), bookkeeping=(), lots=())
    lots = tuple(_lots(before, after))
    old, new = policy_to_json(before), policy_to_json(after)
    return PolicyDiff(
        effect=_effect(lots),
        rules=tuple(_rule_changes(old["rules"], new["rules"], lots)),
        bookkeeping=tuple(_field_changes(old["bookkeeping"], new["bookkeeping"])),
        lots=lots,
    )


def tightens(before: Policy, after: Policy) -> bool:
    """Whether any job would be forgotten sooner, or lose what protects it."""
    return _effect(tuple(_lots(before, after))) in {Effect.TIGHTENED, Effect.MIXED}


# Lots.


def _lots(before: Policy, after: Policy) -> Iterator[Lot]:
    search = Search()
    crowded = _fed_by_several(before, after)
    for i, old in _numbered(before):
        for j, new in _numbered(after):
            tighter = tuple(_losses(old, new, crowded=j in crowded))
            looser = tuple(_losses(new, old, crowded=False))
            if not tighter and not looser:
                continue
            found, example = _meeting(search, before, i, after, j)
            if found:
                names = {"before": old.name if old else "", "after": new.name if new else ""}
                yield Lot(**names, tightens=tighter, loosens=looser, example=example)
    yield from _archived_lots(before, after)


def _archived_lots(before: Policy, after: Policy) -> Iterator[Lot]:
    """Archived jobs stay with the name of the rule that archived them, whatever that rule matches now."""
    are = {rule.name: rule for rule in after.rules}
    for old in before.rules:
        new = are.get(old.name)
        if new is None or old.stay(Tier.ARCHIVE) is None or old.match == new.match:
            continue
        shorter, longer = _ends_ms(new) < _ends_ms(old), _ends_ms(new) > _ends_ms(old)
        if shorter or longer:
            said = ("what it archived is forgotten sooner",)
            yield Lot(
                before=old.name, after=old.name, tightens=said if shorter else (), loosens=said if longer else (), example=None
            )


def _ends_ms(rule: Rule) -> float:
    return float("inf") if rule.ends is None else rule.ends.ms


def _numbered(policy: Policy) -> list[tuple[int, Rule | None]]:
    return [*enumerate(policy.rules), (len(policy.rules), None)]


def _meeting(search: Search, before: Policy, i: int, after: Policy, j: int) -> tuple[bool, Example | None]:
    """Whether there can be jobs that rule i decided about and rule j decides about; if that is too hard to tell, there can."""
    fitting = [policy.rules[n].match for policy, n in ((before, i), (after, j)) if n < len(policy.rules)]
    earlier = [rule.match for policy, n in ((before, i), (after, j)) for rule in policy.rules[:n]]
    try:
        found = search.jobs(fitting, list(dict.fromkeys(earlier)))
    except UnsureError:
        return True, None
    return found is not None, found.example() if found is not None else None


def _fed_by_several(before: Policy, after: Policy) -> set[int]:
    """Rules with `keep_last` that get the jobs of more than one former rule: those now compete for the places."""
    search, found = Search(), set()
    for j, new in enumerate(after.rules):
        if new.keep_last is not None:
            feeders = sum(_meeting(search, before, i, after, j)[0] for i, _ in _numbered(before))
            found |= {j} if feeders > 1 else set()
    return found


def _losses(old: Rule | None, new: Rule | None, *, crowded: bool) -> Iterator[str]:
    """What jobs lose that fell under `old` and fall under `new`."""
    if new is None:
        return
    if _sooner(old, new):
        yield "forgotten sooner"
    if old is None:
        return
    if _less_undo(old, new):
        yield "can be restored for a shorter time"
    if new.ends is None:
        return
    if old.keep_last is not None:
        kept = new.keep_last
        if kept is None or kept.count < old.keep_last.count or kept.per != old.keep_last.per or crowded:
            yield "the last successes are kept no more, or fewer, or counted otherwise"
    if old.export and new.export != old.export:
        yield f"they wait no more for the sink {old.export}"


def _less_undo(old: Rule, new: Rule) -> bool:
    """A rule without `undo` hides no jobs; those that a person removed can be restored for `UNDO_MS` then."""
    if old.undo is None:
        return False
    if new.undo is None:
        return new.ends is not None or old.undo.ms > UNDO_MS
    return new.undo.ms < old.undo.ms


def _sooner(old: Rule | None, new: Rule) -> bool:
    """Whether some job is forgotten sooner, whatever its creation and end were.

    With d between the two and the hour's floor h, a job is forgotten `d + max(a, h)` after its creation where ages count from the
    end, and `max(a, d + h)` after it where they count from the creation.
    """
    if new.ends is None:
        return False
    if old is None or old.ends is None:
        return True
    was, is_now = max(old.ends.ms, FLOOR_MS), max(new.ends.ms, FLOOR_MS)
    if old.basis == Basis.FINISHED and new.basis == Basis.CREATED:
        return was > FLOOR_MS
    return is_now < was


def _effect(lots: Sequence[Lot]) -> Effect:
    tighter, looser = any(one.tightens for one in lots), any(one.loosens for one in lots)
    if tighter:
        return Effect.MIXED if looser else Effect.TIGHTENED
    return Effect.LOOSENED if looser else Effect.SAME


def remarks(policy: Policy, *, archive: bool) -> list[str]:
    """What a person may not have meant: rules that never decide, jobs that no rule fits, a step into an archive there is not."""
    search, said = Search(), []
    for index, rule in enumerate(policy.rules):
        with contextlib.suppress(UnsureError):
            if search.jobs([rule.match], [one.match for one in policy.rules[:index]]) is None:
                said.append(f"Rule {rule.name} decides about no job: the rules before it fit all of its jobs.")
    with contextlib.suppress(UnsureError):
        left = search.jobs([], [one.match for one in policy.rules])
        if left is not None:
            one = left.example()
            said.append(f"Jobs that no rule fits are kept for ever, like a {one.type} job that is {one.state}.")
    waiting = [rule.name for rule in policy.rules if rule.stay(Tier.ARCHIVE) is not None]
    if waiting and not archive:
        said.append(f"There is no archive here: jobs of {', '.join(waiting)} wait in the tier before it.")
    return said


# Fields.


def _rule_changes(old: list[dict[str, Any]], new: list[dict[str, Any]], lots: Sequence[Lot]) -> Iterator[RuleChange]:
    were, are = {rule["name"]: rule for rule in old}, {rule["name"]: rule for rule in new}
    stayed = [name for name in were if name in are]
    order = [name for name in are if name in were]
    for place, (name, rule) in enumerate(are.items(), start=1):
        about = [lot for lot in lots if lot.after == name or (lot.before == name and name in are)]
        if name not in were:
            fields = tuple(_field_changes({}, rule))
            yield RuleChange(rule=name, change="added", fields=fields, effect=_effect(about), place=place)
            continue
        fields = tuple(_field_changes(were[name], rule))
        if fields or stayed.index(name) != order.index(name):
            kind = "changed" if fields else "moved"
            yield RuleChange(rule=name, change=kind, fields=fields, effect=_effect(about), place=place)
    for place, (name, rule) in enumerate(were.items(), start=1):
        if name not in are:
            effect = _effect([lot for lot in lots if lot.before == name])
            yield RuleChange(rule=name, change="removed", fields=tuple(_field_changes(rule, {})), effect=effect, place=place)


def _field_changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[FieldChange]:
    was, is_now = _flat(old), _flat(new)
    for name in dict.fromkeys((*was, *is_now)):
        if name != "name" and was.get(name) != is_now.get(name):
            yield FieldChange(field=name, before=was.get(name), after=is_now.get(name))


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": one for inner, one in _flat(value).items()}
        else:
            found[name] = value
    return found


# For people.


def diff_to_json(diff: PolicyDiff) -> dict[str, Any]:
    """A change as the API shows it."""
    rules = [{**asdict(one), "fields": [asdict(field) for field in one.fields]} for one in diff.rules]
    return {
        "effect": str(diff.effect),
        "tightens": diff.tightens,
        "words": words(diff),
        "rules": rules,
        "bookkeeping": [asdict(one) for one in diff.bookkeeping],
        "jobs": [
            {
                "before": lot.before,
                "after": lot.after,
                "tightens": list(lot.tightens),
                "loosens": list(lot.loosens),
                "example": _example(lot.example),
            }
            for lot in diff.lots
        ],
    }


def _example(example: Example | None) -> dict[str, Any] | None:
    if example is None:
        return None
    return {**asdict(example), "importance": Importance(example.importance).word, "clusters": list(example.clusters)}


def words(diff: PolicyDiff) -> list[str]:
    """A change in sentences, one per rule and lot."""
    said = [_sentence(one) for one in diff.rules]
    said += [f"Own records: {_fields([one])}." for one in diff.bookkeeping]
    return said + [_about(lot) for lot in diff.lots] or ["Nothing changes."]


def _sentence(change: RuleChange) -> str:
    if change.change == "added":
        return f"Rule {change.rule} is new, at place {change.place}: {_fields(change.fields)}."
    if change.change == "removed":
        return f"Rule {change.rule} is gone."
    if change.change == "moved":
        return f"Rule {change.rule} moves to place {change.place}."
    return f"Rule {change.rule}: {_fields(change.fields)}."


def _fields(fields: Sequence[FieldChange]) -> str:
    return ", ".join(
        f"{one.field} {_word(one.after)}" if one.before is None else f"{one.field} {_word(one.before)} → {_word(one.after)}"
        for one in fields
    )


def _word(value: Any) -> str:  # noqa: ANN401  (JSON)
    if isinstance(value, list):
        return "/".join(str(one) for one in value)
    return "none" if value is None else str(value)


def _about(lot: Lot) -> str:
    before, after = (f"rule {name}" if name else "no rule" for name in (lot.before, lot.after))
    whose = f"Jobs of {before}" if before == after else f"Jobs of {before}, now of {after}"
    tighter = "; ".join(lot.tightens)
    looser = "; ".join(_reverse(one) for one in lot.loosens)
    said = [f"tightened: {tighter}" if tighter else "", f"loosened: {looser}" if looser else ""]
    return f"{whose}: {', '.join(one for one in said if one)}."


def _reverse(loss: str) -> str:
    """The gain that is the opposite of a loss."""
    if loss.startswith("they wait"):
        return f"they wait for the sink {loss.rsplit(' ', 1)[1]}"
    return {
        "forgotten sooner": "forgotten later",
        "what it archived is forgotten sooner": "what it archived is forgotten later",
        "can be restored for a shorter time": "can be restored for a longer time",
    }.get(loss, "more of the last successes are kept")
