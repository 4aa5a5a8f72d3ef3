import pytest

from market_depth.feeds.dbn_metadata import (
    MIN_METADATA_BYTES,
    NEWEST_VERSION,
    PREFIX_BYTES,
    BadMetadataError,
    UnknownVersionError,
    decoded_metadata,
    metadata_size,
)
from tests.market_depth.feeds.dbn_files import metadata

MOST = 1 << 20


def prefix(version: int, size: int) -> bytes:
    return b"DBN" + bytes([version]) + size.to_bytes(4, "little")


@pytest.mark.parametrize("version", range(1, NEWEST_VERSION + 1))
def test_the_first_bytes_say_how_many_follow(version: int) -> None:
    encoded = metadata(version).encode()
    assert metadata_size(encoded[:PREFIX_BYTES], MOST) == len(encoded) - PREFIX_BYTES
    assert decoded_metadata(encoded).dataset == "TEST.MBO"


@pytest.mark.parametrize("size", [MIN_METADATA_BYTES, MOST])
def test_the_bounds_of_a_size_are_allowed(size: int) -> None:
    assert metadata_size(prefix(3, size), MOST) == size


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (prefix(0, 200), UnknownVersionError, "is DBN version 0"),
        (prefix(NEWEST_VERSION + 1, 200), UnknownVersionError, "is DBN version 4"),
        (prefix(3, MIN_METADATA_BYTES - 1), BadMetadataError, "claims 119 bytes of metadata, at byte 4 and"),
        (prefix(3, MOST + 1), BadMetadataError, "claims 1,048,577 bytes of metadata, at byte 4 and"),
    ],
)
def test_a_beginning_that_makes_no_sense_is_told(
    content: bytes, error: type[BadMetadataError], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}"):
        metadata_size(content, MOST)


def test_metadata_that_make_no_sense_are_told_with_the_decoders_reason() -> None:
    with pytest.raises(BadMetadataError, match=r"^has metadata that makes no sense \(.+\)$"):
        decoded_metadata(prefix(3, MIN_METADATA_BYTES) + b"\xff" * MIN_METADATA_BYTES)
