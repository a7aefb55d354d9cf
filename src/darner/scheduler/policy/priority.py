"""What a download's priority means when the content is nowhere in the swarm yet (scheduler.md, section 10.6)."""

import re
from collections.abc import Sequence
from enum import Enum

from darner.core.fleet import ApplicationInfo
from darner.core.task import Download


class FirstStep(Enum):
    """How content comes into the swarm."""

    SEED = "a seed loads it"
    ORIGIN = "the asker loads it from the origin"
    NOT_FOUND = "nobody does: not found"
    FORBIDDEN = "nobody does: not allowed"


_STEP = {1: FirstStep.FORBIDDEN, 2: FirstStep.NOT_FOUND, 3: FirstStep.ORIGIN}


def level(download: Download, applications: Sequence[ApplicationInfo]) -> int:
    """The request's level, or, for 0, that of its application: of its first URL pattern that matches, else of the application."""
    if download.priority or not download.application:
        return download.priority
    for application in applications:
        if application.name == download.application:
            return next((value for pattern, value in application.urls if _matches(pattern, download.url)), application.priority)
    return 0


def first_step(download: Download, applications: Sequence[ApplicationInfo]) -> FirstStep:
    """What is to be done for this download."""
    return _STEP.get(level(download, applications), FirstStep.SEED)


def _matches(pattern: str, url: str) -> bool:
    try:
        return re.search(pattern, url) is not None
    except re.error:
        return False
