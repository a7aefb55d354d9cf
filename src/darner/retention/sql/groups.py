"""The last successes that a rule keeps (`keep_last`): which jobs belong together, and which of them are the newest.

`job_group` has a row for each successful job of such a rule. The newest of a group are in the class `kept:<rule>`, from which
nothing is removed; when a newer one ends, the oldest of them is sorted anew. Whoever removes asks again (`newest`), because a
person may have removed a newer one meanwhile.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, insert, or_, select, update

from darner.core.errors import InvalidInputError
from darner.core.job import DetailState, Tier
from darner.db.tables.jobs import job, job_group, job_payload
from darner.registry.reference import parse_image_url
from darner.retention.policy import Group, Rule
from darner.retention.rules import KEPT_PREFIX, UNCLASSIFIED
from darner.retention.sql.due import job_class
from darner.retention.sql.facts import JobRow

ReadArgs = Callable[[Connection, Sequence[int]], Mapping[int, Mapping[str, Any]]]
# Jobs that were hidden, or held back by a broken sweep, stand between.
_SLACK = 50


def group_text(per: Group, args: Mapping[str, Any]) -> str:
    """What a job is counted by: its exact URLs, or the repository of its image."""
    one = str(args.get("url") or "")
    many = args.get("urls")
    urls = sorted({*(str(url) for url in many if url), *([one] if one else [])}) if isinstance(many, list) else [one]
    if per == Group.IMAGE:
        return _repository(urls[0] if urls else "")
    return "\n".join(urls)


def _repository(url: str) -> str:
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
    rule_of = {key: grouped[job_id][1] for job_id, (key, _) in wanted.items()}
    for key in set(before.values()) - set(rule_of):
        _reopen(conn, key, ids, [rule for _, rule in found if rule is not None])
    joined = Counter(key for key, _ in wanted.values())
    for key, rule in rule_of.items():
        kept |= dict.fromkeys(_settle(conn, key, rule, ids, joined=joined[key]), f"{KEPT_PREFIX}{rule.name}")
    return kept


def newest(conn: Connection, ids: Sequence[int], count: int) -> set[int]:
    """Those of the jobs that are among the newest `count` of their group. Hidden jobs do not count."""
    keys = set(_groups_of(conn, ids).values())
    found: set[int] = set()
    for key in keys:
        found |= set(_newest(conn, key, count))
    return found & set(ids)


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
    plain = select(job_payload.c.job_id, job_payload.c.args).where(job_payload.c.job_id.in_(ids))
    found: dict[int, Mapping[str, Any]] = {int(key): json.loads(text) for key, text in conn.execute(plain)}
    folded = [key for key in ids if key not in found]
    return found | dict(read_args(conn, folded)) if folded and read_args is not None else found


def _groups_of(conn: Connection, ids: Sequence[int]) -> dict[int, int]:
    if not ids:
        return {}
    statement = select(job_group.c.job_id, job_group.c.group_key).where(job_group.c.job_id.in_(ids))
    return {int(job_id): int(key) for job_id, key in conn.execute(statement)}


def _write(conn: Connection, before: Mapping[int, int], wanted: Mapping[int, tuple[int, int]]) -> None:
    stale = [job_id for job_id, key in before.items() if job_id not in wanted or wanted[job_id][0] != key]
    if stale:
        conn.execute(delete(job_group).where(job_group.c.job_id.in_(stale)))
    fresh = [
        {"job_id": job_id, "group_key": key, "finished_at": ended}
        for job_id, (key, ended) in wanted.items()
        if before.get(job_id) != key
    ]
    if fresh:
        conn.execute(insert(job_group), fresh)


def _settle(conn: Connection, key: int, rule: Rule, ids: Mapping[str, int], *, joined: int) -> list[int]:
    """The newest of a group; those that were kept and are not among them are sorted anew, those that should be are kept.

    `joined`: how many jobs came into the group just now; at most so many of those before can have fallen out.
    """
    count = rule.keep_last.count if rule.keep_last else 0
    top = _newest(conn, key, count)
    kept, plain = ids[f"{KEPT_PREFIX}{rule.name}"], ids[rule.name]
    if len(top) == count:
        last = conn.execute(select(job_group.c.finished_at).where(job_group.c.job_id == top[-1])).scalar_one()
        beyond_last = list(conn.execute(older_statement(key, last=(last, top[-1]), limit=joined + _SLACK)).scalars())
        if beyond_last:
            fallen = update(job).where(job.c.id.in_(beyond_last), job_class == kept)
            conn.execute(fallen.values({job_class.name: UNCLASSIFIED}))
    if top:
        conn.execute(update(job).where(job.c.id.in_(top), job_class == plain).values({job_class.name: kept}))
    return top


def older_statement(key: int, *, last: tuple[int, int], limit: int) -> Select[Any]:
    """The jobs of a group that come after a job (its end and id) in age, newest first."""
    older = or_(job_group.c.finished_at < last[0], and_(job_group.c.finished_at == last[0], job_group.c.job_id < last[1]))
    here = (job_group.c.group_key == key, job_group.c.finished_at <= last[0], older)
    return _members().where(*here).limit(limit)


def newest_statement(key: int, count: int) -> Select[Any]:
    """The newest of a group that are not hidden."""
    shown = (job_group.c.group_key == key, job.c.tier != int(Tier.DELETED))
    return _members().join(job, job.c.id == job_group.c.job_id).where(*shown).limit(count)


def _members() -> Select[Any]:
    return select(job_group.c.job_id).order_by(job_group.c.finished_at.desc(), job_group.c.job_id.desc())


def _newest(conn: Connection, key: int, count: int) -> list[int]:
    return [int(one) for one in conn.execute(newest_statement(key, count)).scalars()]


def _reopen(conn: Connection, key: int, ids: Mapping[str, int], rules: Sequence[Rule]) -> None:
    """A job left this group: others may be among the newest now, so those are sorted anew."""
    keeping = [rule for rule in rules if rule.keep_last is not None]
    most = max((rule.keep_last.count for rule in keeping if rule.keep_last), default=0)
    top = _newest(conn, key, most) if most else []
    if top:
        plain = {ids[rule.name] for rule in keeping}
        conn.execute(update(job).where(job.c.id.in_(top), job_class.in_(plain)).values({job_class.name: UNCLASSIFIED}))
