"""Order events of a file, read and decompressed by a second thread while the caller works on those before.

Decompressing, reading and the book's kernels release the interpreter's lock, so the two threads take two cores.

    wanted ──► memory to read into ──► the thread reads ──► chunks ──► the caller
      ▲                                                                   │
      └───────────────────── when the next chunk is asked for ────────────┘
"""

from collections.abc import Generator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

import numpy as np

from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.dbn_records import CHUNK_BYTES, Bytes
from protocol.events import OrderEvents

CHUNKS_AHEAD = 3
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

    The events of a chunk are gone when the next one is asked for: their memory is used again. Close the generator, or
    read it to its end; then nothing reads from the file any more.
    Raises: FeedError, after everything before the damage.
    """
    # Plain queues: with futures the threads hand the interpreter's lock to and fro, half a millisecond a chunk.
    wanted: SimpleQueue[Bytes | None] = SimpleQueue()
    chunks: SimpleQueue[Chunk | Exception] = SimpleQueue()

    is_over = False

    def read() -> None:
        try:
            while (memory := wanted.get()) is not None and not is_over:
                chunks.put(Chunk(file.read(memory), file.bytes_read, file.records_read, memory))
        except Exception as error:  # noqa: BLE001 - raised in the caller's thread
            chunks.put(error)

    thread = Thread(target=read, name="read-ahead")
    thread.start()
    try:
        for _ in range(CHUNKS_AHEAD):
            wanted.put(np.empty(CHUNK_BYTES, np.uint8))
        while True:
            chunk = chunks.get()
            if isinstance(chunk, Exception):
                raise chunk
            if not len(chunk.events):
                break
            yield chunk
            wanted.put(chunk.memory)
    finally:
        is_over = True  # the thread may be about to read: then it reads one more chunk, for nobody
        wanted.put(None)
        thread.join()
