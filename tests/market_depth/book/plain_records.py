"""Snapshot records made from the plain books: what the compiled ones must equal byte for byte."""

import json

from protocol.events import Action, Flag, OrderEvents, Side
from tests.market_depth.book.plain_book import Level, PlainBook, PlainBooks

BookKey = tuple[int, int]
Sides = tuple[list[Level], list[Level]]


class PlainRecords:
    """Applies events to plain books and tells each change of the best levels."""

    def __init__(self, symbols: dict[int, str], levels: int) -> None:
        self.books = PlainBooks()
        self.symbols = symbols
        self.levels = levels
        self.last: dict[BookKey, Sides] = {}
        self.ends_are_flagged: set[BookKey] = set()

    def apply(self, events: OrderEvents) -> bytes:
        names = events.dtype.names
        assert names is not None
        return "".join(self.apply_one(dict(zip(names, row, strict=True))) for row in events.tolist()).encode()

    def apply_one(self, event: dict[str, int]) -> str:
        self.books.apply_one(event)
        if event["action"] not in list(Action):
            return ""
        key = event["instrument_id"], event["publisher_id"]
        if event["flags"] & Flag.LAST:
            self.ends_are_flagged.add(key)
        elif key in self.ends_are_flagged or event["flags"] & Flag.SNAPSHOT:
            return ""
        book = self.books.books[key]
        sides = best_levels(book, Side.BID, self.levels), best_levels(book, Side.ASK, self.levels)
        if self.last.get(key, ([], [])) == sides:
            return ""
        self.last[key] = sides
        return self.record(key, book, sides)

    def record(self, key: BookKey, book: PlainBook, sides: Sides) -> str:
        bids, asks = ([level_value(level) for level in side] for side in sides)
        record = {
            "symbol": self.symbols.get(key[0], str(key[0])),
            "publisher_id": key[1],
            "timestamp": str(book.ts_event),
            "timestamp_ns": book.ts_event,
            "bbo": {"bid": bids[0] if bids else None, "ask": asks[0] if asks else None},
            "levels": {"bids": bids, "asks": asks},
            "stats": {
                "total_orders": sum(len(queue) for side in book.sides.values() for queue in side.values()),
                "bid_levels": len(book.sides[Side.BID]),
                "ask_levels": len(book.sides[Side.ASK]),
            },
        }
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def best_levels(book: PlainBook, side: int, depth: int) -> list[Level]:
    return [
        (price, sum(order.size for order in book.sides[side][price]), len(book.sides[side][price]))
        for price in book.prices(side)[:depth]
    ]


def level_value(level: Level) -> dict[str, str | int]:
    price, size, count = level
    return {"price": str(price), "size": size, "count": count}
