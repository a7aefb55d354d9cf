"""Ended jobs on their way to log systems: an outbox in the database, and sinks that acknowledge (spec/retention.md, 4.10).

In: jobs whose rule names a sink (`outbox.enqueue`, in the transaction that sorts them). Out: one JSON document per job and sink, at
least once, with the same key however often it is sent. Refuses: to let a job leave the database before its sink has acknowledged it
(`outbox.acknowledged`), to drop what a sink does not want, and to let one such job hold up the others.
"""
