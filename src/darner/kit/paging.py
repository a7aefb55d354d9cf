"""Pages as upstream's manager tells them: a bare array in the body, and one `Link` header with four entries (spec/manager.md, 2).

`rel` is not quoted and the URL has no host; upstream's console reads the number of the last page out of it.
"""

from urllib.parse import urlencode

DEFAULT_PER_PAGE = 10
MAX_PER_PAGE = 10_000_000


def link_header(path: str, query: list[tuple[str, str]], *, page: int, per_page: int, total: int) -> str:
    """The header's value; `query` are the other parameters of the request, kept as they were.

    Edges as upstream: without rows `last` is 0 and `next` 2; `prev` of page 1 is 1; `next` of the last page is itself.
    """
    last = -(-total // per_page)
    following = page if last and page >= last else page + 1
    numbers = {"prev": max(1, page - 1), "next": following, "first": 1, "last": last}
    kept = [(key, value) for key, value in query if key not in {"page", "per_page"}]
    return ",".join(
        f"<{path}?{urlencode([*kept, ('page', str(number)), ('per_page', str(per_page))])}>;rel={rel}"
        for rel, number in numbers.items()
    )
