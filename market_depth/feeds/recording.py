"""What a replay needs of a recording: order events that can be read on from wherever it was before."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from market_depth.feeds.zstd import FIRST_FRAME, Frame
from protocol.events import OrderEvents
from protocol.instrument import Instrument


class Place(NamedTuple):
    """Where in a recording a `read` begins."""

    offset: int  # in the content, what is stored without its compression
    records: int = 0  # before it, of all types
    events: int = 0  # before it, order events alone
    frame: Frame = FIRST_FRAME  # a part of the compression that begins before it, or at it


class Recording(Protocol):
    """Order events, oldest first, chunk by chunk."""

    @property
    def name(self) -> str:
        """What logs, health and errors call it."""

    @property
    def instruments(self) -> Sequence[Instrument]:
        """Every instrument in it."""

    @property
    def start_ns(self) -> int:
        """Its first `ts_recv`, ns since the epoch; 0 when there is none."""

    @property
    def blocks(self) -> bool:
        """Whether `read` and `go_to` may wait for a disk, and so belong in a thread."""

    @property
    def size_bytes(self) -> int:
        """How large it is, as it is stored."""

    @property
    def bytes_read(self) -> int:
        """How much of that lies before the next `read`, about."""

    def read(self) -> OrderEvents:
        """The next order events, contiguous and aligned, a bounded number; none at the end.

        Raises: FeedError where they cannot be had, after everything before has been returned.
        """

    def place(self) -> Place:
        """Where the next `read` begins."""

    def go_to(self, place: Place) -> Iterator[None]:
        """Let the next `read` begin at a place where one began before. Each step of the iterator takes some 10 ms.

        Raises: FeedError where that cannot be had any more.
        """

    def close(self) -> None:
        """Let go of the file. Closing again does nothing."""
