"""One zstd frame whose first bytes can be written anew, and whose flushed part can be read before it is complete.

    header │ stored blocks: the head │ compressed blocks: the rest │ … │ last block

The head lies in the file as it is, in stored blocks, so a head of the same length can replace it in place. The
compressed blocks never refer to it: they are those of a frame that begins behind it. One frame, because many programs
read no further than the first; without a checksum, because the head changes.
Source: RFC 8878, 3.1.1 (frames) and 3.1.1.2 (blocks).
"""

import zstandard

LEVEL = 1
"""Order events take 16.0 bytes each at level 1 and 15.4 at level 3, which takes twice as long."""

WINDOW_LOG = 19
"""How far back the compressor looks: 512 kB, what zstd chooses for this level."""

# Magic number, no optional fields, window descriptor.
HEADER = b"\x28\xb5\x2f\xfd" + b"\0" + bytes([(WINDOW_LOG - 10) << 3])

MAX_BLOCK_BYTES = 1 << 17
STORED = 0
BLOCK_HEADER_BYTES = 3
EMPTY_LAST_BLOCK = b"\1\0\0"


class ZstdFrame:
    """Compresses into such a frame. All methods but `head` return the next bytes of the file."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL, window_log=WINDOW_LOG, write_content_size=False, write_checksum=False, write_dict_id=False
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._is_empty = True
        self._has_header = False

    def head(self, content: bytes) -> bytes:
        """What the file begins with, from its first byte; as long as before if `content` is."""
        pieces = (content[at : at + MAX_BLOCK_BYTES] for at in range(0, len(content), MAX_BLOCK_BYTES))
        return HEADER + b"".join(map(_stored_block, pieces))

    def add(self, content: bytes) -> bytes:
        """Take `content`; the compressor keeps some of it back."""
        self._is_empty = self._is_empty and not content
        return self._blocks(self._compressor.compress(content))

    def flush(self) -> bytes:
        """Everything kept back: what was taken so far can then be read."""
        return self._blocks(self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))

    def end(self) -> bytes:
        """Everything kept back, and the end of the frame."""
        if self._is_empty:
            return EMPTY_LAST_BLOCK  # the compressor's own frame without content has another header
        return self._blocks(self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))

    def _blocks(self, compressed: bytes) -> bytes:
        """The same without the compressor's own header, with which its first bytes begin."""
        if self._has_header or not compressed:
            return compressed
        assert compressed.startswith(HEADER), compressed[: len(HEADER)].hex()
        self._has_header = True
        return compressed[len(HEADER) :]


class NoFrame:
    """The same for a file that is not compressed."""

    def head(self, content: bytes) -> bytes:
        return content

    def add(self, content: bytes) -> bytes:
        return content

    def flush(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""


def _stored_block(content: bytes) -> bytes:
    """A block that is not the last one and holds `content` as it is."""
    return (len(content) << 3 | STORED << 1).to_bytes(BLOCK_HEADER_BYTES, "little") + content
