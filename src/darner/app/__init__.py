"""Composition roots, one per process, and the command line. Knows every room, decides nothing."""
