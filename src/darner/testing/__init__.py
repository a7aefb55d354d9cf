"""What tests, the demo and the benchmarks need around Darner: an origin that counts, a small registry, images, a cluster, a clock.

Everything runs on loopback, on ports the system gives, and holds no content in memory. Nothing in `src` imports this room. The
pieces, each usable alone: `origin.CountingOrigin` (files with switchable faults), `registry.SmallRegistry` (the read side of an OCI
registry), `image.make_image` (a real OCI layout from real files), `cluster.UpCluster` (`darner up` as a child process),
`programs` (Debian's docker-registry and nginx), `clock.VirtualClock`, `ports.free_port`. The first two also run as programs:
`python -m darner.testing.origin` and `python -m darner.testing.registry`.
"""
