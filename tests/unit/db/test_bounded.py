"""The bounded statements as SQL, per dialect: nobody may drop the bound."""

from typing import Any

import pytest
from sqlalchemy.dialects import mysql, postgresql, sqlite

from darner.db.bounded import delete_statement, update_statement
from darner.db.tables.fleet import fleet_cluster
from darner.db.tables.jobs import job_cluster

MODULES: dict[str, Any] = {"sqlite": sqlite, "mysql": mysql, "postgresql": postgresql}
DIALECTS = {name: module.dialect() for name, module in MODULES.items()}
WHERE = fleet_cluster.c.bio == "x"
ORDER = [fleet_cluster.c.created_at]


def compiled(name: str, statement: Any) -> str:
    return " ".join(str(statement.compile(dialect=DIALECTS[name], compile_kwargs={"literal_binds": True})).split())


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            "sqlite",
            (
                "DELETE FROM fleet_cluster WHERE fleet_cluster.id IN (SELECT fleet_cluster.id FROM fleet_cluster"
                " WHERE fleet_cluster.bio = 'x' ORDER BY fleet_cluster.created_at LIMIT 5 OFFSET 0)"
            ),
        ),
        (
            "mysql",
            (
                "DELETE FROM fleet_cluster WHERE fleet_cluster.id IN (SELECT bounded.id FROM (SELECT fleet_cluster.id AS id"
                " FROM fleet_cluster WHERE fleet_cluster.bio = 'x' ORDER BY fleet_cluster.created_at LIMIT 5) AS bounded)"
            ),
        ),
        (
            "postgresql",
            (
                "DELETE FROM fleet_cluster WHERE fleet_cluster.id = ANY (array((SELECT fleet_cluster.id FROM fleet_cluster"
                " WHERE fleet_cluster.bio = 'x' ORDER BY fleet_cluster.created_at LIMIT 5 FOR UPDATE SKIP LOCKED)))"
            ),
        ),
    ],
)
def test_a_delete_keeps_its_bound_on_every_dialect(dialect: str, expected: str) -> None:
    sql = compiled(dialect, delete_statement(dialect, fleet_cluster, WHERE, limit=5, order_by=ORDER))
    assert sql.replace("LIMIT 5 OFFSET 0", "LIMIT 5") == expected.replace("LIMIT 5 OFFSET 0", "LIMIT 5")


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_an_update_keeps_its_bound_on_every_dialect(dialect: str) -> None:
    sql = compiled(dialect, update_statement(dialect, fleet_cluster, WHERE, {"bio": "y"}, limit=5, order_by=ORDER))
    assert "LIMIT 5" in sql
    assert "ORDER BY fleet_cluster.created_at" in sql


def test_a_change_without_a_bound_or_a_single_key_is_refused() -> None:
    with pytest.raises(ValueError, match="bound"):
        delete_statement("sqlite", fleet_cluster, WHERE, limit=0, order_by=ORDER)
    with pytest.raises(ValueError, match="key columns"):
        delete_statement("sqlite", job_cluster, job_cluster.c.job_id == 1, limit=1, order_by=[job_cluster.c.job_id])
