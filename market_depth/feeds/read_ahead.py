"""A recording whose next chunks are read by a thread of their own while the caller works on those before.

Reading, decompressing and the book's kernels release the interpreter's lock, so the two take two cores.

    wanted ──► the thread reads ──► chunks ──► the caller
      ▲                                          │
      └────── when a chunk has been taken ───────┘
"""

from __future__ import annotations

from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from market_depth.feeds.recording import Place, Recording
    from protocol.events import OrderEvents
    from protocol.instrument import Instrument

CHUNKS_AHEAD = 2
"""More do not make the slower of the two any faster."""

CHUNKS_IN_USE = CHUNKS_AHEAD + 1
"""With the one that the caller works on: who takes each chunk for gone when it asks for the next one may have their
memory used again (`DbnFile.use_memory_again`)."""


class _Chunk(NamedTuple):
    """What one `read` gave, and where the recording stood afterwards: behind damage, at it."""

    result: OrderEvents | Exception
    place: Place
    bytes_read: int

    @property
    def is_last(self) -> bool:
        """Whether every later `read` would give the same."""
        return isinstance(self.result, Exception) or not len(self.result)


class ReadAhead:
    """The same recording, as seen by one who reads one chunk after the other. Close it: the thread ends with that."""

    blocks = True

    def __init__(self, recording: Recording) -> None:
        """The recording is from now on this object's alone."""
        self.name = recording.name
        self.start_ns = recording.start_ns
        self.size_bytes = recording.size_bytes
        self.bytes_read = recording.bytes_read
        self._recording = recording
        self._place = recording.place()
        self._reader: _Reader | None = None
        self._last: _Chunk | None = None

    @property
    def instruments(self) -> Sequence[Instrument]:
        """As the recording's own."""
        return self._recording.instruments

    def read(self) -> OrderEvents:
        """As the recording's own."""
        if self._last is None:
            if self._reader is None:
                self._reader = _Reader(self._recording)
            chunk = self._reader.next()
            self._place, self.bytes_read = chunk.place, chunk.bytes_read
            if not chunk.is_last:
                assert not isinstance(chunk.result, Exception)
                return chunk.result
            self._last = chunk
        if isinstance(self._last.result, Exception):
            raise self._last.result
        return self._last.result

    def place(self) -> Place:
        """As the recording's own."""
        return self._place

    def go_to(self, place: Place) -> Iterator[None]:
        """As the recording's own."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
        self._last = None
        yield from self._recording.go_to(place)
        self._place, self.bytes_read = place, self._recording.bytes_read

    def close(self) -> None:
        """Let go of the file, as soon as the thread has read what it is reading. Closing again does nothing."""
        if self._reader is None:
            self._recording.close()
        else:
            self._reader.leave()


class _Reader:
    """The thread, from one place to the next."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._closes = False
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._chunks: SimpleQueue[_Chunk] = SimpleQueue()
        for _ in range(CHUNKS_AHEAD):
            self._wanted.put(True)
        # A daemon: a program that forgets to close a feed should still end.
        self._thread = Thread(target=self._run, name=f"read-ahead {recording.name}", daemon=True)
        self._thread.start()

    def next(self) -> _Chunk:
        """The next chunk. Only now that it is asked for, the one before may be overwritten."""
        chunk = self._chunks.get()
        self._wanted.put(True)
        return chunk

    def stop(self) -> None:
        """End the thread, and wait until it has read what it is reading."""
        self._wanted.put(False)
        self._thread.join()

    def leave(self) -> None:
        """End the thread without waiting; it closes the recording."""
        self._closes = True
        self._wanted.put(False)
        if not self._thread.is_alive():
            self._recording.close()

    def _run(self) -> None:
        recording = self._recording
        result: OrderEvents | Exception
        while self._wanted.get() and not self._closes:
            try:
                result = recording.read()
            except Exception as error:  # noqa: BLE001 - raised in the caller's thread
                result = error
            self._chunks.put(_Chunk(result, recording.place(), recording.bytes_read))
        if self._closes:
            recording.close()
