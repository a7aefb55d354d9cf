"""Whether a database is as Darner needs it, and as an operator would want it. Looks only; changes nothing.

Each finding has a level: `ok`; `warn`, it works, but something will be slow, large or lost in a power cut; `fail`, Darner will not
work, or not rightly. `hint` says what to do about it.
"""

from darner.db.checks.all import check
from darner.db.checks.finding import Finding, Level

__all__ = ["Finding", "Level", "check"]
