"""Darner: peer-to-peer distribution of files and container images, with a job history whose retention the operator controls."""

__version__ = "0.1.0"
