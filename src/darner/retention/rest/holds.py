"""Holds: what is kept whatever the policy says."""

from fastapi import APIRouter

from darner.retention.engine import RetentionEngine


def routes(api: APIRouter, engine: RetentionEngine) -> None:
    """List, add and remove holds."""
