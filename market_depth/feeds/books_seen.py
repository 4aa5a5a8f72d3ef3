"""Which books there are events of, and what clears all of them."""

import numpy as np

from protocol.events import ORDER_EVENT, UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events


class BooksSeen:
    """The books, one for each (instrument, publisher), that events were noted of."""

    def __init__(self) -> None:
        self._headers: set[int] = set()

    def note(self, events: OrderEvents) -> None:
        """Remember the books of `events`."""
        self._headers.update(np.unique(_headers(events)).tolist())

    def clears(self, ts_ns: int) -> OrderEvents:
        """A Clear for every book seen, by instrument id and publisher: a snapshot that leaves all of them empty.

        They are one event of the time `ts_ns`, with the flag SNAPSHOT; the last one has LAST.
        """
        events = order_events(len(self._headers))
        _headers(events)[:] = sorted(self._headers)
        events["ts_event"] = events["ts_recv"] = ts_ns
        events["price"] = UNDEF_PRICE
        events["action"] = Action.CLEAR
        events["side"] = Side.NONE
        events["flags"] = Flag.SNAPSHOT
        events["flags"][-1:] = Flag.SNAPSHOT | Flag.LAST
        return events


def _headers(events: OrderEvents) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """The first eight bytes of each row as one integer: instrument id, publisher id, and what all rows share."""
    return events.view("<u8").reshape(len(events), ORDER_EVENT.itemsize // 8)[:, 0]
