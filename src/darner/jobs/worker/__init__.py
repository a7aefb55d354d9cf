"""The worker: pulls parts of its cluster from the manager and has the cluster's hosts carry them out.

Flows in: work orders. Flows out: reports, and the hosts that its scheduler knows. Holds nothing that must survive: killed at any
moment, its leases run out and its parts go to another worker. Refuses to go on with a part that is no longer its own.
"""

from darner.jobs.worker.engine import Worker

__all__ = ["Worker"]
