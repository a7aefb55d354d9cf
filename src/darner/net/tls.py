"""TLS for clients: verified by default, a custom CA besides the system's, an explicit switch to skip verification."""

import ssl
from pathlib import Path

from darner.core.errors import InvalidInputError


def client_context(ca_file: Path | None = None, insecure: bool = False) -> ssl.SSLContext:
    """A context for outgoing connections. `ca_file` (PEM) is trusted in addition to the system's CAs.

    `insecure` skips every check of the certificate. Raises InvalidInputError if the CA file cannot be used.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or str(error)
            message = f"the CA file {ca_file} cannot be used ({reason}); it must hold PEM certificates"
            raise InvalidInputError(message, field="ca_file") from error
    return context
