"""A live gateway as a feed: its order events as they come, for ever.

    waiting ──► running ⇄ stale        the connection is lost, or there again
                   ├──────► completed  the gateway said that its recording is over, and closed
                   └──────► closed     aclose() was called first

A lost connection is opened again after a pause. What was missed meanwhile cannot be known, so the first batch then
clears all books, as the beginning of a snapshot, and what the gateway sends fills them. Until then the last books
stand, and the feed is stale.

The socket is read when a batch is asked for and none is at hand: who takes long makes the gateway wait, and nothing
piles up here.
"""

import logging
import random
from typing import Self

import numpy as np
import trio

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError, FeedState, Source
from market_depth.feeds.books_seen import BooksSeen
from market_depth.feeds.dbn_decoding import REPLAY_COMPLETED, RTYPE_ERROR, SKIPPED_RECORDS, Decoded, Notice
from market_depth.feeds.dbn_instruments import instruments_in
from market_depth.feeds.gateway_client import RefusedError
from market_depth.feeds.gateway_connection import GatewayConnection, GatewayLostError, OpenStream
from market_depth.feeds.gateway_text import END_OF_RECORDING
from market_depth.feeds.gateway_url import GatewayUrl
from market_depth.feeds.pending import PendingEvents
from protocol.events import ORDER_EVENT, Flag, OrderEvents
from protocol.instrument import Instrument

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

OPEN_TIMEOUT_S = 15.0
"""How long the first connection may take, with the instruments that come over it."""

SAMPLE_S = 1.0
"""How long records are gathered then, for what their prices tell about tick sizes, unless many come sooner."""

NO_TIME = 2**64 - 1


class TcpFeed:
    """A Feed of what a gateway sends. Its instruments are those that the gateway names in the beginning.

    Their venue is the dataset, their tick sizes are inferred from the first records' prices as `instruments_in` tells.
    When the gateway later gives a symbol to another instrument id, its events keep the id that they had; events of
    what has none of the symbols are left out.
    """

    source: Source = "live"

    def __init__(self, url: GatewayUrl, key: str, open_stream: OpenStream, jitter: random.Random) -> None:
        """Not connected yet: call `open`."""
        self.name = url.text
        self.instruments: tuple[Instrument, ...] = ()
        self.state = FeedState.WAITING
        self.left_out = 0
        """How many order events were dropped because of none of the instruments."""
        self._url = url
        self._key = key
        self._open_stream = open_stream
        self._jitter = jitter
        self._connection: GatewayConnection | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._complaint = ""  # what the gateway last said was wrong: the reason, if it closes then
        self._is_at_end = False
        self._symbols: dict[int, str] = {}  # by the gateway's instrument ids
        self._own_ids: dict[int, int] = {}  # by the gateway's instrument ids
        self._own_ids_by_symbol: dict[str, int] = {}
        self._pending = PendingEvents()
        self._books = BooksSeen()
        self._clears = np.empty(0, ORDER_EVENT)
        self._market_time_ns = 0

    @classmethod
    async def open(
        cls,
        url: GatewayUrl,
        key: str = "",
        *,
        open_stream: OpenStream = trio.open_tcp_stream,
        jitter: random.Random | None = None,
    ) -> Self:
        """A feed that is connected and knows its instruments. `key`: of which the gateway wants proof.

        A gateway that cannot be reached is tried again for OPEN_TIMEOUT_S.
        Raises: FeedError, at once when the gateway refuses what is asked.
        """
        feed = cls(url, key, open_stream, jitter or random.Random())
        logger.info("connecting feed=%s timeout_s=%g", url.text, OPEN_TIMEOUT_S)
        try:
            with trio.move_on_after(OPEN_TIMEOUT_S):
                await feed._begin()
                return feed
        except RefusedError as error:
            await feed._disconnect()
            raise FeedError(url.text, f"the gateway refused: {error}", "check the key and the URL") from error
        except BaseException:
            await feed._disconnect()
            raise
        await feed._disconnect()
        raise FeedError(
            url.text,
            feed._complaint or f"the gateway named no instruments within {OPEN_TIMEOUT_S:g} s",
            "check that it runs there and has what is asked for",
        )

    def market_time(self) -> int:
        return self._market_time_ns

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        await trio.lowlevel.checkpoint()
        if self.state is FeedState.WAITING:
            self.state = FeedState.RUNNING
        while self._is_open():
            if len(self._clears):
                return self._next_clears()
            if self._pending.has_batch():
                return self._next_batch()
            try:
                await self._go_on()
            except GatewayLostError as error:
                if self._is_at_end:
                    break
                await self._lose(self._complaint or str(error))
            except RefusedError as error:
                # Not for ever: somebody may be changing the gateway's key or file.
                await self._lose(f"the gateway refused: {error}")
            except trio.ClosedResourceError:
                break  # by aclose
        if self._is_open() and len(self._pending):
            return self._next_batch()
        await self._end(FeedState.COMPLETED)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._end(FeedState.CLOSED)

    def _is_open(self) -> bool:
        return self.state in (FeedState.WAITING, FeedState.RUNNING, FeedState.STALE)

    async def _end(self, state: FeedState) -> None:
        if self._is_open():
            self.state = state
        await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _begin(self) -> None:
        """Connect for the first time, until the gateway has said which instruments there are."""
        while True:
            try:
                connection = await GatewayConnection.open(self._url, self._key, self._open_stream)
                self._connection = connection
                sample = await self._sample(connection)
                break
            except GatewayLostError as error:
                self._complaint = str(error)
                await self._disconnect()
                self._failures += 1
                pause = pause_s(self._failures, self._jitter)
                logger.warning("not connected feed=%s reason=%s retry_s=%.1f", self.name, error, pause)
                await trio.sleep(pause)
        self._failures = 0
        self._complaint = ""
        assert connection.metadata is not None, "records come behind the metadata"
        self.instruments = instruments_in(self._symbols, connection.metadata.dataset, sample)
        self._own_ids = {i.instrument_id: i.instrument_id for i in self.instruments}
        self._own_ids_by_symbol = {i.symbol: i.instrument_id for i in self.instruments}
        self._add(sample)
        times = sample["ts_recv"][sample["ts_recv"] < NO_TIME]
        self._market_time_ns = int(times[0]) if len(times) else 0

    async def _sample(self, connection: GatewayConnection) -> OrderEvents:
        """The first order events, gathered until every instrument asked for has a symbol and for SAMPLE_S after."""
        self._symbols = {}
        batches = [np.empty(0, ORDER_EVENT)]
        count = 0
        with trio.CancelScope() as sampling:
            while count < MAX_BATCH_RECORDS:
                try:
                    received = await connection.receive()
                except GatewayLostError:
                    if sampling.deadline == np.inf:
                        raise
                    # What is known is enough, and for the loss there is time when a batch is asked for. Where the
                    # recording is over, the closed connection is read again then, and says so again.
                    if not self._is_at_end:
                        await self._disconnect()
                    break
                for notice in received.notices:
                    if notice.rtype == RTYPE_ERROR:
                        raise RefusedError(notice.text)
                    self._heed(notice)
                self._symbols.update(received.mappings)
                batches.append(received.events)
                count += len(received.events)
                is_known = count or len(self._symbols) >= (self._url.asked_symbols or 1)
                if is_known and sampling.deadline == np.inf:
                    sampling.deadline = trio.current_time() + SAMPLE_S
        return np.concatenate(batches)

    async def _go_on(self) -> None:
        """Take in what the gateway says next, or get back to it. Raises: GatewayLostError, RefusedError."""
        if self._connection is not None:
            self._take(await self._connection.receive())
            return
        await trio.sleep_until(self._retry_at)
        connection = await GatewayConnection.open(self._url, self._key, self._open_stream)
        if not self._is_open():
            await connection.aclose()
            return
        self._connection = connection
        self._clears = self._books.clears(self._market_time_ns)
        # Their event is not over: what the gateway sends next belongs to it, so that nobody is shown empty books.
        self._clears["flags"] = Flag.SNAPSHOT
        self.state = FeedState.RUNNING
        logger.info("connected again feed=%s", self.name)

    async def _lose(self, reason: str) -> None:
        """Note that the connection is lost, with the event that was arriving."""
        if not self._is_open():
            return
        self.state = FeedState.STALE
        self._complaint = ""
        self._pending = PendingEvents()
        self._failures += 1
        pause = pause_s(self._failures, self._jitter)
        self._retry_at = trio.current_time() + pause
        logger.warning("connection lost feed=%s reason=%s retry_s=%.1f", self.name, reason, pause)
        await self._disconnect()

    def _take(self, received: Decoded) -> None:
        for instrument_id, symbol in received.mappings:
            self._map(instrument_id, symbol)
        if len(received.events):
            self._failures = 0
            self._is_at_end = False
            self._add(received.events)
        for notice in received.notices:
            self._heed(notice)

    def _map(self, instrument_id: int, symbol: str) -> None:
        """Heed a symbol mapping. The records of one piece that stand before it go by it too: it comes at night."""
        if self._symbols.get(instrument_id) == symbol:
            return
        self._symbols[instrument_id] = symbol
        own_id = self._own_ids_by_symbol.get(symbol)
        if own_id is None:
            self._own_ids.pop(instrument_id, None)
        else:
            self._own_ids[instrument_id] = own_id

    def _heed(self, notice: Notice) -> None:
        """Do what a notice asks for. Raises: GatewayLostError when it says that the books are wrong from here on."""
        if notice.is_heartbeat:
            self._failures = 0
        elif notice.rtype == RTYPE_ERROR:
            logger.warning("the gateway complains feed=%s error=%s", self.name, notice.text)
            if notice.code == SKIPPED_RECORDS:
                raise GatewayLostError(f"the gateway skipped records: {notice.text}")
            self._complaint = notice.text
        else:
            logger.info("the gateway says feed=%s text=%s", self.name, notice.text)
            self._is_at_end = notice.code == REPLAY_COMPLETED and notice.text == END_OF_RECORDING

    def _add(self, events: OrderEvents) -> None:
        """Queue order events, by our instrument ids."""
        ids, places = np.unique(events["instrument_id"], return_inverse=True)
        own_ids = np.array([self._own_ids.get(i, -1) for i in ids.tolist()], np.int64)[places]
        is_own = own_ids >= 0
        if not is_own.all():
            if not self.left_out:
                logger.warning("leaves out instruments without a symbol of ours feed=%s", self.name)
            self.left_out += int(np.count_nonzero(~is_own))
            events, own_ids = events[is_own], own_ids[is_own]
        if len(events):
            events["instrument_id"] = own_ids
            self._pending.append(events, np.zeros(len(events), np.int64))

    def _next_batch(self) -> OrderEvents:
        batch = self._pending.take(self._pending.longest_batch(len(self._pending)))
        self._books.note(batch)
        times = batch["ts_recv"][batch["ts_recv"] < NO_TIME]
        if len(times):
            self._market_time_ns = int(times[-1])
        return batch

    def _next_clears(self) -> OrderEvents:
        batch, self._clears = self._clears[:MAX_BATCH_RECORDS], self._clears[MAX_BATCH_RECORDS:]
        return batch


def pause_s(failures: int, jitter: random.Random) -> float:
    """How long to wait after so many failures in a row: at least 0.5 s, at most 1 s, then 2 s, … 30 s.

    Drawn from the whole range, so that those who lost the same gateway do not come back in step.
    """
    doublings = min(failures, 10)
    return jitter.uniform(FIRST_PAUSE_S, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**doublings))
