"""Instruments and their books now, over HTTP."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

import trio
from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from market_depth.stream.publisher import REUSE_S, Topic
from protocol.instrument import decimal_text
from protocol.messages import DATA_TYPES, DEFAULT_LEVELS, MAX_LEVELS, DataType, PriceLevels, RestingOrders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from market_depth.server.about import ServedFeed
    from market_depth.stream.publisher import Publisher


class SymbolStatus(BaseModel):
    """An instrument."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    symbol: str
    venue: str
    source: str
    """`simulated`, `replay` or `live`."""
    tick_size: str
    """The smallest price step, as exact decimal text."""
    lot_size: str
    price_precision: int
    """Decimals of a price."""
    quantity_precision: int
    mbo: bool
    """Whether the book is served by order, too."""


class OrderBook(BaseModel):
    """A book as a `MarketData` frame has it."""

    symbol: str
    sequence: int
    timestamp: str
    data: Annotated[PriceLevels | RestingOrders, Field(discriminator="format")]


def book_router(feeds: Sequence[ServedFeed], publisher: Publisher) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["books"])
    source_of = {symbol: feed for feed in feeds for symbol in feed.market.instruments}

    @router.get("/api/symbols", summary="The instruments")
    async def symbols() -> list[SymbolStatus]:
        return [
            SymbolStatus(
                symbol=instrument.symbol,
                venue=instrument.venue,
                source=feed.status()["source"],
                tick_size=decimal_text(instrument.tick_size),
                lot_size=decimal_text(instrument.lot_size),
                price_precision=instrument.price_precision,
                quantity_precision=instrument.quantity_precision,
                mbo="MBO" in DATA_TYPES,
            )
            for feed in feeds
            for instrument in feed.market.instruments.values()
        ]

    @router.get(
        "/api/order-book",
        summary="A book now",
        response_class=Response,
        responses={200: {"model": OrderBook}},
    )
    async def order_book(
        symbol: str,
        levels: Annotated[int, Query(ge=1, le=MAX_LEVELS)] = DEFAULT_LEVELS,
        data_type: DataType = "MBP",
    ) -> Response:
        if symbol not in source_of:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"symbol {symbol!r} is not served")
        topic = Topic(symbol, data_type, levels)
        body = publisher.body(topic, trio.current_time(), REUSE_S)
        # Kept for nobody: if streams have this topic, too, their next round makes a newer one anyway.
        publisher.forget(topic)
        if body is None:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"{symbol} has no book yet")
        return Response(b"{" + body.removeprefix(b","), media_type="application/json")

    return router
