"""Frozen values and pure laws of the field: digest, id, piece, range, host, task, announce dialogue, hash ring, errors.

Nothing here does I/O, reads a clock or draws randomness. Every other room speaks in these values; faces parse into them and
nothing re-checks them inside.
"""
