"""The snapshot records that a batch of events leads to."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.records import SnapshotRecords
from protocol.events import Flag, OrderEvents
from simulator.listings import listing
from simulator.scenarios import SCENARIOS
from simulator.venue import Venue
from tests.market_depth.book.plain_records import PlainRecords
from tests.market_depth.book.random_events import many_events, narrow_events, wide_events
from tests.market_depth.book.test_recorded import recorded
from tests.market_depth.book.written_events import INSTRUMENT, PUBLISHER, written

SYMBOLS = {INSTRUMENT: "CLX5"}


def records_of(events: str, levels: int = 2) -> list[str]:
    """The records as `bids / asks` of prices, sizes and counts."""
    lines = SnapshotRecords(BookEngine(), SYMBOLS, levels).apply(written(events)).splitlines()
    return [
        " / ".join(
            " ".join(f"{level['price']}:{level['size']}x{level['count']}" for level in levels)
            for levels in json.loads(line)["levels"].values()
        )
        for line in lines
    ]


def test_a_record_is_one_line_of_json() -> None:
    records = SnapshotRecords(BookEngine(), SYMBOLS, 10)

    assert (
        records.apply(written("A 1 B -5 3 L; A 2 A 101 7 L; A 3 A 101 1 L; A 4 A 102 9 L"))
        == (
            f'{{"symbol":"CLX5","publisher_id":{PUBLISHER},"timestamp":"1","timestamp_ns":1,'
            '"bbo":{"bid":{"price":"-5","size":3,"count":1},"ask":null},'
            '"levels":{"bids":[{"price":"-5","size":3,"count":1}],"asks":[]},'
            '"stats":{"total_orders":1,"bid_levels":1,"ask_levels":0}}\n'
            f'{{"symbol":"CLX5","publisher_id":{PUBLISHER},"timestamp":"2","timestamp_ns":2,'
            '"bbo":{"bid":{"price":"-5","size":3,"count":1},"ask":{"price":"101","size":7,"count":1}},'
            '"levels":{"bids":[{"price":"-5","size":3,"count":1}],"asks":[{"price":"101","size":7,"count":1}]},'
            '"stats":{"total_orders":2,"bid_levels":1,"ask_levels":1}}\n'
            f'{{"symbol":"CLX5","publisher_id":{PUBLISHER},"timestamp":"3","timestamp_ns":3,'
            '"bbo":{"bid":{"price":"-5","size":3,"count":1},"ask":{"price":"101","size":8,"count":2}},'
            '"levels":{"bids":[{"price":"-5","size":3,"count":1}],"asks":[{"price":"101","size":8,"count":2}]},'
            '"stats":{"total_orders":3,"bid_levels":1,"ask_levels":1}}\n'
            f'{{"symbol":"CLX5","publisher_id":{PUBLISHER},"timestamp":"4","timestamp_ns":4,'
            '"bbo":{"bid":{"price":"-5","size":3,"count":1},"ask":{"price":"101","size":8,"count":2}},'
            '"levels":{"bids":[{"price":"-5","size":3,"count":1}],'
            '"asks":[{"price":"101","size":8,"count":2},{"price":"102","size":9,"count":1}]},'
            '"stats":{"total_orders":4,"bid_levels":1,"ask_levels":2}}\n'
        ).encode()
    )


@pytest.mark.parametrize(
    ("events", "records"),
    [
        pytest.param("A 1 B 9 1 L; A 2 B 8 1 L; A 3 B 7 1 L", ["9:1x1 / ", "9:1x1 8:1x1 / "], id="below the top"),
        pytest.param("A 1 B 9 1 L; T 0 A 9 1 L; F 1 B 9 1 L; N 0 N - 0 L", ["9:1x1 / "], id="trades and fills"),
        pytest.param("A 1 B 9 1 L; M 1 B 9 1 L; C 5 B 9 1 L", ["9:1x1 / "], id="changes of nothing"),
        pytest.param("A 1 B 9 1 L; R 0 N - 0 L; R 0 N - 0 L", ["9:1x1 / ", " / "], id="a clear"),
        pytest.param("A 1 B 9 1 L; A 2 B 8 1; A 3 A 10 1 L", ["9:1x1 / ", "9:1x1 8:1x1 / 10:1x1"], id="several in one event"),
        pytest.param("A 1 B 9 1 L; C 1 B 9 1; A 2 B 9 1 L", ["9:1x1 / "], id="an event that restores the top"),
        pytest.param("A 1 B 9 1; A 2 B 8 1", ["9:1x1 / ", "9:1x1 8:1x1 / "], id="no event's end is flagged yet"),
        pytest.param("A 1 B 9 1 S; A 2 B 8 1 S; A 3 A 10 1 SL", ["9:1x1 8:1x1 / 10:1x1"], id="a snapshot"),
        pytest.param("A 1 B 9 1 L; A 2 B 8 1 L; A 3 B 7 4 L; C 1 B 9 1 L", ["9:1x1 / ", "9:1x1 8:1x1 / ", "8:1x1 7:4x1 / "], id="a level comes up"),
    ],
)  # fmt: skip
def test_each_change_of_the_best_levels_is_a_record(events: str, records: list[str]) -> None:
    assert records_of(events) == records


def test_events_that_change_nothing_are_told_on_demand() -> None:
    records = SnapshotRecords(BookEngine(), SYMBOLS, 1, every_event=True)

    lines = records.apply(written("A 1 B 9 1 L; A 2 B 8 1; T 0 A 9 1 L; x 0 N - 0 L")).splitlines()

    assert [json.loads(line)["timestamp_ns"] for line in lines] == [1, 3]
    assert [json.loads(line)["stats"]["total_orders"] for line in lines] == [1, 2]


def test_records_are_handed_over_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_depth.book.records.TEXT_BYTES", 1)
    events = written("A 1 B 9 1 L; C 1 B 9 1 L;" * 50)
    parts: list[bytes] = []

    SnapshotRecords(BookEngine(), SYMBOLS, 9).apply_and_write(events, lambda text: parts.append(bytes(text)))

    assert len(parts) > 1
    assert b"".join(parts) == SnapshotRecords(BookEngine(), SYMBOLS, 9).apply(events)


def test_each_publisher_has_its_records() -> None:
    records = SnapshotRecords(BookEngine(), SYMBOLS, 1)

    lines = records.apply(written("A 1 B 9 1 L", publisher_id=39)) + records.apply(
        written("A 1 B 8 1 TL", publisher_id=40)
    )

    told = [json.loads(line) for line in lines.splitlines()]
    assert [(line["symbol"], line["publisher_id"], line["bbo"]["bid"]["price"]) for line in told] == [
        ("CLX5", 39, "9"),
        ("CLX5", 40, "8"),
    ]


@pytest.mark.parametrize("symbol", ['a "quoted\\" one', "naïve €", "line\nbreak"])
def test_any_symbol_is_told(symbol: str) -> None:
    line = SnapshotRecords(BookEngine(), {INSTRUMENT: symbol}, 1).apply(written("A 1 B 9 1 L"))

    assert json.loads(line)["symbol"] == symbol
    assert line.count(b"\n") == 1


def test_an_instrument_without_a_symbol_goes_by_its_id() -> None:
    line = SnapshotRecords(BookEngine(), {}, 1).apply(written("A 1 B 9 1 L"))

    assert json.loads(line)["symbol"] == str(INSTRUMENT)


def test_a_record_has_at_least_one_level() -> None:
    with pytest.raises(ValueError, match="at least one level, not 0"):
        SnapshotRecords(BookEngine(), SYMBOLS, 0)


def assert_same_records(batches: Iterable[OrderEvents], levels: int, note: object = "") -> None:
    """The compiled records of some batches are the plain ones, byte for byte."""
    records, plain = SnapshotRecords(BookEngine(), SYMBOLS, levels), PlainRecords(SYMBOLS, levels)
    for batch in batches:
        assert records.apply(batch) == plain.apply(batch), note


def batches_of(seed: int) -> Iterator[OrderEvents]:
    """Narrow random events that come one by one, and more at a time."""
    rng = np.random.default_rng(seed)
    for _ in range(40):
        yield narrow_events(rng, int(rng.choice([0, 1, 1, 2, 30, 60])))


@pytest.mark.parametrize("levels", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("seed", range(5))
def test_records_of_narrow_random_events_are_the_plain_ones(seed: int, levels: int) -> None:
    assert_same_records(batches_of(seed), levels, f"seed {seed}")


@pytest.mark.parametrize("seed", range(3))
def test_records_of_random_bytes_are_the_plain_ones(seed: int) -> None:
    assert_same_records([wide_events(np.random.default_rng(seed), 1_000)], 10, f"seed {seed}")


@pytest.mark.parametrize("flags", [0, Flag.LAST], ids=["no ends flagged", "all ends flagged"])
@pytest.mark.parametrize("seed", range(2))
def test_records_of_books_that_grow_in_one_batch_are_the_plain_ones(seed: int, flags: int) -> None:
    events = many_events(seed, 4_000)
    events["flags"] = flags
    assert_same_records([events], 10, f"seed {seed}")


@pytest.mark.parametrize("name", SCENARIOS)
def test_records_of_a_simulated_market_are_the_plain_ones(name: str) -> None:
    venue = Venue(listing("BTCUSD"), SCENARIOS[name], 1, 1_700_000_000 * 10**9)
    assert_same_records([venue.open(), *(venue.run(300) for _ in range(3))], 10)


def test_records_that_do_not_fit_at_once_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_depth.book.records.TEXT_BYTES", 1)
    assert_same_records(batches_of(1), 2)


NUMBERS = [0, 1, 9, 10, 99, 10**7, 10**8 - 1, 10**8, 10**16 - 1, 10**16, 10**16 + 1, 2**63 - 2, 2**63 - 1]


def test_records_may_begin_with_books_that_others_told() -> None:
    engine, plain = BookEngine(), PlainRecords(SYMBOLS, 3)
    rng = np.random.default_rng(1)
    first, second = narrow_events(rng, 200), narrow_events(rng, 200)
    SnapshotRecords(engine, SYMBOLS, 10).apply(first)
    plain.books.apply(first)
    second["flags"] |= np.uint8(Flag.LAST)

    assert SnapshotRecords(engine, SYMBOLS, 3).apply(second) == plain.apply(second)


def test_any_number_is_told() -> None:
    events = written("A 1 B 1 1 L;" * 2 * len(NUMBERS))
    events["order_id"] = np.arange(len(events))
    events["price"] = [number - 1 for number in NUMBERS] + [-number for number in NUMBERS]
    events["size"] = [number % 2**32 for number in NUMBERS] * 2
    events["ts_event"] = NUMBERS + [2**64 - 1 - number for number in NUMBERS]
    assert_same_records([events], len(events))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("CLX5_mbo.dbn", 40_000),
        ("dbeq-basic-20240403.mbo.dbn.zst", 30_000),
        ("esh4-glbx-mdp3-20231224.mbo.dbn.zst", 10_000),
    ],
)
def test_records_of_a_recorded_market_are_the_plain_ones(realdata: Path, file: str, count: int) -> None:
    assert_same_records(np.array_split(recorded(realdata / "dbn" / file)[:count], 7), 10)


def test_events_that_went_past_the_records_are_told_with_the_next() -> None:
    engine = BookEngine()
    records = SnapshotRecords(engine, SYMBOLS, 2)
    records.apply(written("A 1 B 9 5 L; A 2 B 8 5 L"))
    engine.apply(written("C 1 B 9 5 L; A 3 B 7 4 L"))

    (line,) = records.apply(written("A 4 A 11 1 L")).splitlines()

    assert [level["price"] for level in json.loads(line)["levels"]["bids"]] == ["8", "7"]
