"""Moments in answers."""

from typing import Any

from darner.kit.moments import rfc3339

_NAMES = frozenset({"now", "oldest", "newest"})


def with_moments(found: dict[str, Any], names: frozenset[str] = _NAMES) -> dict[str, Any]:
    """An answer with its times in RFC 3339, at any depth: the fields `*_at` and those of `names`."""
    return {key: _shown(key, value, names) for key, value in found.items()}


def _shown(key: str, value: Any, names: frozenset[str]) -> Any:  # noqa: ANN401  (JSON)
    if (key in names or key.endswith("_at")) and (value is None or isinstance(value, int)):
        return rfc3339(value)
    if isinstance(value, dict):
        return with_moments(value, names)
    if isinstance(value, list):
        return [with_moments(one, names) if isinstance(one, dict) else one for one in value]
    return value
