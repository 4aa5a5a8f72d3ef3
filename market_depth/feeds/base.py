"""What every feed looks like from outside, whatever its events come from.

    waiting ──► running ──► completed      the recording ended, the sender is done
                 ⇅ ├──────► failed         a FeedError was raised
               stale └────► closed         aclose() was called first

A feed is its own async iterator, a class and not an async generator: its waiting stays inside `__anext__`, where
cancellation reaches it and where nothing is left behind for the garbage collector to finish.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, Protocol, Self

import trio

from protocol.events import OrderEvents
from protocol.instrument import Instrument

MAX_BATCH_RECORDS = 16_384
"""Upper bound of a batch: 0.9 MB, a millisecond or so of the book's time, so that other tasks get their turn."""

Source = Literal["simulated", "replay", "live"]


class FeedState(StrEnum):
    """How far a feed has come. The last three are final, but for a replay under control: completed or failed, that may
    run again.

    A feed that opens with a snapshot of each book is waiting until it has handed over all of them.
    """

    WAITING = "waiting"
    RUNNING = "running"
    STALE = "stale"
    """The source is lost and looked for: the books stand as they were. A batch that clears them comes first after."""
    COMPLETED = "completed"
    FAILED = "failed"
    CLOSED = "closed"


class FeedError(Exception):
    """A feed cannot start or go on: which one, what is wrong, and what to do about it, in one line.

    Raised when a feed is made (nothing was delivered), or by its iteration: then every batch before is good.
    """

    def __init__(self, feed: str, problem: str, remedy: str) -> None:
        super().__init__(feed, problem, remedy)
        self.feed = feed
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.feed}: {self.problem}; {self.remedy}"


class FeedOptionError(FeedError):
    """A feed was asked for what cannot be: the call was wrong."""


class Feed(Protocol):
    """Batches of order events of some instruments, each handed over when it is due.

    Iterate in one task. A batch is never empty, has at most MAX_BATCH_RECORDS rows, is contiguous and aligned, and
    belongs to the receiver. It ends with an event's last record (flag LAST), so books may be read after each batch;
    only a source that flags none for longer than a batch, or that ends inside an event, is cut elsewhere. A batch that
    begins with a Clear flagged SNAPSHOT begins a snapshot of all books, one event that may take several batches. Every
    `instrument_id` in it is one of `instruments`.
    """

    @property
    def name(self) -> str:
        """What logs, health and errors call it, e.g. "CLX5_mbo.dbn" or "simulator"."""

    @property
    def source(self) -> Source:
        """Which kind of feed this is, as clients are told."""

    @property
    def state(self) -> FeedState:
        """How far it has come."""

    @property
    def instruments(self) -> Sequence[Instrument]:
        """What it has events of: complete before the first batch, with distinct ids and symbols."""

    def market_time(self) -> int:
        """Now, in the market, in ns since the epoch.

        For a simulated or live feed that is the wall clock; for a replay, the recorded `ts_recv` of the last record
        handed out (before that, of the first one to come; 0 when it has none).
        """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> OrderEvents:
        """The next batch, when it is due.

        Raises: StopAsyncIteration at the end and after `aclose`; FeedError where the source is damaged or lost, after
        which a feed that cannot go on is at its end. A cancelled call has lost nothing: the next one hands over the same batch.
        """

    async def aclose(self) -> None:
        """Let go of files and sockets. Closing again does nothing."""


class ChannelFeed:
    """Hands over the batches that somebody else sends into a channel, as they come.

    The feed completes when the channel's sending side closes, and fails with the FeedError sent through it.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        channel: "trio.MemoryReceiveChannel[OrderEvents | FeedError]",
        *,
        name: str = "channel",
        source: Source = "live",
        market_time_ns: int = 0,
    ) -> None:
        """`market_time_ns` is the market's time until the first batch; then it is the last record's `ts_recv`."""
        self.name = name
        self.source: Source = source
        self.state = FeedState.WAITING
        self.instruments = tuple(instruments)
        self._channel = channel
        self._market_time_ns = market_time_ns

    def market_time(self) -> int:
        return self._market_time_ns

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        try:
            received = await self._channel.receive()
        except trio.EndOfChannel:
            self.state = FeedState.COMPLETED
            raise StopAsyncIteration from None
        except trio.ClosedResourceError:
            raise StopAsyncIteration from None
        if isinstance(received, FeedError):
            self.state = FeedState.FAILED
            self._channel.close()
            raise received
        self.state = FeedState.RUNNING
        self._market_time_ns = int(received["ts_recv"][-1])
        return received

    async def aclose(self) -> None:
        if self.state in (FeedState.WAITING, FeedState.RUNNING):
            self.state = FeedState.CLOSED
        await self._channel.aclose()
