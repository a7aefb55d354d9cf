"""What people ask about the policy and change in it: versions, presets, differences, previews, suggestions, imports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError
from darner.db import Database, db_now_ms
from darner.kit.log import get_logger
from darner.retention import presets as preset_policies
from darner.retention import records
from darner.retention.diff import diff_policies, diff_to_json, remarks
from darner.retention.imports import ORIGIN as GRANDFATHERED
from darner.retention.imports import Imported
from darner.retention.parse import policy_from_json, policy_to_json
from darner.retention.policy import MAX_ID, Policy, check_policy
from darner.retention.ports import RetentionParts
from darner.retention.presets import Preset
from darner.retention.preview import TOKEN_TTL_MS, UNKNOWN_TOKEN, check_run_token, check_token, preview, put_token
from darner.retention.rules import Order
from darner.retention.sql.fence import hold_sweeps
from darner.retention.sql.holds import selectors
from darner.retention.suggestions import suggestions
from darner.retention.sweep.begin import NO_POLICY
from darner.retention.values import PolicyVersion

_log = get_logger("retention")
_REASON_LIMIT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Who changes the policy, and why. `base_version`: what the change was made from; `preview_token`: what was looked at."""

    by: str
    reason: str = ""
    base_version: int | None = None
    preview_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    policy: Policy
    origin: str


class PolicyDesk:
    """The part of the engine that knows versions of the policy."""

    _db: Database
    _parts: RetentionParts
    _origin: str

    @property
    def archives(self) -> bool:
        """Whether there is an archive: presets then have it as a step."""
        return self._parts.restore_archived is not None

    async def seed(self) -> bool:
        """Make the policy of a fresh installation; False where there is one, or jobs without one, in which case all are kept."""
        fresh = preset_policies.default_policy(archive=self.archives)
        try:
            return await self._db.write(lambda conn: records.seed_policy(conn, fresh, self._origin))
        except ConflictError:  # another manager started at the same moment
            return False

    async def policy(self) -> PolicyVersion:
        """The policy in force; NotFoundError if there is none."""
        return await self._db.read(_in_force)

    async def history(self, *, before: int | None = None, limit: int = 100) -> list[PolicyVersion]:
        """Versions of the policy, newest first, those before a number."""
        return await self._db.read(lambda conn: records.policy_history(conn, limit, before=before))

    async def policy_version(self, version: int) -> PolicyVersion:
        """One version; NotFoundError."""
        return await self._db.read(lambda conn: records.policy_version(conn, version))

    def presets(self) -> list[Preset]:
        """All presets, as they would come into force here."""
        return preset_policies.presets(archive=self.archives)

    def preset(self, name: str) -> Preset:
        """One preset; NotFoundError."""
        return preset_policies.preset(name, archive=self.archives)

    async def set_policy(
        self,
        data: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        base_version: int | None = None,
        preview_token: str | None = None,
    ) -> PolicyVersion:
        """A new version from rules, `keep` or a preset's name; in force at the next sweep, also for a sweep that runs now.

        InvalidInputError names the field that is wrong; ConflictError when `base_version` is not in force or the token is not for
        this policy. Nothing is stored then.
        """
        change = Change(by=by, reason=reason, base_version=base_version, preview_token=preview_token)
        return await self._change(lambda conn: self._add(conn, self._candidate(conn, data), change))

    async def rollback(
        self, version: int, *, by: str, reason: str = "", base_version: int | None = None, preview_token: str | None = None
    ) -> PolicyVersion:
        """A new version with the rules of an old one. NotFoundError; ConflictError as in `set_policy`, and if it is in force."""
        change = Change(
            by=by, reason=reason or f"back to version {version}", base_version=base_version, preview_token=preview_token
        )

        def back(conn: Connection) -> PolicyVersion:
            found = self._candidate(conn, {"version": version})
            check_policy(found.policy)
            if records.version_in_force(conn) == version:
                raise ConflictError(f"Version {version} is in force already.", field="version")
            return self._add(conn, found, change)

        return await self._change(back)

    async def grandfather(self, imported: Imported, *, by: str, reason: str = "", base_version: int | None = None) -> PolicyVersion:
        """A new version from what an upstream installation was told to keep."""
        why = reason or " ".join(imported.notes)
        change = Change(by=by, reason=why, base_version=base_version)
        found = _Candidate(policy=imported.policy, origin=GRANDFATHERED)
        return await self._change(lambda conn: self._add(conn, found, change))

    async def diff(self, version: int, to: int | None = None) -> dict[str, Any]:
        """What changed from a version to another (None: the one in force); NotFoundError."""

        def compare(conn: Connection) -> dict[str, Any]:
            before = records.policy_version(conn, version)
            after = _in_force(conn) if to is None else records.policy_version(conn, to)
            return {"from": before.version, "to": after.version, **diff_to_json(diff_policies(before.policy, after.policy))}

        return await self._db.read(compare)

    async def change_of(self, version: int) -> dict[str, Any] | None:
        """What changed with a version; None: it was the first. `notes`: what may not have been meant."""
        if version <= 1:
            return None
        found = await self.policy_version(version)
        return {**await self.diff(version - 1, version), "notes": remarks(found.policy, archive=self.archives)}

    async def preview(self, data: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """What rules, `keep`, a preset or a version would do at the next sweep, with a token. Times in unix ms."""

        def look(conn: Connection) -> tuple[Policy, dict[str, Any]]:
            found, present = self._candidate(conn, data), records.policy_in_force(conn)
            held = selectors(conn)
            in_force = Order(policy=present.policy, selectors=held) if present else None
            shown = preview(conn, Order(policy=found.policy, selectors=held), in_force, db_now_ms(conn))
            return found.policy, {
                "policy_version": present.version if present else None,
                **policy_to_json(found.policy),
                "shown": shown,
            }

        policy, looked = await self._db.read(look)
        shown = looked.pop("shown")

        def keep(conn: Connection) -> tuple[str, int]:
            now_ms = db_now_ms(conn)
            return put_token(conn, policy, shown, by=by, now_ms=now_ms), now_ms + TOKEN_TTL_MS

        token, expires_at = await self._db.write(keep, durable=False)
        shown["notes"] += remarks(policy, archive=self.archives)
        body = {"policy_version": looked.pop("policy_version"), "policy": looked}
        return {"token": token, "expires_at": expires_at, **body, **shown}

    async def suggestions(self) -> list[dict[str, Any]]:
        """What might be better than the version in force, with what it would do. Times in unix ms."""

        def look(conn: Connection) -> list[dict[str, Any]]:
            found = records.policy_in_force(conn)
            if found is None:
                return []
            held, now_ms = selectors(conn), db_now_ms(conn)
            present = Order(policy=found.policy, selectors=held)
            return [
                {
                    "preset": one.preset,
                    "title": one.title,
                    "policy_version": found.version,
                    "origin": found.origin,
                    "policy": policy_to_json(one.policy),
                    "preview": preview(conn, Order(policy=one.policy, selectors=held), present, now_ms),
                }
                for one in suggestions(found, archive=self.archives)
            ]

        return await self._db.read(look)

    async def bound_to(self, preview_token: str) -> int:
        """The version in force, if a token is for it and about as many jobs would be removed as were shown; ConflictError."""

        def check(conn: Connection) -> int:
            found = _in_force(conn)
            check_run_token(conn, preview_token, Order(policy=found.policy, selectors=selectors(conn)), db_now_ms(conn))
            return found.version

        return await self._db.read(check)

    def _candidate(self, conn: Connection, data: Mapping[str, Any]) -> _Candidate:
        """The policy that somebody means: a preset, a version, or one that is written out."""
        for name in ("preset", "version"):
            if name in data and len(data) > 1:
                other = next(one for one in data if one != name)
                raise InvalidInputError(f"Say `{name}` or `{other}`, not both.", field=other)
        if "preset" in data:
            name = str(data["preset"])
            return _Candidate(policy=self.preset(name).policy, origin=f"preset:{name}"[:32])
        if "version" in data:
            number = data["version"]
            if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= MAX_ID:
                raise InvalidInputError("A version is a number from 1 on.", field="version")
            return _Candidate(policy=records.policy_version(conn, number).policy, origin="rollback")
        return _Candidate(policy=policy_from_json(data), origin="user")

    def _add(self, conn: Connection, found: _Candidate, change: Change) -> PolicyVersion:
        self._check_sinks(found.policy)
        hold_sweeps(conn)
        confirmed = change.preview_token is not None
        if change.preview_token is not None and not check_token(conn, change.preview_token, found.policy):
            raise ConflictError(UNKNOWN_TOKEN, field="preview_token")
        return records.add_policy(
            conn,
            found.policy,
            origin=found.origin,
            by=change.by,
            reason=change.reason[:_REASON_LIMIT],
            base_version=change.base_version,
            confirmed=confirmed,
        )

    def _check_sinks(self, policy: Policy) -> None:
        """Jobs of a rule whose sink nobody knows would wait for ever."""
        known = self._parts.known_sinks
        for number, rule in enumerate(policy.rules):
            if known is not None and rule.export and rule.export not in known:
                names = ", ".join(sorted(known)) or "none is configured (retention.export.sinks)"
                raise InvalidInputError(f"There is no sink {rule.export!r}; known are: {names}.", field=f"rules[{number}].export")

    async def _change(self, add: Callable[[Connection], PolicyVersion]) -> PolicyVersion:
        made = await self._db.write(add)
        _log.info("retention policy changed", version=made.version, by=made.created_by, origin=made.origin, reason=made.reason)
        return made


def _in_force(conn: Connection) -> PolicyVersion:
    found = records.policy_in_force(conn)
    if found is None:
        raise NotFoundError(NO_POLICY)
    return found
