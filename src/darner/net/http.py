"""What origin, registry and the mirror use of this room, in one place."""

from darner.net.exchange import Pace
from darner.net.pool import HttpPool, PoolSettings, Reply
from darner.net.proxy import Proxy, ProxySettings
from darner.net.redirect import MAX_REDIRECTS, REDIRECT_STATUSES, next_hop
from darner.net.session import GuardedSession, SessionReply, SessionSettings, open_session
from darner.net.target import Target, without_userinfo

__all__ = [
    "MAX_REDIRECTS",
    "REDIRECT_STATUSES",
    "GuardedSession",
    "HttpPool",
    "Pace",
    "PoolSettings",
    "Proxy",
    "ProxySettings",
    "Reply",
    "SessionReply",
    "SessionSettings",
    "Target",
    "next_hop",
    "open_session",
    "without_userinfo",
]
