"""Personal access tokens: made once, shown once, stored as a SHA-256 digest.

In: the text of a token. Out: the principal it stands for. Refuses: unknown, revoked and expired tokens, all with the same answer.
A digest without salt is enough here, because a token is 256 random bits; it makes the look-up one read by index.
"""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from darner.core.errors import InvalidInputError, NotFoundError
from darner.core.secret import Secret
from darner.db import Database, db_now_ms
from darner.db.tables.access import access_token
from darner.kit.files import write_atomic
from darner.kit.log import get_logger

SCOPES = ("admin", "job", "cluster", "retention", "worker", "scheduler", "metrics")
_PREFIX = "dat_"
_SHOWN_CHARACTERS = 8
_NAME_LIMIT = 128
_TOUCH_EVERY_S = 60.0
_log = get_logger("access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is asking. An empty set of scopes allows nothing."""

    name: str
    scopes: frozenset[str]
    token_id: int = 0

    def allows(self, scope: str) -> bool:
        """Whether it may do what needs `scope`; `admin` may do everything."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token without its secret. Times in unix milliseconds."""

    id: int
    name: str
    prefix: str
    scopes: tuple[str, ...]
    bio: str
    created_by: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None

    def active(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now_ms)


class TokenService:
    """Creates, lists, revokes and checks tokens."""

    def __init__(self, db: Database) -> None:
        """`db` must have been migrated."""
        self._db = db
        self._touched: dict[int, float] = {}

    async def create(
        self, name: str, scopes: Sequence[str], expires_at: int | None = None, *, bio: str = "", created_by: str = ""
    ) -> tuple[TokenRecord, Secret]:
        """A new token; its text is in no other answer. `expires_at` in unix ms. InvalidInputError names the field."""
        values = {"name": _checked_name(name), "scopes": " ".join(_checked_scopes(scopes)), "bio": bio, "created_by": created_by}
        text = _PREFIX + secrets.token_urlsafe(32)

        def store(conn: Connection) -> TokenRecord:
            now = db_now_ms(conn)
            if expires_at is not None and expires_at <= now:
                raise InvalidInputError("The expiry lies in the past.", field="expired_at")
            facts = {**values, "prefix": text[: len(_PREFIX) + _SHOWN_CHARACTERS], "hash": _digest(text)}
            key = conn.execute(insert(access_token).values(**facts, created_at=now, expires_at=expires_at)).inserted_primary_key
            return _record(conn.execute(select(access_token).where(access_token.c.id == (key or [0])[0])).one())

        record = await self._db.write(store)
        _log.info("token created", token_id=record.id, token_name=record.name, scopes=record.scopes, by=created_by)
        return record, Secret(text)

    async def ls(self) -> list[TokenRecord]:
        """All tokens, newest first, revoked ones too."""
        statement = select(access_token).order_by(access_token.c.id.desc())
        return await self._db.read(lambda conn: [_record(row) for row in conn.execute(statement)])

    async def get(self, token_id: int) -> TokenRecord:
        """One token; NotFoundError."""
        row = await self._db.read(
            lambda conn: conn.execute(select(access_token).where(access_token.c.id == token_id)).one_or_none()
        )
        if row is None:
            raise NotFoundError(f"There is no token {token_id}.")
        return _record(row)

    async def revoke(self, token_id: int) -> None:
        """From now on the token is refused. Revoking twice is fine; NotFoundError for an unknown one."""
        await self.get(token_id)
        live = (access_token.c.id == token_id) & access_token.c.revoked_at.is_(None)
        await self._db.write(lambda conn: conn.execute(update(access_token).where(live).values(revoked_at=db_now_ms(conn))))
        _log.info("token revoked", token_id=token_id)

    async def authenticate(self, text: str) -> Principal | None:
        """The principal of a token, or None if it is unknown, revoked or expired."""
        record = await self._find(text)
        if record is None:
            return None
        await self._touch(record.id)
        return Principal(name=record.name, scopes=frozenset(record.scopes), token_id=record.id)

    async def _find(self, text: str) -> TokenRecord | None:
        if not text.startswith(_PREFIX):
            return None
        digest = _digest(text)

        def look_up(conn: Connection) -> TokenRecord | None:
            row = conn.execute(select(access_token).where(access_token.c.hash == digest)).one_or_none()
            if row is None or not hmac.compare_digest(row.hash, digest):
                return None
            record = _record(row)
            return record if record.active(db_now_ms(conn)) else None

        return await self._db.read(look_up)

    async def _touch(self, token_id: int) -> None:
        """Note the use, at most once a minute: a request must not cost a write."""
        now = time.monotonic()
        if now - self._touched.get(token_id, -_TOUCH_EVERY_S) < _TOUCH_EVERY_S:
            return
        self._touched[token_id] = now
        this = access_token.c.id == token_id
        with contextlib.suppress(Exception):  # a request must not fail for its bookkeeping
            await self._db.write(
                lambda conn: conn.execute(update(access_token).where(this).values(last_used_at=db_now_ms(conn))), durable=False
            )

    async def ensure_token(self, name: str, scopes: Sequence[str], file: Path) -> Secret:
        """The token in `file` (mode 0600); a new one is made and written there when the file is missing or its token is refused."""
        text = await asyncio.to_thread(_read_private, file)
        found = await self._find(text)
        if found is not None and set(scopes) <= set(found.scopes):
            return Secret(text)
        await self._revoke_all(name)
        _, secret = await self.create(name, scopes, created_by="system")
        write_atomic(file, f"{secret.reveal()}\n".encode(), mode=0o600)
        return secret

    async def _revoke_all(self, name: str) -> None:
        """The lost predecessors of a file's token must not stay valid."""
        ours = (access_token.c.name == name) & (access_token.c.created_by == "system") & access_token.c.revoked_at.is_(None)
        await self._db.write(lambda conn: conn.execute(update(access_token).where(ours).values(revoked_at=db_now_ms(conn))))


def _read_private(file: Path) -> str:
    """A token file's text, empty if it is missing; nobody else may read it from now on."""
    try:
        file.chmod(0o600)
        return file.read_text().strip()
    except OSError:
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checked_name(name: str) -> str:
    cleaned = name.strip()
    if not 1 <= len(cleaned) <= _NAME_LIMIT:
        raise InvalidInputError(f"A token's name has 1 to {_NAME_LIMIT} characters.", field="name")
    return cleaned


def _checked_scopes(scopes: Sequence[str]) -> list[str]:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        said = f"{unknown[0]!r} is not a scope" if unknown else "A token without a scope may do nothing"
        raise InvalidInputError(f"{said}; choose from {', '.join(SCOPES)}.", field="scopes")
    return sorted(set(scopes))


def _record(row: Row[Any]) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(row.scopes.split()),
        bio=row.bio,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
