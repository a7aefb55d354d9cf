"""The only place that changes swarms: `Swarms.apply(event, now)` returns what is to be done. No I/O, no clock, no chance.

`world` holds the records; `links` keeps edges and the index of eligible parents; `answers` answers one peer; `sources` decides how
content comes into a swarm; `waiting` holds and releases peers; `dialogue`, `fleet` and `upkeep` take in the events; `checks` says
what must never be.
"""

from darner.scheduler.state.swarms import Swarms

__all__ = ["Swarms"]
