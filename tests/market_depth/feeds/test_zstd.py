from io import BufferedReader, BytesIO, RawIOBase
from typing import cast

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.zstd import PIECE_BYTES, BadZstdError, ZstdStream

CONTENT = bytes(range(256)) * 40
FRAME = zstandard.ZstdCompressor().compress(CONTENT)
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"


def stream(data: bytes) -> ZstdStream:
    return ZstdStream(BufferedReader(cast("RawIOBase", BytesIO(data))))


def read_all(source: ZstdStream, step: int = 1000) -> bytes:
    content = b""
    buffer = bytearray(step)
    while count := source.readinto(memoryview(buffer)):
        content += buffer[:count]
    return content


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"", b""),
        (FRAME, CONTENT),
        (FRAME * 3, CONTENT * 3),
        (SKIPPABLE + FRAME + SKIPPABLE + FRAME, CONTENT * 2),
        (zstandard.ZstdCompressor().compress(b"") + FRAME, CONTENT),
        (
            zstandard.ZstdCompressor().compress(bytes(10 * PIECE_BYTES * PIECE_BYTES)),
            bytes(10 * PIECE_BYTES * PIECE_BYTES),
        ),
    ],
    ids=["empty file", "one frame", "three frames", "skippable frames", "empty frame", "large"],
)
def test_the_content_of_all_frames_comes_out(data: bytes, content: bytes) -> None:
    assert read_all(stream(data), 1 << 20) == content


@given(st.integers(1, len(FRAME) - 1))
def test_a_file_cut_short_is_told_from_a_complete_one(length: int) -> None:
    with pytest.raises(BadZstdError, match="breaks off"):
        read_all(stream(FRAME + FRAME[:length]))


def test_rubbish_after_a_frame_is_damage_and_the_frame_comes_out_first() -> None:
    source = stream(FRAME + b"rubbish!")
    buffer = bytearray(len(CONTENT))
    assert source.readinto(memoryview(buffer)) == len(CONTENT)
    assert buffer == CONTENT
    with pytest.raises(BadZstdError, match="damaged"):
        source.readinto(memoryview(buffer))
