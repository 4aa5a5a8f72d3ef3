"""What the store holds, over HTTP: best bids and offers, snapshots, sessions.

Reads run in threads, READERS at a time; what does not fit into memory is read and sent part by part. Prices and quantities
are exact decimal text, times RFC 3339 with nanoseconds, and what is not there is null.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from http import HTTPStatus
from json import JSONEncoder, loads
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
import trio
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from market_depth.server.instant import Instant
from market_depth.store.base import (
    MAX_HISTORY_ROWS,
    MIN_TS,
    Selection,
    SessionState,
    StoreError,
    all_snapshots,
)
from market_depth.store.rows import BBO_ROW, MAX_TS, Found, Series, check_text, stored_times
from market_depth.store.snapshot_text import snapshot_lines
from market_depth.store.texts import bbo_texts, objects, time_texts
from protocol.events import UNDEF_PRICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from market_depth.server.about import ServedFeed
    from market_depth.server.exposition import ServedStore
    from market_depth.store.base import Store, StoredSession
    from market_depth.stream.market import Market

READERS = 4
"""Reads at a time: more would take the writer's turn, and not be faster on a disk of one."""

DEFAULT_HISTORY_ROWS = 2_000

CHUNK_BYTES = 64 * 1024
"""A download is sent in pieces no smaller than this."""

PART_SNAPSHOTS = 5_000
"""Read at once for a download: 6 MB of text. Half as many take longer by a third."""

NDJSON = "application/x-ndjson"

encoded_symbol = lru_cache(maxsize=1024)(JSONEncoder(ensure_ascii=False).encode)

Answer = TypeVar("Answer")


class BestBidAndOffer(BaseModel):
    """The best price level of each side; null where a side is empty."""

    ts: str
    symbol: str
    best_bid_px: str | None
    best_bid_sz: str | None
    best_ask_px: str | None
    best_ask_sz: str | None
    mid: str | None
    spread: str | None


class Range(BaseModel):
    """How much best bid and offer is stored of a symbol, from when, until when."""

    start_ts: str
    end_ts: str
    rows: int


class Session(BaseModel):
    """A feed's or a file's way into the store."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    source: str
    """The file's name, or the feed's."""
    state: Literal["processing", "completed", "failed"]
    progress: float | None
    """1 when it is completed; null while nobody knows how much there is to come."""
    created: str
    ended: str | None
    error: str | None
    symbols: list[str]
    bbo_rows: int
    snapshots: int
    trades: int
    statistics: dict[str, Any] | None


class Stored:
    """The routes that read the store."""

    def __init__(self, feeds: Sequence[ServedFeed], store: ServedStore) -> None:
        self._market_of = {symbol: feed.market for feed in feeds for symbol in feed.market.instruments}
        self._store = store
        self._readers = trio.CapacityLimiter(READERS)

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["store"])

        @router.get(
            "/api/latest", summary="The best bid and offer now; of what is not served, the last one stored"
        )
        async def latest(symbol: str) -> BestBidAndOffer:
            market = self._market_of.get(symbol)
            found = None if market is None or not market.is_open else found_now(market, symbol)
            if found is None:
                found = await self._read(lambda store: store.latest(stored_name(symbol)))
                if not len(found):
                    raise nothing_of(symbol)
            return BestBidAndOffer.model_validate(loads(bbo_json(found))[0])

        @router.get("/api/range", summary="How much best bid and offer is stored")
        async def extent(symbol: str) -> Range:
            found = await self._read(lambda store: store.extent(stored_name(symbol)))
            if found is None:
                raise nothing_of(symbol)
            return Range(start_ts=time_text(found.start_ts), end_ts=time_text(found.end_ts), rows=found.rows)

        @router.get(
            "/api/history",
            summary="Stored best bids and offers, in the order of time",
            response_class=Response,
            responses={200: {"model": list[BestBidAndOffer]}},
        )
        async def history(
            symbol: str,
            start: Instant | None = None,
            end: Instant | None = None,
            limit: Annotated[int, Query(ge=1, le=MAX_HISTORY_ROWS)] = DEFAULT_HISTORY_ROWS,
            session_id: str | None = None,
        ) -> Response:
            selection = selected(session_id, symbol, start, end)

            def read(store: Store) -> bytes:
                found = store.bbo(selection, limit)
                if not len(found) and store.extent(symbol) is None:
                    raise nothing_of(symbol)
                return bbo_json(found)

            return Response(await self._read(read), media_type="application/json")

        @router.get(
            "/api/feed",
            summary="Stored snapshots as NDJSON, a snapshot record a line",
            response_class=Response,
            responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
        )
        async def feed(
            request: Request,
            symbol: str | None = None,
            session_id: str | None = None,
            start: Instant | None = None,
            end: Instant | None = None,
        ) -> Response:
            return await self._download(request, selected(session_id, symbol, start, end), "feed.ndjson")

        @router.get(
            "/download/json",
            summary="A session's snapshots as NDJSON",
            response_class=Response,
            responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
        )
        async def download(request: Request, session_id: str) -> Response:
            return await self._download(
                request, selected(session_id, None, None, None), f"{session_id}.ndjson"
            )

        @router.get("/api/sessions", summary="The newest sessions, newest first")
        async def sessions(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Session]:
            return [told(session) for session in await self._read(lambda store: store.sessions(limit))]

        @router.get("/api/sessions/{session_id}", summary="A session")
        async def session(session_id: str) -> Session:
            return told(await self._read(partial(known_session, session_id=session_id)))

        return router

    async def _read(self, read: Callable[[Store], Answer]) -> Answer:
        """What is read from the store, in a thread. Raises: HTTPException 503."""
        store = self._store.store
        if store is None:
            state = self._store.status()["state"]
            why = "the store is not open yet" if state == "opening" else "this server keeps nothing"
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, why)
        try:
            return await trio.to_thread.run_sync(read, store, limiter=self._readers)
        except StoreError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error

    async def _download(self, request: Request, selection: Selection, name: str) -> Response:
        """Stored snapshots as an attachment. What can go wrong at the start is told before anything is sent."""

        def begin(store: Store) -> Iterator[bytes]:
            if selection.session_id is not None:
                known_session(store, selection.session_id)
            if selection.symbol is not None and store.extent(selection.symbol) is None:
                raise nothing_of(selection.symbol)
            return lines_in_chunks(store, selection)

        chunks = await self._read(begin)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        if request.scope.get("is_head"):
            return Response(media_type=NDJSON, headers=headers)
        first = await self._read(lambda _store: next(chunks, b""))

        async def body() -> AsyncIterator[bytes]:
            chunk = first
            while chunk:
                yield chunk
                chunk = await self._read(lambda _store: next(chunks, b""))

        return StreamingResponse(body(), media_type=NDJSON, headers=headers)


def lines_in_chunks(store: Store, selection: Selection) -> Iterator[bytes]:
    """Snapshot records in pieces of CHUNK_BYTES or more, but for the last one."""
    piece = b""
    for found in all_snapshots(store, selection, PART_SNAPSHOTS):
        piece += snapshot_lines(found)
        if len(piece) >= CHUNK_BYTES:
            yield piece
            piece = b""
    if piece:
        yield piece


def found_now(market: Market, symbol: str) -> Found:
    """A served symbol's best bid and offer, as if it were stored."""
    best, ts_event = market.best_bid_offer(symbol)
    row = np.zeros(1, BBO_ROW)
    row["ts_event"] = stored_times(np.array([ts_event], np.uint64))
    for side, level in (("bid", best.bid), ("ask", best.ask)):
        row[f"best_{side}_px"] = UNDEF_PRICE if level is None else level.price
        row[f"best_{side}_sz"] = 0 if level is None else level.size
    return Found(row, np.zeros(1, np.int64), {0: Series(market.instruments[symbol])})


def bbo_json(found: Found) -> bytes:
    """Best bids and offers as a list of `BestBidAndOffer` in JSON."""
    columns = bbo_texts(found)
    columns["symbol"] = objects((encoded_symbol(text) for text in columns["symbol"]), len(found))
    # Texts of numbers and times have nothing to escape: put together, they take a third of an encoder's time.
    quoted = (
        values if name == "symbol" else ("null" if text is None else f'"{text}"' for text in values)
        for name, values in columns.items()
    )
    line = "{" + ",".join(f'"{name}":%s' for name in columns) + "}"
    return f"[{','.join(map(line.__mod__, zip(*quoted, strict=True)))}]".encode()


def selected(session_id: str | None, symbol: str | None, start: int | None, end: int | None) -> Selection:
    """What a query asks for. Raises: HTTPException 404, 422."""
    first = MIN_TS if start is None else max(MIN_TS, min(start, MAX_TS))
    last = MAX_TS if end is None else max(MIN_TS, min(end, MAX_TS))
    if first > last:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "end: lies before start")
    return Selection(
        None if session_id is None else stored_name(session_id, "session"),
        None if symbol is None else stored_name(symbol),
        first,
        last,
    )


def stored_name(text: str, what: str = "symbol") -> str:
    """The text, if a store can know it. Raises: HTTPException 404."""
    try:
        check_text(text)
    except ValueError:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no {what} {text!r}") from None
    return text


def plain_name(text: str) -> str:
    """The text as it may stand in a header and be a file's name anywhere."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)


def known_session(store: Store, session_id: str) -> StoredSession:
    """Raises: HTTPException 404."""
    found = store.session(stored_name(session_id, "session"))
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no session {session_id!r}")
    return found


def nothing_of(symbol: str) -> HTTPException:
    """What is raised where there is nothing to tell."""
    return HTTPException(HTTPStatus.NOT_FOUND, f"nothing of {symbol!r} is stored")


def told(session: StoredSession) -> Session:
    """A session as clients see it."""
    return Session(
        id=session.id,
        source=session.source,
        state=session.state.value,
        progress=1 if session.state is SessionState.COMPLETED else None,
        created=time_text(session.created_ns),
        ended=None if session.ended_ns is None else time_text(session.ended_ns),
        error=session.error,
        symbols=sorted({series.instrument.symbol for series in session.series}),
        bbo_rows=session.bbo_rows,
        snapshots=session.snapshot_rows,
        trades=session.trade_rows,
        statistics=None if session.statistics is None else loads(session.statistics),
    )


def time_text(ns: int) -> str:
    """Such as 2026-11-20T16:41:03.000250001Z."""
    return str(time_texts(np.array([ns], np.int64))[0])
