"""The form of the manager's answers, checked: what is no object, or no list of them, did not come from a manager."""

from typing import Any

from darner.core.errors import UnavailableError

Json = dict[str, Any]


def one_object(value: Any) -> Json:  # noqa: ANN401
    """A JSON object. Raises UnavailableError for anything else."""
    if not isinstance(value, dict):
        raise UnavailableError("the manager answered with something that is not an object")
    return value


def objects(value: Any) -> list[Json]:  # noqa: ANN401
    """A list of JSON objects. Raises UnavailableError for anything else."""
    if not isinstance(value, list):
        raise UnavailableError("the manager answered with something that is not a list")
    return [one_object(item) for item in value]
