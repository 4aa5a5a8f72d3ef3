"""A live DBN stream that arrives in pieces: its metadata, then what its records say."""

import numpy as np
from databento_dbn import Metadata

from market_depth.feeds.dbn_decoding import Decoded, decode
from market_depth.feeds.dbn_metadata import (
    MAGIC,
    PREFIX_BYTES,
    BadMetadataError,
    decoded_metadata,
    metadata_size,
)
from market_depth.feeds.gateway_text import GatewayError
from protocol.events import ORDER_EVENT

MAX_METADATA_BYTES = 16 * 1024 * 1024
"""A session's metadata are some 120 bytes: what is in it comes in records."""


class DbnStream:
    """Decodes a stream as far as it has arrived."""

    def __init__(self) -> None:
        self.metadata: Metadata | None = None
        """As soon as they have arrived."""
        self._carry = b""

    def receive(self, data: bytes) -> Decoded:
        """What `data` completes, in memory of its own.

        Raises: GatewayError where the stream makes no sense; it cannot be read on then.
        """
        data = self._carry + data
        if self.metadata is None:
            data = self._read_metadata(data)
        if self.metadata is None:
            self._carry = data
            return Decoded(np.empty(0, ORDER_EVENT), records=0, size=0)
        memory = np.empty(len(data), np.uint8)  # which is aligned, and the receiver's to write to
        memory[:] = np.frombuffer(data, np.uint8)
        decoded = decode(memory, ts_out=self.metadata.ts_out)
        if decoded.problem is not None:
            raise GatewayError(f"the stream {decoded.problem}")
        self._carry = data[decoded.size :]
        return decoded

    def _read_metadata(self, data: bytes) -> bytes:
        """What follows the metadata; all of `data` until they are complete."""
        if not data.startswith(MAGIC[: len(data)]):
            raise GatewayError("what follows the handshake is not DBN")
        if len(data) < PREFIX_BYTES:
            return data
        try:
            end = PREFIX_BYTES + metadata_size(data[:PREFIX_BYTES], MAX_METADATA_BYTES)
            if len(data) < end:
                return data
            self.metadata = decoded_metadata(data[:end])
        except BadMetadataError as error:
            raise GatewayError(f"the stream {error}") from error
        return data[end:]
