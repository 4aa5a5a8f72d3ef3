"""What empties books: the beginning of every snapshot. It needs no kernels, and loads none."""

from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events


def clears(keys: npt.NDArray[np.integer[Any]], ts_ns: int) -> OrderEvents:
    """A Clear for each book: the snapshot that leaves all of them empty.

    `keys` are the books', instrument id × 2**16 + publisher id. `ts_ns` dates all of them, in ns since the epoch. They
    are one event: all carry the flag SNAPSHOT, the last one LAST.
    """
    events = order_events(len(keys))
    events["instrument_id"] = keys >> 16
    events["publisher_id"] = keys & 0xFFFF
    events["ts_event"] = events["ts_recv"] = ts_ns
    events["price"] = UNDEF_PRICE
    events["action"] = Action.CLEAR
    events["side"] = Side.NONE
    events["flags"] = Flag.SNAPSHOT
    events["flags"][-1:] = Flag.SNAPSHOT | Flag.LAST
    return events
