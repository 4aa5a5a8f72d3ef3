import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from market_depth.record.zstd_frame import MAX_BLOCK_BYTES, NoFrame, ZstdFrame


def decompressed(file: bytes) -> bytes:
    """Everything that can be read of a file, which may be cut short."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(file)


@given(st.lists(st.tuples(st.binary(max_size=3000), st.booleans())), st.binary(max_size=3000))
def test_head_and_content_come_out_of_one_frame(pieces: list[tuple[bytes, bool]], head: bytes) -> None:
    frame = ZstdFrame()
    file = frame.head(head)
    for piece, is_flushed in pieces:
        file += frame.add(piece)
        if is_flushed:
            file += frame.flush()
            assert (
                decompressed(file)
                == head + b"".join(p for p, _ in pieces)[: len(decompressed(file)) - len(head)]
            )
    file += frame.end()
    whole = zstandard.ZstdDecompressor().decompressobj()
    assert whole.decompress(file) == head + b"".join(piece for piece, _ in pieces)
    assert whole.eof
    assert not whole.unused_data


def test_what_was_flushed_can_be_read_and_what_follows_is_no_hindrance() -> None:
    frame = ZstdFrame()
    file = frame.head(b"head ") + frame.add(b"flushed ") + frame.flush()
    assert decompressed(file) == b"head flushed "
    assert decompressed(file + frame.add(bytes(10)) + b"\0") == b"head flushed "


@pytest.mark.parametrize("size", [1, 1000, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1, 3 * MAX_BLOCK_BYTES])
def test_another_head_of_the_same_length_may_take_its_place(size: int) -> None:
    frame = ZstdFrame()
    first, second = frame.head(b"1" * size), frame.head(b"2" * size)
    # Content that repeats the head: were it compressed with reference to the head, it would change with it.
    body = frame.add(b"1" * size) + frame.end()
    assert len(first) == len(second)
    assert decompressed(second + body) == b"2" * size + b"1" * size


def test_without_compression_everything_stays_as_it_is() -> None:
    frame = NoFrame()
    assert frame.head(b"a") + frame.add(b"b") + frame.flush() + frame.end() == b"ab"
