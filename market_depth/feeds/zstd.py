"""The content of a zstd file, block after block, with a word when it breaks off or is damaged.

A file is a row of frames. A frame is a header, blocks of at most 128 kB of content each, and perhaps a checksum; the
first bytes of each say how long it is. Skippable frames hold something else and are passed over.
Source: RFC 8878, sections 3.1.1 and 3.1.2.
"""

from collections.abc import Iterator
from io import BufferedReader
from typing import IO, NamedTuple, cast

import zstandard

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE_MAGIC = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5F

HEADER_START_BYTES = 5
"""The magic and the descriptor, from which the length of the header follows."""

CHECKSUM_FLAG = 0x04
CHECKSUM_BYTES = 4

BLOCK_HEADER_BYTES = 3
LAST_BLOCK_FLAG = 0x01
REPEATED_BYTE = 1  # the type of a block that holds one byte, and the size says how often it stands there
MAX_BLOCK_BYTES = 1 << 17

SKIP_BYTES = 1 << 16


class Frame(NamedTuple):
    """Where a frame starts: in the file, and what it holds in the content."""

    offset: int = 0
    content_offset: int = 0


FIRST_FRAME = Frame()


class BadZstdError(OSError):
    """The compressed data breaks off or is not zstd from here on."""


def is_skippable(head: bytes) -> bool:
    """Whether a file or frame that begins with `head`, four bytes or more, begins with a skippable frame."""
    return head[0] >> 4 == 5 and head[1:4] == SKIPPABLE_MAGIC


class ZstdStream:
    """Reads what a zstd file holds, and every block before damage.

    zstandard's own reader takes a file that was cut short for a complete one, and loses what it decompressed in the
    same call before damage. Handing it the file part by part tells the first and prevents the second.
    """

    def __init__(self, file: BufferedReader, frame: Frame = FIRST_FRAME) -> None:
        """Read on from the beginning of a frame."""
        file.seek(frame.offset)
        self._file = file
        self.frame = frame
        """The frame that is being read."""
        self.offset = frame.content_offset
        """Where in the content the next `readinto` begins."""
        self._parts = Parts(file)
        parts = cast("IO[bytes]", self._parts)  # zstandard calls `read` alone
        self._reader = zstandard.ZstdDecompressor().stream_reader(parts, read_across_frames=True)
        self._block = memoryview(bytearray(MAX_BLOCK_BYTES))
        self._rest = self._block[:0]

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the front of `buffer` and tell how many bytes that were; 0 only at the end.

        Raises: BadZstdError where the data is damaged; OSError as the file's own.
        """
        if not self._rest:
            # A block goes straight to its place if there is room for it, whatever it holds: the decompressor would
            # keep what has no room until it is given more of the file, which may be damaged.
            if len(buffer) >= MAX_BLOCK_BYTES:
                count = self._read_block(buffer)
                self.offset += count
                return count
            self._rest = self._block[: self._read_block(self._block)]
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self.offset += count
        return count

    def _read_block(self, buffer: memoryview) -> int:
        try:
            count = self._reader.readinto1(buffer)
        except zstandard.ZstdError as error:
            raise BadZstdError(
                f"its compressed data is damaged before byte {self._file.tell():,} of the file"
            ) from error
        # A frame is begun only when all content of the one before has been read.
        if self._parts.frame_offset != self.frame.offset:
            self.frame = Frame(self._parts.frame_offset, self.offset)
        return count


class Parts:
    """A zstd file, handed out in its parts: the frames' headers, blocks and checksums."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.frame_offset = file.tell()
        """Where the frame starts of which the last part was."""
        self._parts = self._walk()

    def read(self, _size: int) -> bytes:
        """The next part; nothing at the end. Raises: BadZstdError where the file breaks off."""
        return next(self._parts, b"")

    def _walk(self) -> Iterator[bytes]:
        while head := self._file.read(HEADER_START_BYTES):
            self._check_whole(head, HEADER_START_BYTES)
            if is_skippable(head):
                self._skip(int.from_bytes(head[-1:] + self._take(3), "little"))
                continue
            self.frame_offset = self._file.tell() - HEADER_START_BYTES
            yield head + self._take(zstandard.frame_header_size(head) - HEADER_START_BYTES)
            fields = 0
            while not fields & LAST_BLOCK_FLAG:
                block_header = self._take(BLOCK_HEADER_BYTES)
                fields = int.from_bytes(block_header, "little")
                block_type, size = fields >> 1 & 3, fields >> 3
                yield block_header + self._take(1 if block_type == REPEATED_BYTE else size)
            # By itself: should it be wrong, the last block has been read.
            if head[-1] & CHECKSUM_FLAG:
                yield self._take(CHECKSUM_BYTES)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._take(min(size, SKIP_BYTES)))

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        self._check_whole(data, size)
        return data

    def _check_whole(self, data: bytes, size: int) -> None:
        if len(data) < size:
            raise BadZstdError(f"its compressed data breaks off at byte {self._file.tell():,} of the file")
