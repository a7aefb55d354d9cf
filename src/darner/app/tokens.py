"""Tokens that a process reads from a file at its start."""

import asyncio
from pathlib import Path

from darner.core.errors import UnavailableError
from darner.core.secret import Secret


async def read_token(path: Path | None) -> Secret | None:
    """The token in `path`; None without a path. Raises UnavailableError if the file cannot be read."""
    if path is None:
        return None
    try:
        text = await asyncio.to_thread(path.read_text)
    except OSError as error:
        raise UnavailableError(f"cannot read the token in {path}: {error.strerror}") from None
    return Secret(text.strip())
