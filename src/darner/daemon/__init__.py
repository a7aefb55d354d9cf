"""The peer daemon: which piece is loaded next and from where, serving what it has, and the registry mirror.

In: downloads from the unix socket, the upload port and the mirror; answers of the scheduler; offers of parents. Out: verified
pieces in the store, files at their place, offers to children, reports to the scheduler. Refuses bytes that fail their digest,
writing outside its own directories for a caller from the network, and the origin unless this peer was sent there.
"""
