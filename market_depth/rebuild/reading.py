"""Order events of a file, read and decompressed by a second thread while the caller works on those before.

Decompressing, reading and the book's kernels release the interpreter's lock, so the two threads take two cores.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.dbn_records import CHUNK_BYTES, Bytes
from protocol.events import OrderEvents

CHUNKS_AHEAD = 4
"""How many chunks are in memory, 0.9 MB each. More do not make the slower of the two threads any faster."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Order events, and how far the file was read with them."""

    events: OrderEvents
    bytes_read: int
    records_read: int
    memory: Bytes


def read_ahead(file: DbnFile) -> Generator[Chunk]:
    """The file's order events, chunk after chunk, none of them empty.

    The events of a chunk are gone when the next one is asked for: their memory is used again. Close the iterator, or
    read it to its end; then nothing reads from the file any more.
    Raises: FeedError, after everything before the damage.
    """

    def read(memory: Bytes) -> Chunk:
        return Chunk(file.read(memory), file.bytes_read, file.records_read, memory)

    thread = ThreadPoolExecutor(1, "read-ahead")
    try:
        ahead = deque(thread.submit(read, np.empty(CHUNK_BYTES, np.uint8)) for _ in range(CHUNKS_AHEAD))
        while len((chunk := ahead.popleft().result()).events):
            yield chunk
            ahead.append(thread.submit(read, chunk.memory))
    finally:
        thread.shutdown(cancel_futures=True)
