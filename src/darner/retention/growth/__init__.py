"""How the history grows: samples each hour, a forecast, the budget and what is done to keep to it, and space given back.

In: the database, the disk beside it, a budget from people. Out: figures for status and Prometheus, advice, and for the sweeper the
policy adjusted to how tight it is. Refuses to remove anything earlier than the policy says, unless a person has opted in.
"""
