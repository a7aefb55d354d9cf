"""How Darner connects: the guard that refuses forbidden addresses on every dial, TLS, proxies, redirects, pooled HTTP.

In flow URLs and headers, out flow replies whose bodies the caller reads. Nothing here knows what the bytes mean. Refused are
link-local, multicast, unspecified and cloud-metadata addresses always, loopback and private ones by policy, unverified TLS
unless asked for, and credentials on their way to another origin.
"""
