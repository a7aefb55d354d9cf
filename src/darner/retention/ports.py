"""What other parts plug into the sweeper. `app` wires them; without them the sweeper sorts, hides and removes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from darner.retention.policy import Policy
from darner.retention.sweep.work import Work

# Puts jobs into the outbox of a sink: (transaction, ids of jobs, sink, now in unix ms).
Enqueue = Callable[[Connection, Sequence[int], str, int], object]
# The redacted requests (`args`) of warm jobs by id; those that cannot be read are left away.
ReadArgs = Callable[[Connection, Sequence[int]], Mapping[int, Mapping[str, Any]]]
# Brings an archived job back into the database as a warm one; False if the archive does not have it.
RestoreArchived = Callable[[int], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionParts:
    """`works`: makers of works, called for each sweep; lossless ones (`removes` false) are done before removing ones.

    `batch_cap`: the most rows that one transaction of this database may change, where there is such a limit (Galera).
    `write_latency_s`: how long writes of others take at present, if somebody measures that.
    `known_sinks`: the names that rules may export to; None: any.
    `adjust`: the policy as it is to be carried out now, where room is short.
    """

    works: Sequence[Callable[[], Work]] = ()
    enqueue: Enqueue | None = None
    known_sinks: frozenset[str] | None = None
    read_args: ReadArgs | None = None
    restore_archived: RestoreArchived | None = None
    batch_cap: Callable[[Connection], int | None] | None = None
    write_latency_s: Callable[[], float | None] | None = None
    adjust: Callable[[Policy], Policy] | None = None
