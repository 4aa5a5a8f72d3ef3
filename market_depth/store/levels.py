"""The levels of snapshots between rows, where each has room for as many, and a database, which keeps those that there are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FIELDS = ("price", "size", "count")


def fill_levels(
    levels: npt.NDArray[np.void], counts: npt.NDArray[Any], values: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Put levels that lie one snapshot's behind the other's into their rows, `counts` of them in each."""
    is_there = np.arange(levels.shape[1]) < counts[:, None]
    for field in FIELDS:
        levels[field][is_there] = values[field]


def big_endian_levels(levels: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    """One side of snapshots as bytes, a row each: price, size and count of each level, 8 bytes each, big end first."""
    words = np.stack([levels[field] for field in FIELDS], axis=2).astype(">i8")
    return words.view(np.uint8).reshape(len(levels), -1)


def levels_of_bytes(text: bytes) -> dict[str, npt.NDArray[np.int64]]:
    """Levels from such bytes, in one run."""
    words = np.frombuffer(text, ">i8").reshape(-1, len(FIELDS)).astype(np.int64)
    return dict(zip(FIELDS, words.T, strict=True))
