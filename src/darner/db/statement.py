"""Statements that are run very often: built by the query builder once per dialect, then sent to the driver as text.

What a transaction of few rows costs is the building of its statements. The same expressions say what is asked, so a predicate is
still written in one place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, BindParameter, ClauseElement, Connection, CursorResult, bindparam
from sqlalchemy.types import TypeEngine

from darner.db.among import PLACE, Keys


def given(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]] = BigInteger) -> BindParameter[Any]:
    """A parameter of a `Statement`, which must be given a value each time."""
    return bindparam(name, type_=kind, required=False)


class _Compiled(NamedTuple):
    text: str
    # The names of parameters in the driver's order; None: the driver takes them by name.
    order: tuple[str, ...] | None
    constants: dict[str, Any]


class Statement:
    """One statement with named parameters (`given`), and maybe keys (`among_keys`)."""

    __slots__ = ("_compiled", "_make")

    def __init__(self, make: Callable[[str], ClauseElement]) -> None:
        """`make` builds it for a dialect (`sqlite`, `mysql`, `mariadb`, `postgresql`); called once for each."""
        self._make = make
        self._compiled: dict[tuple[str, str], _Compiled] = {}

    def run(self, conn: Connection, keys: Keys | None = None, /, **values: Any) -> CursorResult[*tuple[Any, ...]]:  # noqa: ANN401  (values of columns)
        """Run it. Rows have the names of the columns that were asked for, and the driver's types."""
        dialect = conn.dialect
        compiled = self._compiled.get((dialect.name, dialect.driver))
        if compiled is None:
            compiled = self._compiled[dialect.name, dialect.driver] = self._compile(conn)
        text, given = compiled.text, {**compiled.constants, **values}
        if keys is not None:
            if PLACE in text:
                text = text.replace(PLACE, keys.text or "NULL")
            else:
                given["keys"] = keys.value(dialect.name)
        if compiled.order is None:
            return conn.exec_driver_sql(text, given)
        return conn.exec_driver_sql(text, tuple([given[name] for name in compiled.order]))

    def _compile(self, conn: Connection) -> _Compiled:
        made = self._make(conn.dialect.name).compile(dialect=conn.dialect, compile_kwargs={"render_postcompile": True})
        positions = getattr(made, "positiontup", None)
        constants = {name: value for name, value in made.params.items() if value is not None}
        return _Compiled(made.string, None if positions is None else tuple(positions), constants)
