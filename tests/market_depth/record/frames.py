"""Frames of order-level books for tests: from a few words, from a generator, and back from an engine."""

from typing import NamedTuple

import numpy as np

from market_depth.book.engine import BookEngine
from market_depth.book.views import resting_orders
from protocol.codecs import decode_answer, market_data_body, market_data_head, resting_orders_text
from protocol.events import RESTING_ORDER, RestingOrders, Side
from protocol.instrument import SCALE, Instrument
from protocol.messages import MarketData
from protocol.timestamp import NS_PER_S
from tests.market_depth.feeds.dbn_files import START_NS

ACME = Instrument("ACME", "SERVER", 7, SCALE // 4, SCALE // 1000)


class Resting(NamedTuple):
    """One order of a book."""

    number: int
    ticks: int  # bids below zero, asks above
    lots: int
    placed_s: int = 0


def frame_of(
    bids: RestingOrders, asks: RestingOrders, sequence: int, now_ns: int, instrument: Instrument = ACME
) -> MarketData:
    """The frame that a server sends of this book, by way of its JSON text."""
    text = resting_orders_text(instrument, bids, asks, now_ns)
    body = market_data_body(instrument.symbol, sequence, now_ns, text)
    return decoded((market_data_head(instrument.symbol) + body).decode())


def decoded(text: str) -> MarketData:
    """The frame of this text."""
    frame = decode_answer(text)
    assert isinstance(frame, MarketData)
    return frame


def frame_text(stream_id: str, *orders: Resting, sequence: int = 1, at_s: float = 60) -> str:
    """What a server sends of these orders, so many seconds after START_NS."""
    now_ns = START_NS + round(at_s * NS_PER_S)
    body = market_data_body(ACME.symbol, sequence, now_ns, resting_orders_text(ACME, *book(*orders), now_ns))
    return (market_data_head(stream_id) + body).decode()


def book(*orders: Resting) -> tuple[RestingOrders, RestingOrders]:
    """Bids and asks as a server shows them; the orders of a level stand in the order in which they are given."""
    sides = []
    for is_ask in (False, True):
        queued = sorted((o for o in orders if (o.ticks > 0) is is_ask), key=lambda order: abs(order.ticks))
        rows = [
            (o.number, (1000 + o.ticks) * ACME.tick_size, o.lots, START_NS + o.placed_s * NS_PER_S)
            for o in queued
        ]
        sides.append(np.array(rows, RESTING_ORDER))
    return sides[0], sides[1]


def frame(*orders: Resting, sequence: int = 1, at_s: float = 60) -> MarketData:
    """The same as a client reads it."""
    return decoded(frame_text(ACME.symbol, *orders, sequence=sequence, at_s=at_s))


def shown(engine: BookEngine, instrument: Instrument = ACME) -> list[list[tuple[int, ...]]]:
    """Every order of an engine's book, in queue order: number, price, size, time; bids, then asks."""
    return [
        resting_orders(engine, instrument.instrument_id, side, 100_000).tolist()
        for side in (Side.BID, Side.ASK)
    ]


def rows(*sides: RestingOrders) -> list[list[tuple[int, ...]]]:
    """The same of a book by itself."""
    return [side.tolist() for side in sides]


def random_books(seed: int, count: int) -> list[tuple[RestingOrders, RestingOrders]]:
    """Books of few orders, prices and sizes, so that everything happens to them; most resemble the one before."""
    rng = np.random.default_rng(seed)
    orders: list[Resting] = []
    books = []
    for now_s in range(count):
        match rng.integers(0, 8):
            case 0:
                orders = []
            case 1:
                rng.shuffle(orders)
        for _ in range(rng.integers(0, 6)):
            number = int(rng.integers(1, 12))
            kept = [order for order in orders if order.number != number]
            place = int(rng.integers(0, len(kept) + 1))
            ticks = int(rng.choice([-3, -2, -1, 1, 2, 3]))
            match rng.integers(0, 4):
                case 0:
                    orders = kept
                case 1:  # anywhere in a queue, as no market does it
                    kept.insert(
                        place, Resting(number, ticks, int(rng.integers(1, 5)), int(rng.integers(0, 3)))
                    )
                    orders = kept
                case 2:
                    orders = [
                        o._replace(lots=int(rng.integers(1, 5))) if o.number == number else o for o in orders
                    ]
                case 3:
                    orders = [*kept, Resting(number, ticks, int(rng.integers(1, 5)), now_s)]
        books.append(book(*orders))
    return books
