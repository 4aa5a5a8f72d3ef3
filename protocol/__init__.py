"""The language of market-depth: instruments, events, messages and the rules of a connection. No I/O, no clock."""

from protocol.events import ORDER_EVENT, UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import SCALE, Instrument, decimal_text

__all__ = [
    "ORDER_EVENT",
    "SCALE",
    "UNDEF_PRICE",
    "Action",
    "Flag",
    "Instrument",
    "OrderEvents",
    "Side",
    "decimal_text",
    "order_events",
]
