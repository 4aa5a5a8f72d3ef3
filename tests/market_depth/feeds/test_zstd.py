from io import BufferedReader, BytesIO, RawIOBase
from typing import cast

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.zstd import BadZstdError, ZstdStream

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
            zstandard.ZstdCompressor().compress(bytes(10 << 20)),
            bytes(10 << 20),
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


def read_until_damage(data: bytes) -> tuple[bytes, str]:
    source, content, buffer = stream(data), b"", bytearray(1000)
    while True:
        try:
            count = source.readinto(memoryview(buffer))
        except BadZstdError as error:
            return content, str(error)
        content += buffer[:count]


def with_block_type(data: bytes, block_type: int) -> bytes:
    at = zstandard.frame_header_size(data)
    return data[:at] + bytes([data[at] & ~6 | block_type << 1]) + data[at + 1 :]


BLOCK = 1 << 17
NOISE = np.random.default_rng(1).bytes(2 * BLOCK + 100)
STORED = zstandard.ZstdCompressor(write_checksum=True).compress(NOISE)  # in three blocks, as it is


@pytest.mark.parametrize(
    ("data", "intact", "problem"),
    [
        (STORED[:-1] + bytes([STORED[-1] ^ 1]), len(NOISE), f"is damaged before byte {len(STORED):,}"),
        (STORED[:-1], len(NOISE), f"breaks off at byte {len(STORED) - 1:,}"),
        (STORED[:-5], 2 * BLOCK, f"breaks off at byte {len(STORED) - 5:,}"),
        (STORED[:BLOCK], 0, f"breaks off at byte {BLOCK:,}"),
        (STORED + with_block_type(STORED, 3), len(NOISE), "is damaged before byte"),
        (STORED + STORED[:4] + b"\xff" * 40, len(NOISE), "is damaged before byte"),
        (STORED + STORED[:3], len(NOISE), f"breaks off at byte {len(STORED) + 3:,}"),
        (STORED + SKIPPABLE[:-1], len(NOISE), f"breaks off at byte {len(STORED) + len(SKIPPABLE) - 1:,}"),
    ],
    ids=[
        "wrong checksum",
        "checksum cut short",
        "last block cut short",
        "first block cut short",
        "reserved block type",
        "header of nonsense",
        "magic cut short",
        "skippable frame cut short",
    ],
)
def test_every_block_before_damage_comes_out(data: bytes, intact: int, problem: str) -> None:
    content, told = read_until_damage(data)
    assert content == NOISE[:intact]
    assert told.startswith(f"its compressed data {problem}")


def test_reading_goes_on_from_the_frame_that_was_reached() -> None:
    data = SKIPPABLE + FRAME + SKIPPABLE + FRAME + FRAME
    source = stream(data)
    frames = set()
    while source.readinto(memoryview(bytearray(1000))):
        frames.add(source.frame)
        assert source.frame.content_offset < source.offset
        rest = ZstdStream(BufferedReader(cast("RawIOBase", BytesIO(data))), source.frame)
        assert len(read_all(rest)) == 3 * len(CONTENT) - source.frame.content_offset
        assert rest.offset == 3 * len(CONTENT)
    assert sorted(frame.content_offset for frame in frames) == [0, len(CONTENT), 2 * len(CONTENT)]
