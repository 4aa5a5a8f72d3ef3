import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError, FeedState
from market_depth.feeds.dbn_decoding import SKIPPED_RECORDS
from market_depth.feeds.gateway_text import END_OF_RECORDING, Fields, Lines, parse_line
from market_depth.feeds.gateway_url import parse_gateway_url
from market_depth.feeds.tcp import TcpFeed, pause_s
from protocol.events import Action, Flag, OrderEvents
from tests.market_depth.feeds.dbn_files import CENT, START_NS, adds, metadata
from tests.market_depth.feeds.test_dbn_stream import error, mapping, system

KEY = "db-0123456789abcdefghijklmnopqrs"
URL = "tcp://gateway:13000"

HEADER = metadata(schema=None, stype_in=None, mappings={}).encode()
ACME = mapping(7, "ACME", "ACME")
END = system(END_OF_RECORDING, "replay_completed")

Step = bytes | float | type[trio.BrokenResourceError]
"""What a gateway does next in a session: says bytes, waits for seconds; at the end it closes."""


class FakeGateway:
    """Plays one script after the other, one for each connection: the handshake, then the script's steps."""

    def __init__(self, nursery: trio.Nursery, *sessions: list[Step] | OSError | bytes) -> None:
        """An error refuses the connection; bytes are said instead of the handshake."""
        self.attempts: list[float] = []
        self.requests: list[list[Fields]] = []
        self._nursery = nursery
        self._sessions = iter(sessions)

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("gateway", 13000)
        self.attempts.append(trio.current_time())
        session = next(self._sessions)
        if isinstance(session, OSError):
            raise session
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._play, theirs, session)
        return ours

    async def _play(self, stream: trio.abc.Stream, session: list[Step] | bytes) -> None:
        async with stream:
            try:
                if isinstance(session, bytes):
                    await stream.send_all(session)
                    return
                requests: list[Fields] = []
                self.requests.append(requests)
                await stream.send_all(b"lsg_version=0.5.2\ncram=abc\n")
                lines = Lines()
                while not requests or "start_session" not in requests[-1]:
                    if (fields := lines.next_line()) is None:
                        lines.push(bytes(await stream.receive_some()))
                        continue
                    requests.append(fields)
                    if "auth" in fields:
                        await stream.send_all(b"success=1|session_id=1\n")
                for step in session:
                    if isinstance(step, bytes):
                        await stream.send_all(step)
                    elif isinstance(step, float):
                        await trio.sleep(step)
            except trio.BrokenResourceError:
                return  # the feed left


async def open_feed(gateway: FakeGateway, url: str = URL) -> TcpFeed:
    return await TcpFeed.open(
        parse_gateway_url(url), KEY, open_stream=gateway.open_stream, jitter=random.Random(1)
    )


async def take(feed: TcpFeed, count: int) -> OrderEvents:
    """The next `count` batches, as one."""
    return np.concatenate([await anext(feed) for _ in range(count)])


def singles(events: OrderEvents) -> Iterator[bytes]:
    return (event.tobytes() for event in events)


async def test_instruments_come_from_the_gateway_with_tick_sizes_from_the_first_prices(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    events = adds(10, instrument_ids=(7, 9))
    gateway = FakeGateway(nursery, [HEADER + ACME + mapping(9, "EMCA", "EMCA"), 0.5, events.tobytes(), 99.0])
    feed = await open_feed(gateway)
    assert [(i.symbol, i.venue, i.instrument_id) for i in feed.instruments] == [
        ("ACME", "TEST.MBO", 7),
        ("EMCA", "TEST.MBO", 9),
    ]
    assert [i.tick_size for i in feed.instruments] == [2 * CENT, CENT]
    assert (feed.name, feed.source, feed.state) == (URL, "live", FeedState.WAITING)
    assert feed.market_time() == START_NS
    np.testing.assert_array_equal(await anext(feed), events)
    assert feed.state is FeedState.RUNNING
    assert feed.market_time() == events["ts_recv"][-1]
    await feed.aclose()


async def test_the_gateway_is_asked_for_what_the_url_says(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway = FakeGateway(nursery, [HEADER + ACME, 99.0])
    feed = await open_feed(gateway, URL + "?dataset=TEST.MBO&symbols=ACME")
    auth, subscription, start = gateway.requests[0]
    assert (auth["dataset"], auth["encoding"]) == ("TEST.MBO", "dbn")
    assert (subscription["schema"], subscription["symbols"], subscription["snapshot"]) == ("mbo", "ACME", "1")
    assert start == parse_line(b"start_session=0")
    await feed.aclose()


async def test_batches_end_with_an_event(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    events = adds(6)
    events["flags"] = [0, 0, Flag.LAST, 0, Flag.LAST, 0]
    gateway = FakeGateway(nursery, [HEADER + ACME, 2.0, *singles(events), END])
    feed = await open_feed(gateway)
    assert [len(batch) async for batch in feed] == [3, 2, 1]
    assert feed.state is FeedState.COMPLETED


async def test_batches_are_bounded_however_much_comes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    events = adds(40_000)
    gateway = FakeGateway(nursery, [HEADER + ACME + events.tobytes() + END])
    feed = await open_feed(gateway)
    batches = [batch async for batch in feed]
    assert max(map(len, batches)) <= MAX_BATCH_RECORDS
    np.testing.assert_array_equal(np.concatenate(batches), events)


async def test_a_cancelled_call_loses_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    events = adds(4)
    steps: list[Step] = [HEADER + ACME, 2.0]
    for record in singles(events):
        steps += [record[:20], 1.0, record[20:], 1.0]
    feed = await open_feed(FakeGateway(nursery, [*steps, END]))
    batches = []
    while feed.state is not FeedState.COMPLETED:
        with trio.move_on_after(0.3):
            try:
                batches.append(await anext(feed))
            except StopAsyncIteration:
                break
    np.testing.assert_array_equal(np.concatenate(batches), events)


async def test_a_lost_connection_makes_the_feed_stale_and_then_clears_its_books(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = adds(3), adds(5)
    after["ts_recv"] += 60
    gateway = FakeGateway(
        nursery,
        [HEADER + ACME + before.tobytes() + after.tobytes()[:30], 2.0],
        OSError("refused"),
        OSError("refused"),
        [HEADER + ACME + after.tobytes(), 99.0],
    )
    feed = await open_feed(gateway)
    await anext(feed)
    states: list[FeedState] = []

    async def watch() -> None:
        while len(gateway.attempts) < 4:
            await trio.sleep(0.05)
            states.append(feed.state)

    nursery.start_soon(watch)
    clears = await anext(feed)
    assert set(states) == {FeedState.RUNNING, FeedState.STALE}
    assert [(Action(e["action"]).name, int(e["instrument_id"]), int(e["publisher_id"])) for e in clears] == [
        ("CLEAR", 7, 2)
    ]
    assert feed.state is FeedState.RUNNING
    np.testing.assert_array_equal(await anext(feed), after)
    assert "connection lost" in caplog.text
    await feed.aclose()


async def test_every_book_that_was_seen_is_cleared_by_an_event_that_goes_on(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    events = adds(6, instrument_ids=(7, 9))
    events["publisher_id"] = [1, 1, 2, 1, 1, 1]
    both = HEADER + ACME + mapping(9, "EMCA", "EMCA")
    gateway = FakeGateway(nursery, [both + events.tobytes(), 2.0], [both, 99.0])
    feed = await open_feed(gateway)
    clears = (await take(feed, 2))[len(events) :]
    assert clears[["instrument_id", "publisher_id"]].tolist() == [(7, 1), (7, 2), (9, 1)]
    assert set(clears["flags"]) == {Flag.SNAPSHOT}
    await feed.aclose()


async def test_a_connection_lost_before_any_record_leaves_nothing_to_clear(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway = FakeGateway(nursery, [HEADER + ACME, 2.0], [HEADER + ACME + adds(2).tobytes(), 99.0])
    feed = await open_feed(gateway)
    assert (await anext(feed))["action"].tolist() == [Action.ADD] * 2
    await feed.aclose()


LOSSES: dict[str, tuple[list[Step], str]] = {
    "closed": ([], "the gateway closed the connection"),
    "silent": ([60.0], "silent for 20 s"),
    "torn": ([adds(1).tobytes()[:17]], "the gateway closed the connection"),
    "rubbish": ([bytes(64), 60.0], "no record"),
    "complains": ([error("No more for you", 2)], "No more for you"),
    "skipped": ([error("Too slow", SKIPPED_RECORDS), 60.0], "skipped records: Too slow"),
    "replayed": ([system("Finished", "replay_completed")], "the gateway closed the connection"),
}


@pytest.mark.parametrize(("steps", "reason"), LOSSES.values(), ids=LOSSES)
async def test_whatever_ends_a_connection_another_follows(
    steps: list[Step],
    reason: str,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = adds(2)
    good = HEADER + ACME + events.tobytes()
    gateway = FakeGateway(nursery, [good, 2.0, *steps], [good, 99.0])
    feed = await open_feed(gateway)
    assert (await take(feed, 3))["action"].tolist() == [Action.ADD] * 2 + [Action.CLEAR] + [Action.ADD] * 2
    assert reason in caplog.text
    await feed.aclose()


async def test_heartbeats_keep_a_quiet_connection(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    quiet: list[Step] = [system("Heartbeat", "heartbeat"), 15.0] * 10
    gateway = FakeGateway(nursery, [HEADER + ACME, 2.0, *quiet, adds(1).tobytes(), 99.0])
    feed = await open_feed(gateway)
    assert len(await anext(feed)) == 1
    assert len(gateway.attempts) == 1
    await feed.aclose()


async def test_attempts_are_further_and_further_apart_until_records_come(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    good = HEADER + ACME + adds(1).tobytes()
    refused = [OSError("refused")] * 12
    gateway = FakeGateway(nursery, [good, 2.0], *refused, [good, 2.0], [good, 99.0])
    feed = await open_feed(gateway)
    await take(feed, 5)
    pauses = np.diff(gateway.attempts)
    assert max(pauses[:3]) <= 4.0
    assert max(pauses[5:13]) > 10.0
    assert max(pauses) <= 30.0
    assert pauses[-1] <= 2.0 + 1.0
    await feed.aclose()


def test_pauses_are_drawn_from_half_a_second_to_a_growing_bound() -> None:
    jitter = random.Random(1)
    for failures, longest in [(1, 1.0), (2, 2.0), (3, 4.0), (6, 30.0), (1000, 30.0)]:
        pauses = [pause_s(failures, jitter) for _ in range(200)]
        assert min(pauses) >= 0.5
        assert longest * 0.9 <= max(pauses) <= longest


async def test_a_gateway_that_does_not_let_us_in_any_more_is_asked_on(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    good = HEADER + ACME + adds(1).tobytes()
    gateway = FakeGateway(nursery, [good, 2.0], b"success=0|error=Closed for the night\n", [good, 99.0])
    feed = await open_feed(gateway)
    assert len(await take(feed, 3)) == 3
    assert "refused: Closed for the night" in caplog.text
    await feed.aclose()


async def test_an_end_that_is_announced_completes_the_feed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway = FakeGateway(nursery, [HEADER + ACME + adds(3).tobytes(), 2.0, END])
    feed = await open_feed(gateway)
    assert [len(batch) async for batch in feed] == [3]
    assert feed.state is FeedState.COMPLETED
    with pytest.raises(StopAsyncIteration):
        await anext(feed)


async def test_a_recording_that_is_over_at_once_is_a_feed_that_completes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway = FakeGateway(nursery, [HEADER + ACME + adds(3).tobytes() + END])
    feed = await open_feed(gateway)
    assert [len(batch) async for batch in feed] == [3]
    assert feed.state is FeedState.COMPLETED
    assert len(gateway.attempts) == 1


async def test_a_connection_that_is_lost_at_once_leaves_what_it_gave(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    good = HEADER + ACME + adds(2).tobytes()
    gateway = FakeGateway(nursery, [good], [good, 99.0])
    feed = await open_feed(gateway)
    assert (await take(feed, 3))["action"].tolist() == [Action.ADD] * 2 + [Action.CLEAR] + [Action.ADD] * 2
    await feed.aclose()


async def test_a_symbol_keeps_its_instrument_when_the_gateway_gives_it_another_id(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    today, tomorrow = adds(2), adds(4, instrument_ids=(8, 7))
    gateway = FakeGateway(
        nursery,
        [
            HEADER + ACME + today.tobytes(),
            2.0,
            mapping(7, "NEWCO", "NEWCO") + mapping(8, "ACME", "ACME"),
            tomorrow.tobytes(),
            END,
        ],
    )
    feed = await open_feed(gateway)
    batches = [batch async for batch in feed]
    assert [batch["instrument_id"].tolist() for batch in batches] == [[7, 7], [7, 7]]
    assert batches[1]["order_id"].tolist() == [1, 3]
    assert feed.left_out == 2


async def test_closing_ends_a_call_that_waits(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    feed = await open_feed(FakeGateway(nursery, [HEADER + ACME, 99.0]))

    async def close() -> None:
        await trio.sleep(1)
        await feed.aclose()

    nursery.start_soon(close)
    with pytest.raises(StopAsyncIteration):
        await anext(feed)
    assert feed.state is FeedState.CLOSED
    await feed.aclose()


async def test_opening_waits_a_while_for_a_gateway_that_is_not_there_yet(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway = FakeGateway(nursery, OSError("refused"), b"", [HEADER[:9]], [HEADER + ACME, 99.0])
    feed = await open_feed(gateway)
    assert len(gateway.attempts) == 4
    await feed.aclose()


def nobody() -> Iterator[OSError]:
    while True:
        yield OSError("refused")


OPENINGS: dict[str, tuple[Callable[[], list[list[Step] | OSError | bytes]], str]] = {
    "nobody there": (lambda: [OSError("refused")] * 99, "cannot connect: refused"),
    "wrong key": (lambda: [b"success=0|error=Authentication failed\n"], "refused: Authentication failed"),
    "no gateway": (lambda: [b"SSH-2.0-OpenSSH\r\n"] * 99, "a gateway's lsg_version was expected"),
    "no answer": (lambda: [[999.0]] * 9, "named no instruments within 15 s"),
    "unknown symbol": (
        lambda: [[HEADER + error("Unknown symbol CLX5", 4), 9.0]],
        "refused: Unknown symbol CLX5",
    ),
    "future version": (lambda: [[b"DBN\x09" + bytes(4)]] * 99, "the stream is DBN version 9"),
}


@pytest.mark.parametrize(("sessions", "problem"), OPENINGS.values(), ids=OPENINGS)
async def test_what_cannot_be_opened_is_told_in_one_line(
    sessions: Callable[[], list[list[Step] | OSError | bytes]],
    problem: str,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    gateway = FakeGateway(nursery, *sessions())
    with pytest.raises(FeedError) as failure:
        await open_feed(gateway)
    assert problem in str(failure.value)
    assert str(failure.value).startswith(f"{URL}: ")
    assert trio.current_time() - gateway.attempts[0] <= 15.01
    nursery.cancel_scope.cancel()


async def test_opening_is_logged_at_its_beginning_and_with_every_failure(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gateway = FakeGateway(nursery, *[OSError(111, "Connection refused")] * 99)
    with trio.move_on_after(0.4):
        await open_feed(gateway)
    assert caplog.records[0].getMessage() == f"connecting feed={URL} timeout_s=15"
    with pytest.raises(FeedError):
        await open_feed(gateway)
    assert (
        f"not connected feed={URL} reason=cannot connect: [Errno 111] Connection refused retry_s="
        in caplog.text
    )
    nursery.cancel_scope.cancel()
