"""Which books there are events of, and what clears all of them."""

import numpy as np

from market_depth.book.clears import clears
from protocol.events import ORDER_EVENT, OrderEvents


class BooksSeen:
    """The books, one for each (instrument, publisher), that events were noted of."""

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def note(self, events: OrderEvents) -> None:
        """Remember the books of `events`."""
        # The first eight bytes of each row as one integer: instrument id, publisher id, and what all rows share.
        headers = events.view("<u8").reshape(len(events), ORDER_EVENT.itemsize // 8)[:, 0]
        self._keys.update((np.unique(headers) >> 16).tolist())

    def clears(self, ts_ns: int) -> OrderEvents:
        """A Clear for every book seen, by instrument id and publisher: a snapshot that leaves all of them empty."""
        return clears(np.array(sorted(self._keys), np.int64), ts_ns)
