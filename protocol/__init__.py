"""The language of market-depth: instruments, events, messages and the rules of a connection. No I/O, no clock.

Messages, codecs and the session are imported from their modules, so that a book or a feed does not load pydantic.
"""

from protocol.events import (
    ORDER_EVENT,
    RESTING_ORDER,
    UNDEF_PRICE,
    Action,
    Flag,
    OrderEvents,
    RestingOrders,
    Side,
    order_events,
)
from protocol.instrument import SCALE, Instrument, decimal_text

__all__ = [
    "ORDER_EVENT",
    "RESTING_ORDER",
    "SCALE",
    "UNDEF_PRICE",
    "Action",
    "Flag",
    "Instrument",
    "OrderEvents",
    "RestingOrders",
    "Side",
    "decimal_text",
    "order_events",
]
