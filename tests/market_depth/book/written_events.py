"""Events and books as short text, so that a table of cases can be read.

An event is `action order_id side price size [flags]`, several are separated by `;`: `"A 1 B 100 5; C 1 B 100 2"`. A price
of `-` is DBN's undefined price, the flags are letters: `T` top of book, `L` last,
`S` snapshot. A book's side is its levels, best first, with their queues, front first: `"100: 1x3 2x5 | 99: 4x1"`.
"""

from itertools import groupby

from market_depth.book.engine import BookEngine
from market_depth.book.views import resting_orders
from protocol.events import UNDEF_PRICE, Flag, OrderEvents, Side, order_events

INSTRUMENT = 1
PUBLISHER = 1
ALL = 1 << 30
"""A depth that no book reaches."""

FLAGS = {"T": Flag.TOB, "L": Flag.LAST, "S": Flag.SNAPSHOT}


def written(text: str, *, publisher_id: int = PUBLISHER, instrument_id: int = INSTRUMENT) -> OrderEvents:
    """The events that a text tells of; the first happens at 1 ns, each later one a nanosecond after."""
    lines = [line.split() for line in text.split(";") if line.strip()]
    events = order_events(len(lines))
    events["publisher_id"] = publisher_id
    events["instrument_id"] = instrument_id
    for number, (event, (action, order_id, side, price, size, *flags)) in enumerate(
        zip(events, lines, strict=True)
    ):
        event["ts_event"] = event["ts_recv"] = number + 1
        event["action"], event["side"] = ord(action), ord(side)
        event["order_id"], event["size"] = int(order_id), int(size)
        event["price"] = UNDEF_PRICE if price == "-" else int(price)
        event["flags"] = sum(FLAGS[letter] for letter in "".join(flags))
    return events


def side_text(engine: BookEngine, side: Side, instrument_id: int = INSTRUMENT) -> str:
    """One side of an instrument as text."""
    orders = resting_orders(engine, instrument_id, side, ALL).tolist()
    return " | ".join(
        f"{price}: " + " ".join(f"{order_id}x{size}" for order_id, _, size, _ in queue)
        for price, queue in groupby(orders, key=lambda order: order[1])
    )
