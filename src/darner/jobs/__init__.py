"""What a job means: plan, lease, fold results, timeline, cancel, retry; and the worker that carries parts out.

Flows in: requests of people and programs (`rest`), reports of workers (`worker_rest`). Flows out: one honest state per job, its
parts and its timeline. The database is the only truth; every process may be killed at any instruction. Refuses: a request
that names something unknown, and any report that does not come from the holder of the lease.
"""
