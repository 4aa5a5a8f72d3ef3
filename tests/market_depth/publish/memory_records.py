"""Records that need no file."""

import numpy as np

from market_depth.feeds.base import FeedError
from market_depth.publish.playback import OpenRecords
from protocol.events import ORDER_EVENT, OrderEvents


class MemoryRecords:
    """Chunks, and an error after them if one is given."""

    blocks = False

    def __init__(self, *chunks: OrderEvents, damage: FeedError | None = None) -> None:
        self.start_ns = int(chunks[0]["ts_recv"][0]) if chunks else 0
        self.is_closed = False
        self._chunks = iter(chunks)
        self._damage = damage

    def read(self) -> OrderEvents:
        chunk = next(self._chunks, None)
        if chunk is None and self._damage:
            raise self._damage
        return np.empty(0, ORDER_EVENT) if chunk is None else chunk

    def close(self) -> None:
        self.is_closed = True


def records(*chunks: OrderEvents, damage: FeedError | None = None) -> OpenRecords:
    """Opens them anew each time."""

    async def open_records() -> MemoryRecords:
        return MemoryRecords(*chunks, damage=damage)

    return open_records
