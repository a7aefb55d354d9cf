"""Clients of our own services over gRPC and HTTP, each with an in-process twin.

Flows in: core values. Flows out: core values, and errors of `core.errors` whatever the transport said. A client owns its
connection: `close()` ends it.
"""

import os

# gRPC's core writes lines of its own to stderr when a server stops. What matters of them arrives as an error; the rest would
# stand between a person's lines. It is read when gRPC starts, so it must be set before any client is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
