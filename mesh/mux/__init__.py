"""Many calls over one stream, so that a hop costs a share of a message and not a call of its own.

`MuxChannel` stands where a gRPC channel does: stubs made on it ask over the stream while there is one, and call
directly while there is none. Deadline, metadata, cancellation, flow control and status stay each call's own.
"""

from mesh.mux.client import MuxChannel
from mesh.mux.server import MuxServicer

__all__ = ["MuxChannel", "MuxServicer"]
