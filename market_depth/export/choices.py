"""What can be asked of an export; apart from how it is done, which takes longer to load."""

from enum import StrEnum


class Kind(StrEnum):
    """Which rows."""

    BBO = "bbo"
    TRADES = "trades"
    SNAPSHOTS = "snapshots"


class Format(StrEnum):
    """As what."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"
