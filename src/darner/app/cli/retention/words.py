"""How retention is written for people: rules, actions, counts, times. Plain functions of the manager's JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from darner.app.cli.output import ago, moment, say
from darner.app.cli.run import UsageProblem
from darner.kit.units import format_size, parse_duration

Json = Mapping[str, Any]
TIERS = ("hot", "warm", "archive")
# What a sweep does to jobs, as people say it of what it will do and of what it did.
WILL = {"fold": "compress", "archive": "archive", "hide": "delete", "delete": "delete for good", "expire": "drop from archive"}
DID = {
    "fold": "compressed",
    "archive": "archived",
    "hide": "deleted",
    "delete": "deleted for good",
    "expire": "dropped from archive",
}
_WHERE = {
    "types": "type",
    "states": "state",
    "clusters": "cluster",
    "owners": "owner",
    "tags": "tag",
    "applications": "application",
    "importance": "importance",
}


def counted(count: int, noun: str = "job") -> str:
    """`1 job`, `1,204 jobs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def sized(size: float | None) -> str:
    """`4.2 MiB`, or `-` for nothing known."""
    return "-" if size is None else format_size(size)


def when(value: object, now: float) -> str:
    """Relative and exact: `in 5h59m (2026-01-01 00:00:00Z)`."""
    return f"{ago(value, now)} ({moment(value)})" if isinstance(value, str) and value else "-"


def point(text: str, now: str, *, sign: int, option: str) -> str:
    """RFC 3339 of a time, or of `30d` before (`sign` -1) or after (1) the moment `now`. Raises UsageProblem."""
    try:
        at = datetime.fromisoformat(now) + sign * timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise UsageProblem(f"{option} {text}: expected a duration like 30d, or a time like 2027-01-31T00:00:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def matched(match: Json) -> str:
    """Which jobs a rule or a hold is for: `type gc/sync_peers, label team=ml`."""
    said = [f"{word} {'/'.join(map(str, match[name]))}" for name, word in _WHERE.items() if match.get(name)]
    said += [f"label {key}={'/'.join(values)}" for key, values in (match.get("labels") or {}).items()]
    return ", ".join(said) or "all jobs"


def ends(rule: Json) -> str:
    """The age at which a rule removes, as typed: `7d`, or `for ever`."""
    last = next((rule[tier] for tier in reversed(TIERS) if rule.get(tier)), "keep")
    return "for ever" if last == "keep" else str(last)


def kept(policy: Json) -> str:
    """All rules in a few words: `success 7d, rest 30d`."""
    return ", ".join(f"{rule['name']} {ends(rule)}" for rule in policy["rules"])


def rule_table(rules: Sequence[Json]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows; columns that no rule uses are left away."""
    columns: list[tuple[str, list[str], bool]] = [
        ("RULE", [str(rule["name"]) for rule in rules], True),
        ("HOT UNTIL", [_until(rule.get("hot")) for rule in rules], True),
        ("WARM UNTIL", [_until(rule.get("warm")) for rule in rules], False),
        ("ARCHIVED UNTIL", [_until(rule.get("archive")) for rule in rules], False),
        ("UNDO", [_until(rule.get("undo")) for rule in rules], False),
        ("COUNTED FROM", ["its end" if rule.get("basis") != "created" else "its creation" for rule in rules], True),
        ("KEEPS LAST", [_last(rule.get("keep_last")) for rule in rules], False),
        ("EXPORTED TO", [str(rule.get("export") or "-") for rule in rules], False),
        ("JOBS", [matched(rule.get("match") or {}) for rule in rules], True),
    ]
    shown = [(heading, cells) for heading, cells, always in columns if always or any(cell != "-" for cell in cells)]
    return [heading for heading, _ in shown], [list(row) for row in zip(*(cells for _, cells in shown), strict=True)]


def _until(value: object) -> str:
    return "-" if not value else "for ever" if value == "keep" else str(value)


def _last(value: object) -> str:
    if not isinstance(value, Mapping):
        return "-"
    return f"{value['count']} per {value['per']}"


def bulleted(sentences: Sequence[str], heading: str = "") -> None:
    """A list of sentences, if there are any."""
    if sentences and heading:
        say(heading)
    for one in sentences:
        say(f"  - {one}")
