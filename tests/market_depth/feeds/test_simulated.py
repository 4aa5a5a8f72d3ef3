import math
from collections.abc import Callable

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import simulator
from market_depth.clock import ManualClock
from market_depth.feeds.base import Feed, FeedState
from market_depth.feeds.simulated import (
    BATCH_RECORDS,
    MAX_LAG_NS,
    STEP_NS,
    TOLD_SLOWED_NS,
    SimulatedFeed,
    SimulatedMarkets,
    SimulationError,
)
from protocol.events import ORDER_EVENT, Action, Flag, OrderEvents

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
SYMBOLS = ("BTCUSD", "ADAUSD")


def simulated(
    *symbols: str, scenario: str = "busy", seed: int = 7, events_per_second: float | None = None
) -> SimulatedFeed:
    return SimulatedFeed(symbols or SYMBOLS, scenario, seed, events_per_second, ManualClock(START_NS))


async def play(feed: Feed, until_ns: int) -> OrderEvents:
    """Everything up to this market time, and the rest of the batch that goes beyond."""
    batches = [np.empty(0, ORDER_EVENT)]
    while feed.market_time() < until_ns:
        batches.append(await anext(feed))
    return np.concatenate(batches)


def of_venue(events: OrderEvents, feed: Feed, number: int) -> OrderEvents:
    chosen: OrderEvents = events[events["instrument_id"] == feed.instruments[number].instrument_id]
    return chosen


async def test_the_feed_names_its_instruments_before_it_runs() -> None:
    feed: Feed = simulated()
    assert (feed.name, feed.source, feed.state) == ("simulator", "simulated", FeedState.WAITING)
    assert [(instrument.symbol, instrument.venue) for instrument in feed.instruments] == [
        ("BTCUSD", "SIM"),
        ("ADAUSD", "SIM"),
    ]
    assert feed.market_time() == START_NS


async def test_each_book_opens_with_a_snapshot(autojump_clock: MockClock) -> None:
    feed = simulated()
    for instrument in feed.instruments:
        snapshot = await anext(feed)
        assert set(snapshot["instrument_id"]) == {instrument.instrument_id}
        assert snapshot["action"].tolist() == [Action.CLEAR] + [Action.ADD] * (len(snapshot) - 1)
        assert snapshot["flags"][-1] == Flag.LAST | Flag.SNAPSHOT
    assert (feed.state, autojump_clock.current_time()) == (FeedState.RUNNING, 0)


async def test_events_come_in_time_and_are_what_the_venues_made(autojump_clock: MockClock) -> None:
    feed = simulated()
    events = await play(feed, START_NS + 10 * SECOND)
    assert autojump_clock.current_time() == pytest.approx(10, abs=STEP_NS / SECOND)
    for number, symbol in enumerate(SYMBOLS):
        venue = simulator.Venue(simulator.listing(symbol), simulator.scenario("busy"), 7, START_NS)
        expected = np.concatenate([venue.open(), venue.advance(feed.market_time())])
        np.testing.assert_array_equal(of_venue(events, feed, number), expected)


async def test_a_batch_ends_with_an_event_is_bounded_and_lies_in_the_markets_past(
    autojump_clock: MockClock,
) -> None:
    feed = simulated(events_per_second=20_000)
    for _ in SYMBOLS:
        await anext(feed)
    for _ in range(10):
        batch = await anext(feed)
        assert batch["flags"][-1] & Flag.LAST
        assert 0 < len(batch) <= 2 * BATCH_RECORDS
        assert START_NS <= batch["ts_recv"].min() <= batch["ts_recv"].max() <= feed.market_time()
    assert 0 < autojump_clock.current_time() < 1


async def test_a_market_that_cannot_keep_up_runs_slower_with_the_same_events_and_says_so_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    on_time, late = simulated(), simulated()
    expected = await play(on_time, START_NS + 2 * SECOND)
    assert (on_time.slowed_ns, caplog.records) == (0, [])
    got = np.concatenate([await anext(late) for _ in SYMBOLS])
    start = autojump_clock.current_time()
    while late.market_time() < START_NS + SECOND:
        batch = await anext(late)
        got = np.concatenate([got, batch])
        await trio.sleep(0.5)
    elapsed_ns = round((autojump_clock.current_time() - start) * SECOND)
    assert late.slowed_ns == pytest.approx(elapsed_ns - SECOND - MAX_LAG_NS, abs=SECOND)
    assert late.slowed_ns > TOLD_SLOWED_NS
    assert [record.getMessage() for record in caplog.records] == [
        "simulator: cannot keep up; its market runs slower than the clock"
    ]
    for number in range(len(SYMBOLS)):
        of_late = of_venue(got, late, number)
        np.testing.assert_array_equal(of_late, of_venue(expected, on_time, number)[: len(of_late)])


async def test_a_market_catches_up_after_a_hiccup_of_the_machine(autojump_clock: MockClock) -> None:
    feed = simulated(events_per_second=1000)
    for _ in SYMBOLS:
        await anext(feed)
    await trio.sleep(0.8)
    for _ in range(30):
        await anext(feed)
    assert feed.slowed_ns == 0
    assert feed.market_time() == pytest.approx(
        START_NS + autojump_clock.current_time() * SECOND, abs=2 * STEP_NS
    )


async def test_another_seed_makes_another_market(autojump_clock: MockClock) -> None:
    one, other = [await play(simulated("ACME", seed=seed), START_NS + SECOND) for seed in (1, 2)]
    assert one.tobytes() != other.tobytes()
    assert autojump_clock.current_time() == pytest.approx(2, abs=0.1)


async def test_closing_ends_the_iteration_also_of_one_who_waits(autojump_clock: MockClock) -> None:
    feed = simulated("ACME", events_per_second=0.01)
    await anext(feed)
    got: list[OrderEvents] = []

    async def receive() -> None:
        got.extend([batch async for batch in feed])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.sleep(1)
        await feed.aclose()
    assert autojump_clock.current_time() == pytest.approx(1, abs=0.1)
    assert (got, feed.state) == ([], FeedState.CLOSED)
    await feed.aclose()
    assert [batch async for batch in feed] == []


@pytest.mark.parametrize(
    ("symbols", "scenario", "events_per_second", "text"),
    [
        ((), "busy", None, "simulator: there is nothing to trade; name a symbol"),
        (
            ("btc",),
            "busy",
            None,
            "simulator: symbol 'btc' is malformed: 1 to 32 characters of A-Z 0-9 . _ : / -; choose another",
        ),
        (("X", "Y", "X"), "busy", None, "simulator: X and X have the same instrument id; drop one of them"),
        (
            ("X",),
            "wild",
            None,
            "simulator: there is no scenario 'wild'; choose one of calm, busy, trend, burst",
        ),
        *(
            (
                ("X",),
                "busy",
                rate,
                f"simulator: {rate} events a second are not possible; give 0.001 to 1,000,000",
            )
            for rate in (0.0, 0.0009, 1e-320, 1_000_001.0, float("nan"), float("inf"))
        ),
    ],
)
def test_an_impossible_market_is_refused_in_one_line(
    symbols: tuple[str, ...], scenario: str, events_per_second: float | None, text: str
) -> None:
    with pytest.raises(SimulationError) as raised:
        SimulatedFeed(symbols, scenario, 1, events_per_second, ManualClock(START_NS))
    assert str(raised.value) == text


def markets(
    *symbols: str,
    seed: int = 7,
    max_records: int | None = None,
    duration_s: float = math.inf,
    max_step_s: float = math.inf,
) -> SimulatedMarkets:
    return SimulatedMarkets(
        symbols or SYMBOLS,
        "busy",
        seed,
        200.0,
        START_NS,
        max_records=max_records,
        duration_s=duration_s,
        max_step_s=max_step_s,
    )


def read_all(made: SimulatedMarkets) -> OrderEvents:
    batches = [np.empty(0, ORDER_EVENT)]
    while len(batch := made.read()):
        batches.append(batch)
    return np.concatenate(batches)


def test_markets_as_fast_as_they_are_read_have_the_venues_events_in_the_order_of_time() -> None:
    made = markets(duration_s=30)
    events = read_all(made)
    assert made.now_ns == START_NS + 30 * SECOND
    assert np.all(np.diff(events["ts_recv"].astype(np.int64)) >= 0)
    for instrument in made.instruments:
        venue = simulator.Venue(
            simulator.listing(instrument.symbol), simulator.scenario("busy"), 7, START_NS, 200.0
        )
        expected = np.concatenate([venue.open(), venue.advance(START_NS + 30 * SECOND)])
        np.testing.assert_array_equal(events[events["instrument_id"] == instrument.instrument_id], expected)


def test_events_of_one_venue_stay_together_where_venues_are_mixed() -> None:
    events = read_all(markets(duration_s=30))
    is_inside = (events["flags"][:-1] & Flag.LAST) == 0
    np.testing.assert_array_equal(
        events["instrument_id"][1:][is_inside], events["instrument_id"][:-1][is_inside]
    )


def test_how_far_each_read_goes_changes_no_event() -> None:
    made = markets(duration_s=5, max_step_s=0.1)
    whole = read_all(markets(duration_s=5))
    reads = [made.read() for _ in SYMBOLS]
    assert made.now_ns == START_NS
    while len(events := made.read()):
        assert made.now_ns - int(events["ts_recv"][0]) <= 0.1 * SECOND
        assert (made.now_ns - START_NS) % (SECOND // 10) == 0
        reads.append(events)
    np.testing.assert_array_equal(np.concatenate(reads), whole)


@pytest.mark.parametrize("most", [1, 401, 1000, 1001, 1002, 1003])
def test_a_maximum_of_records_is_kept_to_the_end_of_an_event(most: int) -> None:
    whole = read_all(markets(duration_s=10))
    events = read_all(markets(max_records=most))
    np.testing.assert_array_equal(events, whole[: len(events)])
    assert events["flags"][-1] & Flag.LAST
    assert not np.any(events["flags"][most - 1 : -1] & Flag.LAST)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: markets(max_records=0), "simulator: 0 events are too few; give 1 or more"),
        (lambda: markets(duration_s=0), "simulator: 0 seconds are too short; give more than 0"),
        (lambda: markets(duration_s=math.nan), "simulator: nan seconds are too short; give more than 0"),
        (lambda: markets("x"), "simulator: symbol 'x' is malformed"),
    ],
)
def test_impossible_markets_are_refused_in_one_line(made: Callable[[], SimulatedMarkets], text: str) -> None:
    with pytest.raises(SimulationError, match=f"^{text}"):
        made()
