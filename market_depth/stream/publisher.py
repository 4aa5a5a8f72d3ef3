"""From books to `MarketData`: each distinct (symbol, data type, depth) is encoded once, however many receive it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from protocol.codecs import market_data_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from market_depth.stream.market import Market
    from protocol.messages import DataType

REUSE_S = 0.01
"""How old a body may be and still serve a new subscriber: under a storm of subscriptions a book is encoded at most a
hundred times a second, and nobody starts with anything older than that."""


class Topic(NamedTuple):
    """What streams with equal content have in common."""

    symbol: str
    data_type: DataType
    max_levels: int


class Publisher:
    """The current body of every topic that somebody asks for."""

    def __init__(self, markets: Iterable[Market]) -> None:
        self._markets: Mapping[str, Market] = {
            symbol: market for market in markets for symbol in market.instruments
        }
        self._bodies: dict[Topic, tuple[float, bytes]] = {}

    def body(self, topic: Topic, now: float, max_age_s: float) -> bytes | None:
        """The topic's `MarketData` without its stream id, at most `max_age_s` old; None while its market is not open.

        `now` is in seconds of a clock that never goes back.
        """
        made = self._bodies.get(topic)
        if made is not None and now - made[0] <= max_age_s:
            return made[1]
        market = self._markets[topic.symbol]
        if not market.is_open:
            return None
        body = market_data_body(
            topic.symbol,
            market.sequence(topic.symbol),
            market.market_time(),
            market.book_text(topic.symbol, topic.data_type, topic.max_levels),
        )
        self._bodies[topic] = (now, body)
        return body

    def forget(self, topic: Topic) -> None:
        """Drop a topic's body, when nobody receives it any more."""
        self._bodies.pop(topic, None)
