import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from market_depth.client import follow
from market_depth.client.connection import Connect
from market_depth.feeds.base import FeedError, FeedOptionError
from market_depth.record.server_feed import FIRST_BOOKS_LIMIT_S, LOST_LIMIT_S, ServerFeed, subscriptions
from protocol.codecs import encode
from protocol.events import OrderEvents
from protocol.instrument import SCALE
from protocol.messages import Error, HeartBeat, Subscribed
from tests.market_depth.client.test_connection import FakeSocket, connect_to
from tests.market_depth.feeds.dbn_files import START_NS
from tests.market_depth.record.frames import Resting, frame_text

A, B = Resting(1, -1, 10), Resting(2, 1, 20)
STREAMS = subscriptions(["ACME", "BETA"])


class Followed:
    """A feed of a server's two streams, and what it told."""

    def __init__(self, feed: ServerFeed, notices: list[str]) -> None:
        self.feed = feed
        self.notices = notices

    async def batches(self) -> list[OrderEvents]:
        """All that comes until the end."""
        return [batch async for batch in self.feed]


@asynccontextmanager
async def followed(
    connect: Connect, *, max_records: int | None = None, duration_s: float | None = None
) -> AsyncIterator[Followed]:
    notices: list[str] = []
    async with follow("ws://fake/", STREAMS, connect=connect, jitter=random.Random(1)) as updates:
        feed = ServerFeed(
            "there:1",
            updates,
            STREAMS,
            max_records=max_records,
            duration_s=duration_s,
        )
        feed.notify = notices.append
        await feed.open()
        yield Followed(feed, notices)


async def error_of(connect: Connect) -> tuple[str, int]:
    """How following ends, and after how many batches."""
    count = 0
    try:
        async with followed(connect) as server:
            async for _ in server.feed:
                count += 1
    except FeedError as error:
        return str(error), count
    raise AssertionError(f"no error after {count} batches")


def in_short(events: OrderEvents) -> str:
    """Instrument and action of each."""
    return f"{events['instrument_id'][0]}: " + "".join(map(chr, events["action"]))


BOTH = [frame_text("0", A, B, at_s=2), frame_text("1", A, at_s=3)]


async def test_it_opens_with_a_snapshot_of_each_book_and_goes_on_with_changes(
    autojump_clock: MockClock,
) -> None:
    chatter = [
        encode(HeartBeat(timestamp="")).decode(),
        encode(Subscribed(stream_id="0", symbol="ACME", data_type="MBO")).decode(),
    ]
    socket = FakeSocket(
        [*chatter, *BOTH, frame_text("0", A, at_s=4), frame_text("1", at_s=4)], then_silent=True
    )
    async with followed(connect_to(socket), duration_s=9) as server:
        feed = server.feed
        assert [(i.symbol, i.instrument_id) for i in feed.instruments] == [("ACME", 1), ("ACME", 2)]
        assert (feed.instruments[0].tick_size, feed.instruments[0].lot_size) == (SCALE // 4, SCALE // 1000)
        assert feed.start_ns == START_NS + 2 * 10**9
        assert [in_short(batch) for batch in await server.batches()] == ["1: RAA", "2: RA", "1: C", "2: C"]
        assert feed.elapsed_s == pytest.approx(9)
    assert socket.sent == [stream.model_dump_json() for stream in STREAMS]


async def test_of_frames_that_come_before_all_books_are_there_the_newest_counts_and_the_oldest_is_first(
    autojump_clock: MockClock,
) -> None:
    socket = FakeSocket([frame_text("0", A), frame_text("0", A, B), BOTH[1]], then_silent=True)
    async with followed(connect_to(socket), duration_s=1) as server:
        assert server.feed.start_ns == START_NS + 3 * 10**9
        assert [in_short(batch) for batch in await server.batches()] == ["2: RA", "1: RAA"]


@pytest.mark.parametrize(("max_records", "batches"), [(1, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
async def test_it_ends_with_the_frame_that_makes_enough_events(max_records: int, batches: int) -> None:
    socket = FakeSocket([*BOTH, frame_text("0", A), frame_text("0", A, B)])
    async with followed(connect_to(socket), max_records=max_records) as server:
        assert len(await server.batches()) == batches


async def test_a_server_that_is_lost_and_found_is_recorded_anew(autojump_clock: MockClock) -> None:
    first = FakeSocket([*BOTH, frame_text("0", A)])
    second = FakeSocket([frame_text("0", A), frame_text("1", B), frame_text("1")], then_silent=True)
    async with followed(connect_to(first, None, None, second), duration_s=30) as server:
        batches = await server.batches()
    assert [in_short(batch) for batch in batches] == ["1: RAA", "2: RA", "1: C", "1: RA", "2: RA", "2: C"]
    assert server.notices == [
        "there:1: lost, broken; looking for it, for 300 s at most",
        "there:1: is back; its books are recorded anew",
    ]


async def test_a_server_that_stays_away_ends_it(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    assert await error_of(connect_to(FakeSocket([*BOTH, frame_text("0", A)]))) == (
        "there:1: was lost for 300 s: nobody listens; see what became of it",
        3,
    )
    assert trio.current_time() - start == pytest.approx(LOST_LIMIT_S, abs=1)


async def test_a_lost_server_does_not_prolong_the_duration(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    async with followed(connect_to(FakeSocket(BOTH)), duration_s=20) as server:
        assert len(await server.batches()) == 2
    assert trio.current_time() - start == pytest.approx(20)


async def test_an_empty_book_is_waited_for_and_then_recorded_in_whole_lots(
    autojump_clock: MockClock,
) -> None:
    later = frame_text("1", A, at_s=50)
    first = FakeSocket([BOTH[0], frame_text("1"), later], then_silent=True)
    async with followed(connect_to(first), duration_s=1) as server:
        assert trio.current_time() == 0
        assert server.feed.instruments[1].lot_size == SCALE // 1000
    second = FakeSocket([BOTH[0], frame_text("1")], then_silent=True)
    async with followed(connect_to(second), duration_s=1) as server:
        assert trio.current_time() == FIRST_BOOKS_LIMIT_S
        assert server.feed.instruments[1].lot_size == SCALE
        assert [in_short(batch) for batch in await server.batches()] == ["1: RAA", "2: R"]


REFUSAL = encode(Error(code=404, message="symbol: 'BETA' is not served", stream_id="1")).decode()
UNSERVED = encode(Error(code=422, message="data_type: MBO is not served for 'BETA'", stream_id="1")).decode()
DENIAL = encode(
    Error(code=401, message="a token is required: send Hello with it first", stream_id="0")
).decode()
LATER = encode(Error(code=503, message="the server is shutting down")).decode()


@pytest.mark.parametrize(
    ("messages", "text", "batches"),
    [
        (
            None,
            "there:1: cannot be reached: nobody listens; start it, or give its address with --addr",
            0,
        ),
        ([REFUSAL], "there:1: symbol: 'BETA' is not served; choose others with --symbols", 0),
        (
            [LATER],
            "there:1: cannot be reached: the server is shutting down; start it, or give its address with --addr",
            0,
        ),
        (
            [DENIAL],
            "there:1: the server requires a valid token; give it with --token or as MARKET_DEPTH_TOKEN",
            0,
        ),
        ([UNSERVED], "there:1: data_type: MBO is not served for 'BETA'; ask for something else", 0),
        ([*BOTH, REFUSAL], "there:1: symbol: 'BETA' is not served; choose others with --symbols", 2),
        (
            [*BOTH, frame_text("0", Resting(1, -1, 5)).replace("0.005", "0.0005")],
            "there:1: ACME: the quantity 0.0005 is not 1 to 4,294,967,295 lots of 0.001; record what DBN can hold",
            2,
        ),
        (
            [BOTH[0], frame_text("elsewhere")],
            "there:1: sends a stream that nobody asked for; see whether it is a depth server",
            0,
        ),
        (
            [*BOTH, frame_text("elsewhere")],
            "there:1: sends a stream that nobody asked for; see whether it is a depth server",
            2,
        ),
    ],
)
async def test_what_goes_wrong_is_told_in_one_line_after_all_before_it(
    messages: list[str] | None, text: str, batches: int, autojump_clock: MockClock
) -> None:
    socket = None if messages is None else FakeSocket(messages)
    assert await error_of(connect_to(socket)) == (text, batches)


async def test_a_server_that_shows_nothing_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    assert await error_of(connect_to(FakeSocket(BOTH[:1], then_silent=True))) == (
        "there:1: shows no book of BETA for 30 s; try again when it does",
        0,
    )
    assert trio.current_time() - start == pytest.approx(FIRST_BOOKS_LIMIT_S)


@pytest.mark.parametrize(
    ("symbols", "levels", "text"),
    [
        (["A", "B", "A"], 5, "--symbols: 'A' is listed more than once; name it once"),
        (["A", ""], 5, "--symbols: '' cannot be; give a string of 1 to 64 characters"),
        (["A"], 0, "--levels: 0 cannot be; give an integer between 1 and 1000"),
    ],
)
def test_streams_that_cannot_be_asked_for_are_a_wrong_call(
    symbols: list[str], levels: int, text: str
) -> None:
    with pytest.raises(FeedOptionError) as raised:
        subscriptions(symbols, levels)
    assert str(raised.value) == text


async def test_a_batch_has_the_rows_of_one_event() -> None:
    async with followed(connect_to(FakeSocket(BOTH)), max_records=4) as server:
        for batch in await server.batches():
            np.testing.assert_array_equal(batch["flags"] >= 128, np.arange(len(batch)) == len(batch) - 1)
