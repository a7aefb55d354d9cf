"""The bounded statements as SQL, per dialect: nobody may drop the bound."""

from typing import Any

import pytest
from sqlalchemy.dialects import mysql, postgresql, sqlite

from darner.db.bounded import delete_statement, keys_statement, update_statement
from darner.db.tables.fleet import fleet_cluster
from darner.db.tables.jobs import job_cluster

MODULES: dict[str, Any] = {"sqlite": sqlite, "mysql": mysql, "postgresql": postgresql}
DIALECTS = {name: module.dialect() for name, module in MODULES.items()}
WHERE = fleet_cluster.c.bio == "x"
ORDER = [fleet_cluster.c.created_at]
BEGIN = "DELETE FROM fleet_cluster WHERE fleet_cluster.id"
KEYS = "SELECT fleet_cluster.id FROM fleet_cluster WHERE fleet_cluster.bio = 'x' ORDER BY fleet_cluster.created_at LIMIT 5"


def compiled(name: str, statement: Any) -> str:
    text = " ".join(str(statement.compile(dialect=DIALECTS[name], compile_kwargs={"literal_binds": True})).split())
    return text.replace("LIMIT 5 OFFSET 0", "LIMIT 5")


def test_a_delete_keeps_its_bound() -> None:
    sql = {
        name: compiled(name, delete_statement(name, fleet_cluster, WHERE, limit=5, order_by=ORDER))
        for name in ("sqlite", "postgresql")
    }
    assert sql["sqlite"] == f"{BEGIN} IN ({KEYS})"
    assert sql["postgresql"] == f"{BEGIN} = ANY (array(({KEYS} FOR UPDATE SKIP LOCKED)))"


def test_an_update_keeps_its_bound() -> None:
    for name in ("sqlite", "postgresql"):
        sql = compiled(name, update_statement(name, fleet_cluster, WHERE, {"bio": "y"}, limit=5, order_by=ORDER))
        assert sql.startswith("UPDATE fleet_cluster SET bio='y' WHERE fleet_cluster.id ")
        assert KEYS in sql


@pytest.mark.parametrize(
    ("dialect", "lock"), [("sqlite", ""), ("mysql", " FOR UPDATE SKIP LOCKED"), ("postgresql", " FOR UPDATE SKIP LOCKED")]
)
def test_keys_are_locked_where_that_can_be_done(dialect: str, lock: str) -> None:
    assert compiled(dialect, keys_statement(fleet_cluster, WHERE, limit=5, order_by=ORDER)) == KEYS + lock


def test_mysql_never_gets_one_statement_for_both() -> None:
    with pytest.raises(ValueError, match="two statements"):
        delete_statement("mysql", fleet_cluster, WHERE, limit=5, order_by=ORDER)


def test_a_change_without_a_bound_or_a_single_key_is_refused() -> None:
    with pytest.raises(ValueError, match="bound"):
        delete_statement("sqlite", fleet_cluster, WHERE, limit=0, order_by=ORDER)
    with pytest.raises(ValueError, match="key columns"):
        delete_statement("sqlite", job_cluster, job_cluster.c.job_id == 1, limit=1, order_by=[job_cluster.c.job_id])
