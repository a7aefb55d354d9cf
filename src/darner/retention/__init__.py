"""What may be forgotten, when, and how: the policy, and the sweeper that carries it out.

In: policy from people, ended jobs from the database. Out: removed jobs with an audit of each batch, and for every job the moment
it will be forgotten, or why it stays. Refuses, whatever the policy says: jobs that have not ended, are held, or ended less than an
hour ago.
"""
