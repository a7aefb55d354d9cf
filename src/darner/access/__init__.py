"""Who may do what: tokens, the principal behind a request, and the vault for what must be stored secret."""

from darner.access.rest import authenticate, require, router, token_of
from darner.access.tokens import SCOPES, Principal, TokenRecord, TokenService
from darner.access.vault import SealError, Vault, create_key_file

__all__ = [
    "SCOPES",
    "Principal",
    "SealError",
    "TokenRecord",
    "TokenService",
    "Vault",
    "authenticate",
    "create_key_file",
    "require",
    "router",
    "token_of",
]
