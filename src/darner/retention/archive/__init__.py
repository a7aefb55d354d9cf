"""The archive: old jobs in Parquet files, searched like the others, each job visible exactly once at every moment.

In: jobs that a sweep hands over. Out: records, segments, figures. Needs the extra `darner[archive]`; without it, or while its store
is away, jobs wait in the warm tier.
"""
