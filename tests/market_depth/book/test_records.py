"""The snapshot records that a batch of events leads to."""

import json

import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.records import SnapshotRecords
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
