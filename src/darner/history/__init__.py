"""An ended job as one record: read from its rows, redacted, folded into few bytes, and read back as if nothing had happened.

In: ids of jobs, or records. Out: records, whatever tier the job rests in. Refuses: jobs that have not ended.
"""
