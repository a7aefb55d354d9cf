"""Matches and first-match order as SQL, for jobs that are not sorted by the policy in question: `rules.fits` once more."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, case, collate, exists, false, func, literal_column, not_, or_, select, true

from darner.core.job import Importance
from darner.db.tables.jobs import job, job_cluster
from darner.retention.policy import Match, Rule
from darner.retention.rules import KEPT_PREFIX, Order
from darner.retention.sql.due import job_class

T = TypeVar("T")


def match_where(match: Match, dialect: str) -> ColumnElement[bool]:
    """Whether a match fits a job."""
    terms: list[ColumnElement[bool]] = []
    columns = (job.c.type, job.c.state, job.c.owner, job.c.tag, job.c.application)
    named = (match.types, match.states, match.owners, match.tags, match.applications)
    terms += [column.in_(words) for column, words in zip(columns, named, strict=True) if words]
    if match.importance:
        terms.append(job.c.importance.in_([int(one) for one in Importance if one.word in match.importance]))
    if match.clusters:
        named_one = (job_cluster.c.job_id == job.c.id, job_cluster.c.cluster_id.in_(match.clusters))
        terms.append(exists(select(job_cluster.c.job_id).where(*named_one)))
    labels: dict[str, list[str]] = {}
    for key, value in match.labels:
        labels.setdefault(key, []).append(value)
    terms += [_has_label(key, values, dialect) for key, values in labels.items()]
    return and_(*terms) if terms else true()


def _has_label(key: str, values: list[str], dialect: str) -> ColumnElement[bool]:
    document = case((job.c.labels == "", "{}"), else_=job.c.labels)
    if dialect in {"mysql", "mariadb"}:
        found = func.json_unquote(func.json_extract(document, f"$.{json.dumps(key, ensure_ascii=False)}"))
        return func.coalesce(collate(found, "utf8mb4_bin").in_(values), false())
    if dialect == "postgresql":
        pairs = func.json_each_text(document.op("::")(literal_column("json"))).table_valued("key", "value", name="pairs")
    else:
        pairs = func.json_each(document).table_valued("key", "value", name="pairs")
    return exists(select(literal_column("1")).select_from(pairs).where(pairs.c.key == key, pairs.c.value.in_(values)))


class Membership:
    """Which rule of an order decides about a job, as SQL. `classes`: the numbers of the order's classes, as far as it has any.

    A job that is sorted already tells so by its class; of others the matches are asked in their order.
    """

    def __init__(self, order: Order, classes: Mapping[str, int], dialect: str) -> None:
        """For one statement in that dialect."""
        self._order = order
        self._classes = {name: number for name, number in classes.items() if name}
        self._dialect = dialect

    def choose(
        self,
        of_rule: Callable[[int, Rule], ColumnElement[T]],
        *,
        last: Callable[[int, Rule], ColumnElement[T]],
        kept: ColumnElement[T],
    ) -> ColumnElement[T]:
        """The value of the rule that decides; `last` of those that it keeps as the last of a group, `kept` if none does."""
        rules = list(enumerate(self._order.policy.rules))
        values = {rule.name: of_rule(index, rule) for index, rule in rules}
        named = {
            **values,
            **{f"{KEPT_PREFIX}{rule.name}": last(index, rule) for index, rule in rules if rule.keep_last is not None},
        }
        branches: list[Any] = [(job_class == number, named.get(name, kept)) for name, number in self._classes.items()]
        branches += [(match_where(one.match, self._dialect), kept) for one in self._order.selectors]
        branches += [(match_where(rule.match, self._dialect), values[rule.name]) for _, rule in rules]
        return case(*branches, else_=kept) if branches else kept

    def of(self, rule: Rule, *, last: bool) -> ColumnElement[bool]:
        """Whether this rule decides; `last`: also about those that it keeps as the last of a group."""
        names = (rule.name, f"{KEPT_PREFIX}{rule.name}") if last else (rule.name,)
        numbers = [self._classes[name] for name in names if name in self._classes]
        earlier = []
        for one in self._order.policy.rules:
            if one.name == rule.name:
                break
            earlier.append(one.match)
        kept_away = [match_where(one, self._dialect) for one in (*(held.match for held in self._order.selectors), *earlier)]
        fits = and_(match_where(rule.match, self._dialect), not_(or_(false(), *kept_away)))
        if not self._classes:
            return fits
        unsorted = job_class.not_in(list(self._classes.values()))
        return or_(job_class.in_(numbers), and_(unsorted, fits)) if numbers else and_(unsorted, fits)
