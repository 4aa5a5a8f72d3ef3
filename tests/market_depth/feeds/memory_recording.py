"""A recording that needs no disk and no thread."""

from collections.abc import Iterator

import numpy as np

from market_depth.feeds.base import FeedError
from market_depth.feeds.recording import Place
from protocol.events import ORDER_EVENT, OrderEvents
from protocol.instrument import SCALE, Instrument


class MemoryRecording:
    """Chunks, and an error after them if one is given. It counts what is read, and takes two steps to any place."""

    name = "memory"
    blocks = False

    def __init__(self, *chunks: OrderEvents, damage: FeedError | None = None) -> None:
        self.instruments = [Instrument("ACME", "TEST.MBO", 7, SCALE // 100)]
        self.start_ns = int(chunks[0]["ts_recv"][0]) if chunks else 0
        self.is_closed = False
        self.records_read = 0
        self._chunks = chunks
        self._damage = damage
        self._next = 0

    @property
    def size_bytes(self) -> int:
        return sum(chunk.nbytes for chunk in self._chunks)

    @property
    def bytes_read(self) -> int:
        return sum(chunk.nbytes for chunk in self._chunks[: self._next])

    def read(self) -> OrderEvents:
        if self._next < len(self._chunks):
            self._next += 1
            self.records_read += len(self._chunks[self._next - 1])
            return self._chunks[self._next - 1].copy()
        if self._damage:
            raise self._damage
        return np.empty(0, ORDER_EVENT)

    def place(self) -> Place:
        return Place(self._next)

    def go_to(self, place: Place) -> Iterator[None]:
        self._next = -1
        yield
        self._next = place.offset

    def close(self) -> None:
        self.is_closed = True
