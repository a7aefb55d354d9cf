"""What a policy would do, shown before it does it; and the token that binds what a person was shown to what happens then.

In: a policy that may come into force. Out: rows and bytes per rule and action, samples, and the difference to the policy in force.
Reads only, but for the row of the token.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from darner.core.errors import ConflictError
from darner.core.job import Tier
from darner.db import bounded_delete, db_now_ms
from darner.db.tables.archive import archive_segment
from darner.db.tables.retention import retention_preview
from darner.retention.diff import diff_policies, diff_to_json
from darner.retention.parse import policy_to_json
from darner.retention.policy import HOUR_MS, Policy
from darner.retention.rules import Move, Order
from darner.retention.sql.classes import class_ids
from darner.retention.sql.preview import Heap, Sight, by_move, heaps, removed, sample_ids
from darner.retention.sql.step import action_of
from darner.retention.sql.weigh import bytes_per_job

TOKEN_TTL_MS = HOUR_MS
_PRUNED_AT_ONCE = 100
_SAMPLED_MOVES = 64
# Counts that grew by no more than this since the preview are those of a history that goes on.
_SLACK_ROWS, _SLACK_SHARE = 100, 0.10
_LIVE = ("SEALED", "LIVE")
ESTIMATED = "estimated from the average of a few jobs of each type and tier"
NOT_SORTED = "The last successes that a rule keeps are found when jobs are sorted; here they are counted as if not kept."


def preview(conn: Connection, wanted: Order, in_force: Order | None, now_ms: int) -> dict[str, Any]:
    """What the next sweep would do under `wanted`, and how that differs from `in_force` (None: nothing is removed as things are).

    Times in unix ms. One pass over the jobs; a million take a few seconds, in which nobody is locked.
    """
    present = in_force or Order(policy=Policy(rules=()), selectors=wanted.selectors)
    sight, other = _sight(conn, wanted), _sight(conn, present)
    found = heaps(conn, sight, other, now_ms)
    weights = _weights(conn, found)
    shown = [_entry(move, several, weights) for move, several in by_move(found)]
    for entry, (move, several) in list(zip(shown, by_move(found), strict=True))[:_SAMPLED_MOVES]:
        first, last = min(heap.first_id for heap in several), max(heap.last_id for heap in several)
        entry["samples"] = sample_ids(conn, sight, move, first, last, now_ms)
    segments = _segments(conn)
    expiring = _expiring(segments, wanted.policy, now_ms)
    removing = [entry for entry in (*shown, *expiring) if entry["action"] in {"hide", "delete", "expire"}]
    return {
        "now": now_ms,
        "total": _sum(removing),
        "actions": {
            action: _sum([one for one in shown if one["action"] == action]) for action in ("fold", "archive", "hide", "delete")
        },
        "rules": [*shown, *expiring],
        "jobs": sum(heap.rows for heap in found),
        "bytes_are": ESTIMATED,
        "notes": [NOT_SORTED] if _keeps_last(wanted.policy) and not sight.classes else [],
        "diff": _difference(found, segments, wanted.policy, present.policy, now_ms),
    }


def removal_count(conn: Connection, order: Order, now_ms: int) -> int:
    """How many jobs the next sweep would remove under an order."""
    sight = _sight(conn, order)
    expiring = _expiring(_segments(conn), order.policy, now_ms)
    return sum(heap.rows for heap in heaps(conn, sight, sight, now_ms) if removed(heap)) + _sum(expiring)["rows"]


def _sight(conn: Connection, order: Order) -> Sight:
    return Sight(order=order, classes=class_ids(conn, order))


def _keeps_last(policy: Policy) -> bool:
    return any(rule.keep_last is not None for rule in policy.rules)


def _weights(conn: Connection, found: Sequence[Heap]) -> dict[tuple[str, Tier], float]:
    spans: dict[tuple[str, Tier], tuple[int, int]] = {}
    for heap in found:
        first, last = spans.get((heap.type, heap.tier), (heap.first_id, heap.last_id))
        spans[heap.type, heap.tier] = (min(first, heap.first_id), max(last, heap.last_id))
    return {key: bytes_per_job(conn, *key, first, last) for key, (first, last) in spans.items()}


def _entry(move: Move, several: Sequence[Heap], weights: dict[tuple[str, Tier], float]) -> dict[str, Any]:
    return {
        "rule": move.rule.name,
        "action": action_of(move),
        "tier": move.start.word,
        "rows": sum(heap.rows for heap in several),
        "bytes": round(sum(heap.rows * weights[heap.type, heap.tier] for heap in several)),
        "oldest": min(heap.oldest for heap in several),
        "newest": max(heap.newest for heap in several),
        "samples": [],
    }


def _sum(entries: Iterable[dict[str, Any]]) -> dict[str, int]:
    found = list(entries)
    return {"rows": sum(one["rows"] for one in found), "bytes": sum(one["bytes"] for one in found)}


def _difference(found: Sequence[Heap], segments: Sequence[Any], wanted: Policy, present: Policy, now_ms: int) -> dict[str, Any]:
    names = [*dict.fromkeys(rule.name for rule in wanted.rules), ""]
    shifts = {name: {"rows_sooner": 0, "rows_later": 0} for name in names}
    for heap in found:
        if heap.shift:
            shifts[heap.rule]["rows_sooner" if heap.shift < 0 else "rows_later"] += heap.rows
    for segment in segments:
        was, is_now = (_ends_ms(policy, segment.rule) for policy in (present, wanted))
        if segment.rule in shifts and was != is_now:
            shifts[segment.rule]["rows_sooner" if is_now < was else "rows_later"] += segment.row_count
    expiring, expired = (sum(one["rows"] for one in _expiring(segments, policy, now_ms)) for policy in (wanted, present))
    return {
        **diff_to_json(diff_policies(present, wanted)),
        "rows_sooner": sum(one["rows_sooner"] for one in shifts.values()),
        "rows_later": sum(one["rows_later"] for one in shifts.values()),
        "by_rule": [{"rule": name, **one} for name, one in shifts.items() if name or any(one.values())],
        "removed": sum(heap.rows for heap in found if removed(heap)) + expiring,
        "removed_in_force": sum(heap.rows for heap in found if removed(heap, before=True)) + expired,
        "removed_only_now": sum(heap.rows for heap in found if removed(heap) and not removed(heap, before=True))
        + max(0, expiring - expired),
    }


# Archived jobs fall due by segments, each of one rule.


def _segments(conn: Connection) -> Sequence[Any]:
    columns = archive_segment.c
    wanted = (columns.rule, columns.row_count, columns.bytes, columns.max_base_at, columns.id, columns.max_created_at)
    return conn.execute(select(*wanted).where(columns.state.in_(_LIVE)).order_by(columns.id)).all()


def _ends_ms(policy: Policy, name: str) -> float:
    rule = policy.rule(name)
    return rule.ends.ms if rule is not None and rule.ends is not None else float("inf")


def _expiring(segments: Sequence[Any], policy: Policy, now_ms: int) -> list[dict[str, Any]]:
    due: dict[str, list[Any]] = {}
    for segment in segments:
        if segment.max_base_at + _ends_ms(policy, segment.rule) <= now_ms:
            due.setdefault(segment.rule, []).append(segment)
    return [
        {
            "rule": name,
            "action": "expire",
            "tier": Tier.ARCHIVE.word,
            "rows": sum(int(one.row_count) for one in several),
            "bytes": sum(int(one.bytes) for one in several),
            "oldest": None,
            "newest": max(int(one.max_base_at) for one in several),
            "samples": [],
            "segments": [int(one.id) for one in several][:20],
        }
        for name, several in due.items()
    ]


# Tokens.


def policy_digest(policy: Policy) -> str:
    """What a token is bound to."""
    return hashlib.sha256(json.dumps(policy_to_json(policy), sort_keys=True).encode()).hexdigest()


def put_token(conn: Connection, policy: Policy, shown: dict[str, Any], *, by: str, now_ms: int) -> str:
    """A token for what somebody was shown; it is good for an hour."""
    over = retention_preview.c.created_at <= now_ms - TOKEN_TTL_MS
    bounded_delete(conn, retention_preview, over, limit=_PRUNED_AT_ONCE, order_by=[retention_preview.c.created_at])
    token = secrets.token_urlsafe(24)
    body = json.dumps({"removed": shown["diff"]["removed"], "total": shown["total"]})
    values = {"token": token, "policy_digest": policy_digest(policy), "body": body, "created_at": now_ms, "created_by": by}
    conn.execute(insert(retention_preview).values(**values))
    return token


def check_token(conn: Connection, token: str, policy: Policy, now_ms: int | None = None) -> bool:
    """Whether a token is for this very policy, and not older than an hour (by the database's clock where `now_ms` is None)."""
    return _shown(conn, token, policy, now_ms) is not None


def check_run_token(conn: Connection, token: str, order: Order, now_ms: int) -> None:
    """ConflictError when a run must not rely on a token: not of the policy in force, too old, or clearly more would be removed."""
    shown = _shown(conn, token, order.policy, now_ms)
    if shown is None:
        raise ConflictError(UNKNOWN_TOKEN, field="preview_token")
    then, now = int(shown["removed"]), removal_count(conn, order, now_ms)
    if now > then + max(_SLACK_ROWS, then * _SLACK_SHARE):
        said = f"The preview counted {then} jobs to remove, and now it would be {now}. Nothing was removed; look at a new preview."
        raise ConflictError(said, field="preview_token")


UNKNOWN_TOKEN = "The preview's token is not known, older than an hour, or was given for another policy. Ask for a new preview."  # noqa: S105


def _shown(conn: Connection, token: str, policy: Policy, now_ms: int | None) -> dict[str, Any] | None:
    row = conn.execute(select(retention_preview).where(retention_preview.c.token == token)).one_or_none()
    now_ms = db_now_ms(conn) if now_ms is None else now_ms
    if row is None or row.created_at <= now_ms - TOKEN_TTL_MS or row.policy_digest != policy_digest(policy):
        return None
    found: dict[str, Any] = json.loads(row.body)
    return found
