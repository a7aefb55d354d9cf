"""What people ask about the policy and change in it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from darner.core.errors import NotFoundError
from darner.db import Database
from darner.kit.log import get_logger
from darner.retention import records
from darner.retention.parse import policy_from_json
from darner.retention.sql.fence import hold_sweeps
from darner.retention.sweep.begin import NO_POLICY
from darner.retention.values import PolicyVersion

_log = get_logger("retention")
_HISTORY = 100
_REASON_LIMIT = 1024


class PolicyDesk:
    """The part of the engine that knows versions of the policy."""

    _db: Database

    async def policy(self) -> PolicyVersion:
        """The policy in force; NotFoundError if there is none."""
        found = await self._db.read(records.policy_in_force)
        if found is None:
            raise NotFoundError(NO_POLICY)
        return found

    async def history(self) -> list[PolicyVersion]:
        """All versions of the policy, newest first."""
        return await self._db.read(lambda conn: records.policy_history(conn, _HISTORY))

    async def set_policy(self, data: Mapping[str, Any], *, by: str, reason: str = "") -> PolicyVersion:
        """A new version, in force at the next sweep. InvalidInputError names the field that is wrong; nothing is stored then."""
        policy = policy_from_json(data)
        cut = reason[:_REASON_LIMIT]

        def add(conn: Connection) -> PolicyVersion:
            hold_sweeps(conn)
            return records.add_policy(conn, policy, origin="user", by=by, reason=cut)

        made = await self._db.write(add)
        _log.info("retention policy changed", version=made.version, by=by, reason=cut)
        return made
