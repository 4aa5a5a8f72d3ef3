"""The venue: the shape of what it publishes, and what never happens there."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from protocol.events import ORDER_EVENT, UNDEF_PRICE, Action, Flag, OrderEvents, Side
from simulator.listings import LISTINGS, listing
from simulator.matching import MatchingBook
from simulator.scenarios import SCENARIOS, scenario
from simulator.venue import PUBLISHER_ID, Venue

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def opened(symbol: str = "BTCUSD", name: str = "busy", seed: int = 7) -> Venue:
    return Venue(listing(symbol), scenario(name), seed, START_NS)


def digest(events: OrderEvents) -> str:
    return hashlib.sha256(events.tobytes()).hexdigest()


def events_of(rows: OrderEvents) -> list[OrderEvents]:
    """The rows cut after each record flagged LAST."""
    ends = np.flatnonzero(rows["flags"] & Flag.LAST) + 1
    assert ends[-1] == len(rows)
    return np.split(rows, ends[:-1])


def rebuild(book: MatchingBook, rows: OrderEvents) -> None:
    """Apply rows to a book the way a subscriber would."""
    for row in rows.tolist():
        event = dict(zip(ORDER_EVENT.names or (), row, strict=True))
        match event["action"]:
            case Action.ADD:
                book.add(
                    event["order_id"], Side(event["side"]), event["price"], event["size"], event["ts_event"]
                )
            case Action.MODIFY:
                book.modify(event["order_id"], event["price"], event["size"], event["ts_event"])
            case Action.CANCEL:
                book.cancel(event["order_id"])


def queue(book: MatchingBook, side: Side) -> list[tuple[int, int, int, int]]:
    return [(order.order_id, order.price, order.size, order.ts_event) for order in book.orders(side)]


def test_the_opening_is_a_clear_and_the_book_as_a_snapshot() -> None:
    venue = opened()
    rows = venue.open()
    assert rows.dtype == ORDER_EVENT
    assert (rows[0]["action"], rows[0]["side"], rows[0]["price"]) == (Action.CLEAR, Side.NONE, UNDEF_PRICE)
    assert set(rows["action"][1:]) == {Action.ADD}
    assert set(rows["flags"][:-1]) == {Flag.SNAPSHOT}
    assert rows["flags"][-1] == Flag.SNAPSHOT | Flag.LAST
    assert set(rows["ts_recv"]) == {START_NS}
    assert (rows["ts_event"] <= START_NS).all()
    assert len(rows) == len(venue.book) + 1
    book = MatchingBook()
    rebuild(book, rows)
    for side in (Side.BID, Side.ASK):
        assert queue(book, side) == queue(venue.book, side)


def test_a_snapshot_may_be_taken_at_any_time_and_changes_nothing() -> None:
    venue = opened()
    rows = venue.run(3_000)
    snapshot = venue.open()
    assert set(snapshot["sequence"]) == {rows["sequence"][-1]}
    book = MatchingBook()
    rebuild(book, snapshot)
    following = venue.run(3_000)
    rebuild(book, following)
    for side in (Side.BID, Side.ASK):
        assert queue(book, side) == queue(venue.book, side)
    assert digest(np.concatenate([rows, following])) == digest(opened().run(len(rows) + len(following)))


def test_records_name_the_venue_the_instrument_and_their_order() -> None:
    venue = opened("ADAUSD")
    rows = np.concatenate([venue.open(), venue.run(5_000)])
    assert set(rows["publisher_id"]) == {PUBLISHER_ID}
    assert set(rows["instrument_id"]) == {3}
    assert set(rows["length"]) == {14}
    live = rows[(rows["flags"] & Flag.SNAPSHOT) == 0]
    assert (np.diff(live["ts_event"].astype(np.int64)) >= 0).all()
    assert (live["ts_event"] == live["ts_recv"]).all()
    # One number for each event: it steps by one exactly where the record before was the last of its event.
    assert (np.diff(rows["sequence"].astype(np.int64)) == ((rows["flags"][:-1] & Flag.LAST) != 0)).all()
    assert (live["price"] % venue.instrument.tick_size == 0).all()
    assert (live["size"] > 0).all()


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_book_is_crossed_locked_or_empty_after_a_complete_event(name: str) -> None:
    venue = opened(name=name)
    book = MatchingBook()
    rebuild(book, venue.open())
    for event in events_of(venue.run(20_000)):
        rebuild(book, event)
        assert book.best(Side.BID) < book.best(Side.ASK), event
    for side in (Side.BID, Side.ASK):
        assert queue(book, side) == queue(venue.book, side)


def test_a_trade_is_told_as_trade_then_fills_each_with_what_becomes_of_the_order() -> None:
    trades = [event for event in events_of(opened().run(50_000)) if event["action"][0] == Action.TRADE]
    assert len(trades) > 400
    resting_tails = 0
    for event in trades:
        aggressor = event["side"][0]
        rows = list(event)
        if rows[-1]["action"] == Action.ADD:  # the remainder rests
            assert rows.pop()["side"] == aggressor
            resting_tails += 1
        while rows:
            trade = rows.pop(0)
            assert (trade["action"], trade["side"], trade["order_id"]) == (Action.TRADE, aggressor, 0)
            filled = 0
            while rows and rows[0]["action"] == Action.FILL:
                fill, after = rows.pop(0), rows.pop(0)
                assert fill["side"] == after["side"] != aggressor
                assert fill["order_id"] == after["order_id"] != 0
                assert fill["price"] == after["price"] == trade["price"]
                assert after["action"] in (Action.CANCEL, Action.MODIFY)
                if after["action"] == Action.CANCEL:
                    assert after["size"] == fill["size"]
                filled += int(fill["size"])
            assert filled == trade["size"]
    assert resting_tails > 10


@pytest.mark.parametrize(
    "steps_ns", [[100 * SECOND], [SECOND] * 100, [1, 49 * SECOND, 0, 10 * SECOND, 40 * SECOND + 999_999_999]]
)
def test_batches_joined_are_the_same_bytes_however_they_are_cut(steps_ns: list[int]) -> None:
    whole = opened().advance(START_NS + 100 * SECOND)
    venue = opened()
    until_ns = START_NS
    batches = []
    for step_ns in steps_ns:
        until_ns += step_ns
        batches.append(venue.advance(until_ns))
        assert venue.now_ns == until_ns
    assert digest(np.concatenate(batches)) == digest(whole)


@pytest.mark.parametrize("most", [1, 7, 1_000])
def test_a_full_batch_ends_after_a_complete_event_and_the_next_goes_on(most: int) -> None:
    whole = opened().advance(START_NS + 30 * SECOND)
    venue = opened()
    batches = []
    while venue.now_ns < START_NS + 30 * SECOND:
        batch = venue.advance(START_NS + 30 * SECOND, most)
        assert len(batch) == 0 or batch["flags"][-1] & Flag.LAST
        assert len(batch) < most + 40
        batches.append(batch)
    assert digest(np.concatenate(batches)) == digest(whole)


def test_nothing_happens_while_no_time_passes() -> None:
    venue = opened()
    assert len(venue.advance(START_NS)) == 0
    assert len(venue.advance(START_NS - SECOND)) == 0
    assert venue.now_ns == START_NS


def test_a_later_start_gives_the_same_events_later() -> None:
    later_ns = 12_345_678_901
    venue = Venue(listing("BTCUSD"), scenario("trend"), 7, START_NS + later_ns)
    shifted = np.concatenate([venue.open(), venue.run(5_000)])
    venue = opened(name="trend")
    rows = np.concatenate([venue.open(), venue.run(5_000)])
    for column in ("ts_event", "ts_recv"):
        rows[column] += later_ns
    assert digest(rows) == digest(shifted)


@pytest.mark.parametrize("symbol", [*LISTINGS, "ANYTHING/ELSE"])
def test_every_listing_trades(symbol: str) -> None:
    venue = opened(symbol)
    rows = venue.run(4_000)
    assert {Action.ADD, Action.MODIFY, Action.CANCEL, Action.TRADE, Action.FILL} == set(rows["action"])
    median = np.median(rows["size"][rows["action"] == Action.ADD])
    assert median == pytest.approx(listing(symbol).typical_size, rel=0.2)
    assert (rows["price"] % venue.instrument.tick_size == 0).all()


def test_a_venue_may_open_at_the_epoch() -> None:
    rows = Venue(listing("BTCUSD"), scenario("busy"), 1, 0).open()
    assert (rows["ts_event"] == 0).all()
    later = opened(seed=1).open()
    for column in ("order_id", "price", "size", "side"):
        assert (rows[column] == later[column]).all()


def test_the_rate_of_events_can_be_chosen() -> None:
    venue = Venue(listing("BTCUSD"), scenario("calm"), 1, START_NS, events_per_second=2_000)
    count = len(events_of(venue.advance(START_NS + 20 * SECOND)))
    assert 20_000 < count < 80_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("calm", "f79fdc0b9f01e78808cdebdbfa77adb38ad40e72e11975eee25fff509544c14f"),
        ("busy", "df8550472409eaf49eedd1e3e4270de32399a43f9a931201b3b94ced78e3eb62"),
        ("trend", "48fbb704f508be319234ae71c29163420b799abe2a48a8a0e2f62753ef5e9cb7"),
        ("burst", "3076950736cbf183d68aa71cc8328ed788da135c075fa043afe8b8a8260d58a1"),
    ],
)
def test_a_scenario_and_a_seed_give_these_bytes_on_every_machine(name: str, expected: str) -> None:
    # Who changes the flow on purpose writes the new digests here, and says so in the changelog.
    venue = opened(name=name, seed=1)
    assert hashlib.sha256(venue.open().tobytes() + venue.run(20_000).tobytes()).hexdigest() == expected


def test_the_same_arguments_give_the_same_bytes_in_another_process() -> None:
    program = (
        "import hashlib; from simulator import Venue, listing, scenario;"
        f"venue = Venue(listing('ETHUSD'), scenario('burst'), 11, {START_NS});"
        "print(hashlib.sha256(venue.open().tobytes() + venue.run(20000).tobytes()).hexdigest())"
    )
    venue = opened("ETHUSD", "burst", 11)
    here = hashlib.sha256(venue.open().tobytes() + venue.run(20_000).tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert there.stdout.strip() == here


def test_seeds_symbols_and_scenarios_are_independent_streams() -> None:
    runs = [("BTCUSD", "busy", 1), ("BTCUSD", "busy", 2), ("ETHUSD", "busy", 1), ("BTCUSD", "trend", 1)]
    gaps = [tuple(np.diff(opened(*run).run(100)["ts_event"].astype(np.int64))) for run in runs]
    assert len(set(gaps[:3])) == 3
    assert len({digest(opened(*run).run(1_000)) for run in runs}) == 4
