"""Clients of our own services over gRPC and HTTP, each with an in-process twin.

Flows in: core values. Flows out: core values, and errors of `core.errors` whatever the transport said. A client owns its
connection: `close()` ends it.
"""
