"""The last successes that a rule keeps (`keep_last`): which jobs belong together, and which of them are the newest.

`job_group` has a row for each successful job of such a rule. The newest of a group are in the class `kept:<rule>`, from which
nothing is removed; when a newer one ends, the oldest of them is sorted anew. Whoever removes asks again (`newest`), because a
person may have removed a newer one meanwhile.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import Connection, Integer, func, insert, select, update

from darner.core.errors import InvalidInputError
from darner.core.job import DetailState, Tier
from darner.db import Keys, Statement, among_keys, delete_among, given
from darner.db.tables.jobs import job, job_group, job_payload
from darner.registry.reference import parse_image_url
from darner.retention.policy import Group, Rule
from darner.retention.rules import KEPT_PREFIX, UNCLASSIFIED
from darner.retention.sql.due import job_class
from darner.retention.sql.facts import JobRow

_ARGS = Statement(lambda dialect: select(job_payload.c.job_id, job_payload.c.args).where(among_keys(dialect, job_payload.c.job_id)))
_GROUPS = Statement(
    lambda dialect: select(job_group.c.job_id, job_group.c.group_key).where(among_keys(dialect, job_group.c.job_id))
)
# `coalesce`, or SQLite walks the whole class.
_MOVE = Statement(
    lambda dialect: (
        update(job)
        .where(among_keys(dialect, job.c.id), func.coalesce(job_class, 0) == given("before", Integer))
        .values({job_class: given("after", Integer)})
    )
)
# The same as `newest_statement` and `older_statement`, planned once for all groups and not once for each.
_NEWEST_EACH = """
SELECT k.key, t.finished_at, t.job_id FROM unnest(%(keys)s::bigint[]) AS k(key) CROSS JOIN LATERAL (
  SELECT g.finished_at, g.job_id FROM job_group g JOIN job j ON j.id = g.job_id
  WHERE g.group_key = k.key AND j.tier <> 3 ORDER BY g.finished_at DESC, g.job_id DESC LIMIT %(count)s) AS t
"""
_OLDER_EACH = """
SELECT t.job_id FROM unnest(%(keys)s::bigint[], %(ended)s::bigint[], %(ids)s::bigint[], %(limits)s::bigint[])
  AS k(key, ended, id, most) CROSS JOIN LATERAL (
  SELECT g.job_id FROM job_group g WHERE g.group_key = k.key AND g.finished_at <= k.ended
  AND (g.finished_at < k.ended OR g.job_id < k.id) ORDER BY g.finished_at DESC, g.job_id DESC LIMIT k.most) AS t
"""
ReadArgs = Callable[[Connection, Sequence[int]], Mapping[int, Mapping[str, Any]]]
# Jobs that were hidden, or held back by a broken sweep, stand between.
_SLACK = 50
# SQLite takes at most 500 parts of a union.
_GROUPS_AT_ONCE = 100
_IDS_AT_ONCE = 1_000


def group_text(per: Group, args: Mapping[str, Any]) -> str:
    """What a job is counted by: its exact URLs, or the repository of its image."""
    one = str(args.get("url") or "")
    many = args.get("urls")
    urls = sorted({*(str(url) for url in many if url), *([one] if one else [])}) if isinstance(many, list) else [one]
    if per == Group.IMAGE:
        return _repository(urls[0] if urls else "")
    return "\n".join(urls)


def _repository(url: str) -> str:
    # Most preheats are of layers: those are no manifests, and parsing them only to refuse them takes longer than all the rest.
    is_web, is_plain = url.lower().startswith(("http://", "https://")), url.isprintable()
    return url if is_web and is_plain and "manifests" not in url else _parsed(url)


@lru_cache(maxsize=4096)
def _parsed(url: str) -> str:
    try:
        found = parse_image_url(url)
    except InvalidInputError:
        return url
    return f"{found.host}/{found.repository}"


def group_key(rule: Rule, job_type: str, text: str) -> int:
    """A signed number of 64 bits. Jobs of different rules or types never count together."""
    per = rule.keep_last.per if rule.keep_last else ""
    digest = hashlib.blake2s("\0".join((rule.name, str(per), job_type, text)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def regroup(
    conn: Connection, rows: Iterable[tuple[JobRow, Rule | None]], ids: Mapping[str, int], read_args: ReadArgs | None
) -> dict[int, str]:
    """Put jobs with their rules into their groups; by id the class of those that are among the newest.

    Jobs that are not any more go back to be sorted anew. A job whose request cannot be read is kept: it may be the newest.
    """
    found = list(rows)
    grouped = {row.id: (row, rule) for row, rule in found if rule is not None and _counts(row, rule)}
    before = _groups_of(conn, [row.id for row, _ in found])
    wanted = _wanted(conn, grouped, read_args)
    _write(conn, before, wanted)
    kept = {key: f"{KEPT_PREFIX}{rule.name}" for key, (_, rule) in grouped.items() if key not in wanted}
    joined: dict[str, Counter[int]] = {}
    rules = {rule.name: rule for _, rule in grouped.values()}
    for job_id, (key, _) in wanted.items():
        joined.setdefault(grouped[job_id][1].name, Counter())[key] += 1
    left = set(before.values()) - {key for key, _ in wanted.values()}
    _reopen(conn, left, ids, [rule for _, rule in found if rule is not None])
    for name, counts in joined.items():
        kept |= dict.fromkeys(_settle(conn, counts, rules[name], ids), f"{KEPT_PREFIX}{name}")
    return kept


def newest(conn: Connection, ids: Sequence[int], count: int) -> set[int]:
    """Those of the jobs that are among the newest `count` of their group. Hidden jobs do not count."""
    tops = newest_of(conn, set(_groups_of(conn, ids).values()), count)
    return {job_id for top in tops.values() for _, job_id in top} & set(ids)


def _counts(row: JobRow, rule: Rule) -> bool:
    return rule.keep_last is not None and row.state == DetailState.SUCCEEDED and row.tier != Tier.DELETED


def _wanted(conn: Connection, grouped: Mapping[int, tuple[JobRow, Rule]], read_args: ReadArgs | None) -> dict[int, tuple[int, int]]:
    """Group and end of the jobs whose request can be read."""
    args = _args(conn, list(grouped), read_args)
    found = {}
    for job_id, asked in args.items():
        row, rule = grouped[job_id]
        per = rule.keep_last.per if rule.keep_last else Group.URL
        found[job_id] = (group_key(rule, row.type, group_text(per, asked)), row.finished_at or 0)
    return found


def _args(conn: Connection, ids: Sequence[int], read_args: ReadArgs | None) -> dict[int, Mapping[str, Any]]:
    if not ids:
        return {}
    found: dict[int, Mapping[str, Any]] = {int(key): orjson.loads(text) for key, text in _ARGS.run(conn, Keys(ids)).all()}
    folded = [key for key in ids if key not in found]
    return found | dict(read_args(conn, folded)) if folded and read_args is not None else found


def _groups_of(conn: Connection, ids: Sequence[int]) -> dict[int, int]:
    if not ids:
        return {}
    return {int(job_id): int(key) for job_id, key in _GROUPS.run(conn, Keys(ids)).all()}


def _write(conn: Connection, before: Mapping[int, int], wanted: Mapping[int, tuple[int, int]]) -> None:
    stale = [job_id for job_id, key in before.items() if job_id not in wanted or wanted[job_id][0] != key]
    if stale:
        delete_among(conn, job_group, job_group.c.job_id, stale)
    fresh = [
        {"job_id": job_id, "group_key": key, "finished_at": ended}
        for job_id, (key, ended) in wanted.items()
        if before.get(job_id) != key
    ]
    if fresh:
        conn.execute(insert(job_group), fresh)


def _settle(conn: Connection, joined: Mapping[int, int], rule: Rule, ids: Mapping[str, int]) -> list[int]:
    """The newest of groups; those that were kept and are not among them are sorted anew, those that should be are kept.

    `joined`: how many jobs came into each group just now; at most so many of those before can have fallen out.
    """
    count = rule.keep_last.count if rule.keep_last else 0
    kept, plain = ids[f"{KEPT_PREFIX}{rule.name}"], ids[rule.name]
    tops = newest_of(conn, joined, count)
    full = {key: (*top[-1], joined[key] + _SLACK) for key, top in tops.items() if len(top) == count}
    _move(conn, older_than(conn, full), kept, UNCLASSIFIED)
    keeping = [job_id for top in tops.values() for _, job_id in top]
    _move(conn, keeping, plain, kept)
    return keeping


def _reopen(conn: Connection, keys: Collection[int], ids: Mapping[str, int], rules: Sequence[Rule]) -> None:
    """Jobs left these groups: others may be among the newest now, so those are sorted anew."""
    counts = {ids[rule.name]: rule.keep_last.count for rule in rules if rule.keep_last is not None}
    tops = newest_of(conn, keys, max(counts.values())) if keys and counts else {}
    for plain in counts:
        _move(conn, [job_id for top in tops.values() for _, job_id in top], plain, UNCLASSIFIED)


def _move(conn: Connection, keys: Sequence[int], before: int, after: int) -> None:
    """From one class to another, those that are in the one."""
    for start in range(0, len(keys), _IDS_AT_ONCE):
        _MOVE.run(conn, Keys(keys[start : start + _IDS_AT_ONCE]), before=before, after=after)


def newest_of(conn: Connection, keys: Collection[int], count: int) -> dict[int, list[tuple[int, int]]]:
    """By group the (end, id) of its newest jobs that are not hidden, newest first; many groups in one statement."""
    found: dict[int, list[tuple[int, int]]] = {}
    for some in _chunks(conn, sorted(keys)):
        for key, ended, job_id in _newest(conn, some, count):
            found.setdefault(int(key), []).append((int(ended), int(job_id)))
    return {key: sorted(top, reverse=True) for key, top in found.items()}


def older_than(conn: Connection, lasts: Mapping[int, tuple[int, int, int]]) -> list[int]:
    """The jobs that come in age after a job of their group; by group its end and id, and how many are wanted."""
    found: list[int] = []
    for some in _chunks(conn, sorted(lasts)):
        found += [int(row[0]) for row in _older(conn, {key: lasts[key] for key in some})]
    return found


def _newest(conn: Connection, keys: Sequence[int], count: int) -> Sequence[Any]:
    if conn.dialect.name == "postgresql":
        return conn.exec_driver_sql(_NEWEST_EACH, {"keys": list(keys), "count": count}).all()
    return conn.exec_driver_sql(newest_statement(keys, count)).all()


def _older(conn: Connection, lasts: Mapping[int, tuple[int, int, int]]) -> Sequence[Any]:
    if conn.dialect.name == "postgresql":
        ended, ids, limits = (list(one) for one in zip(*lasts.values(), strict=True))
        return conn.exec_driver_sql(_OLDER_EACH, {"keys": list(lasts), "ended": ended, "ids": ids, "limits": limits}).all()
    return conn.exec_driver_sql(older_statement(lasts)).all()


def newest_statement(keys: Sequence[int], count: int) -> str:
    """Numbers only, so it is written as text: building it from expressions would take longer than running it."""
    members = "FROM job_group g JOIN job j ON j.id = g.job_id WHERE g.group_key = {key:d} AND j.tier <> 3"
    order = f"ORDER BY g.finished_at DESC, g.job_id DESC LIMIT {count:d}"
    return _union(f"g.group_key, g.finished_at, g.job_id {members.format(key=key)} {order}" for key in keys)


def older_statement(lasts: Mapping[int, tuple[int, int, int]]) -> str:
    """See `newest_statement`."""
    return _union(
        f"g.job_id FROM job_group g WHERE g.group_key = {key:d} AND g.finished_at <= {ended:d}"
        f" AND (g.finished_at < {ended:d} OR g.job_id < {job_id:d}) ORDER BY g.finished_at DESC, g.job_id DESC LIMIT {limit:d}"
        for key, (ended, job_id, limit) in lasts.items()
    )


def _union(parts: Iterable[str]) -> str:
    return " UNION ALL ".join(f"SELECT * FROM (SELECT {part}) AS t{n}" for n, part in enumerate(parts))  # noqa: S608  (numbers)


def _chunks(conn: Connection, keys: Sequence[int]) -> Iterator[Sequence[int]]:
    size = _IDS_AT_ONCE if conn.dialect.name == "postgresql" else _GROUPS_AT_ONCE
    return (keys[start : start + size] for start in range(0, len(keys), size))
