"""`darner up`: the whole system on one machine, in the foreground, in one directory.

`layout` says which processes there are, with which ports and files; `supervisor` starts, watches and stops them; `cluster` writes
`cluster.json`, by which everything else finds the running system.
"""
