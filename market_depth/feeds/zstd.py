"""The content of a zstd file, frame after frame, with a word when it breaks off."""

from io import BufferedReader

import zstandard

PIECE_BYTES = 1024
"""Decompressed at a time. zstd can make 32 kB of one byte, so small pieces bound the memory that a hostile file
takes, to 32 MB; larger ones were not faster (1 GB/s)."""


class BadZstdError(OSError):
    """The compressed data breaks off or is not zstd from here on."""


class ZstdStream:
    """Reads what a zstd file holds. zstandard's own reader takes a file that was cut short for a complete one."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._compressed = b""
        self._content = memoryview(b"")
        self._inside_frame = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the front of `buffer` and tell how many bytes that were; 0 only at the end.

        Raises: BadZstdError where the data is damaged; OSError as the file's own.
        """
        while not self._content and (self._compressed or self._read_piece()):
            self._decompress()
        count = min(len(buffer), len(self._content))
        buffer[:count] = self._content[:count]
        self._content = self._content[count:]
        return count

    def _read_piece(self) -> bool:
        self._compressed = self._file.read(PIECE_BYTES)
        if not self._compressed and self._inside_frame:
            raise BadZstdError("its compressed data breaks off")
        return bool(self._compressed)

    def _decompress(self) -> None:
        try:
            self._content = memoryview(self._frame.decompress(self._compressed))
        except zstandard.ZstdError as error:
            raise BadZstdError("its compressed data is damaged") from error
        self._inside_frame = not self._frame.eof
        self._compressed = self._frame.unused_data
        if self._frame.eof:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
