"""How pieces travel between peers: vortex over TCP, byte for byte as upstream's daemons speak it (daemon.md, section 5).

Out: `PieceServer` sends pieces that a `PieceSource` opens. In: `PieceClient` fetches one into a file and tells its digests.
Refused on both sides: lengths other than the protocol's, unknown tags, peers that are too slow; on the client's also answers about
another piece, another place or another length than were asked for, and bytes that do not match their CRC-32.
"""

from darner.swarm.client import PieceClient
from darner.swarm.ports import ClientLimits, PieceSource, ServedPiece, ServerLimits
from darner.swarm.server import PieceServer

__all__ = ["ClientLimits", "PieceClient", "PieceServer", "PieceSource", "ServedPiece", "ServerLimits"]
