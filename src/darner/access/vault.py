"""What must be stored secret, sealed with the key of `security.keyFile` (AES-256-GCM); the file is shared by all managers.

A sealed value is: version byte, 4 bytes that name the key, 12 bytes nonce, cipher text with its tag. Refuses: another key's values,
and values that were changed.
"""

import base64
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from darner.core.errors import DarnerError, InvalidInputError

_VERSION = b"\x01"
_KEY_BYTES = 32
_NAME_BYTES = 4
_NONCE_BYTES = 12
_HEAD_BYTES = len(_VERSION) + _NAME_BYTES + _NONCE_BYTES


class SealError(DarnerError):
    """A stored secret cannot be opened with this key file: it was sealed with another key, or changed."""


class Vault:
    """Seals and opens bytes. Safe to use from threads."""

    def __init__(self, key_file: Path) -> None:
        """Read the key. InvalidInputError if the file is missing, not a key, or readable by others."""
        key = _read_key(key_file)
        self._name = hashlib.sha256(key).digest()[:_NAME_BYTES]
        self._cipher = AESGCM(key)

    @classmethod
    def at(cls, key_file: Path) -> Self:
        """The vault of that key file, which is made first if it is missing."""
        if not key_file.exists():
            create_key_file(key_file)
        return cls(key_file)

    def seal(self, plain: bytes) -> bytes:
        """`plain`, unreadable without the key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _VERSION + self._name + nonce
        return head + self._cipher.encrypt(nonce, plain, head)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed; SealError if the key is another one or a byte was changed."""
        head, body = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        if len(head) < _HEAD_BYTES or head[:1] != _VERSION or head[1 : 1 + _NAME_BYTES] != self._name:
            raise SealError
        try:
            return self._cipher.decrypt(head[-_NONCE_BYTES:], body, head)
        except InvalidTag as error:
            raise SealError from error


def create_key_file(path: Path) -> None:
    """Write a new random key, mode 0600; leaves an existing file alone, also when two processes try at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)


def _read_key(path: Path) -> bytes:
    try:
        text = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        raise InvalidInputError(f"The key file {path} cannot be read: {error.strerror}.", field="security.keyFile") from error
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidInputError(f"The key file {path} may be read by others; run chmod 600 on it.", field="security.keyFile")
    try:
        key = base64.urlsafe_b64decode(text.strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise InvalidInputError(f"{path} is not a key file: 32 bytes in base64 are expected.", field="security.keyFile")
    return key
