"""A secret is a value of its own type that prints as `•••`, so that logs, answers and tracebacks cannot show it by accident."""

MASK = "•••"


class Secret:
    """Text that must not be shown. `reveal()` is the only way to read it, easy to find in a review."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Wrap `text`."""
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that must send it."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> str | tuple[object, ...]:
        message = "a Secret is never pickled"
        raise TypeError(message)


SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"})


def is_secret_header(name: str) -> bool:
    """True for a header whose value must not be logged, archived or returned."""
    lowered = name.lower()
    return lowered in SECRET_HEADERS or "token" in lowered or "secret" in lowered or "password" in lowered
