"""The beginning of DBN, a file's or a stream's: eight bytes that say how many bytes of metadata follow, then those.

Source: the DBN encoding as databento_dbn reads it, which decodes the metadata here.
"""

from databento_dbn import DBNError, Metadata

MAGIC = b"DBN"
NEWEST_VERSION = 3

PREFIX_BYTES = 8
"""Magic, version, and the length of the metadata that follow."""

MIN_METADATA_BYTES = 120
"""What empty metadata take, in every version. databento_dbn does not survive some shorter ones."""


class BadMetadataError(Exception):
    """No DBN that can be read begins like this. The text is what to say after the name of the file or stream."""


class UnknownVersionError(BadMetadataError):
    """It is DBN of a version that this program does not know."""


def metadata_size(prefix: bytes, most: int) -> int:
    """How many bytes of metadata follow DBN's first eight; `most` is how many may.

    Raises: BadMetadataError.
    """
    version, size = prefix[len(MAGIC)], int.from_bytes(prefix[len(MAGIC) + 1 :], "little")
    if not 1 <= version <= NEWEST_VERSION:
        raise UnknownVersionError(f"is DBN version {version}")
    if not MIN_METADATA_BYTES <= size <= most:
        raise BadMetadataError(f"claims {size:,} bytes of metadata, at byte 4 and before record 1")
    return size


def decoded_metadata(encoded: bytes) -> Metadata:
    """The metadata of a whole beginning: the first eight bytes and as many as those say.

    Raises: BadMetadataError.
    """
    try:
        return Metadata.decode(encoded)
    except DBNError as error:
        raise BadMetadataError(f"has metadata that makes no sense ({error})") from error
