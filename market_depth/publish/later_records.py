"""A recording without its beginning."""

from collections.abc import Sequence

import numpy as np

from market_depth.feeds.replay import Recording
from protocol.events import ORDER_EVENT, OrderEvents
from protocol.instrument import Instrument


class LaterRecords:
    """A Recording from the first record whose `ts_event` is `from_ns` (ns since the epoch) or later.

    From there on all records follow, as in a gateway's own playback. Their books lack what rested before.
    """

    def __init__(self, recording: Recording, from_ns: int) -> None:
        """Reads up to there. Raises: FeedError; then, and later by `close`, `recording` is closed."""
        self._recording = recording
        self._from_ns = from_ns
        try:
            self._next: OrderEvents | None = self._first()
        except BaseException:
            recording.close()
            raise
        self.start_ns = int(self._next["ts_recv"][0]) if len(self._next) else recording.start_ns

    @property
    def name(self) -> str:
        return self._recording.name

    @property
    def instruments(self) -> Sequence[Instrument]:
        return self._recording.instruments

    @property
    def blocks(self) -> bool:
        return self._recording.blocks

    def read(self) -> OrderEvents:
        if self._next is not None:
            events, self._next = self._next, None
            return events
        return self._recording.read()

    def rewind(self) -> None:
        self._recording.rewind()
        self._next = self._first()

    def close(self) -> None:
        self._recording.close()

    def _first(self) -> OrderEvents:
        while len(events := self._recording.read()):
            late = np.flatnonzero(events["ts_event"] >= self._from_ns)
            if len(late):
                return events[late[0] :]
        return np.empty(0, ORDER_EVENT)
