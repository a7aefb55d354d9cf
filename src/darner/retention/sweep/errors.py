"""Why a sweep ends before it is done."""

from darner.core.errors import ConflictError

# In the report of a held run that moved nothing at all: what must be looked at.
REFUSED = "refused"
CLOCK, RESTORED = "clock", "restored"


class SweepRefusedError(ConflictError):
    """A sweep cannot begin now."""


class SweepEndedError(ConflictError):
    """The sweep was asked to end; what it had done by then stays done."""


class PolicyChangedError(SweepEndedError):
    """The policy was changed during the sweep; the next one follows the new policy."""


class HoldsChangedError(SweepEndedError):
    """Holds were changed during the sweep; the next one respects them."""


class SweepCancelledError(SweepEndedError):
    """A person cancelled the sweep."""


class SweepPausedError(SweepEndedError):
    """Retention was paused during the sweep."""


class ClockJumpedError(SweepEndedError):
    """The database's clock jumped during the sweep."""
