"""Which clusters, schedulers and hosts there are, and which of them a client should use.

In: registrations, heartbeats and reports of hosts. Out: lists over manager.v2 gRPC and REST. Refuses: registration without a token,
unless anonymous registration is switched on.
"""
