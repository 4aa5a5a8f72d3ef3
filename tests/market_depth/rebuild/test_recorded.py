"""The recorded files, rebuilt, have the statistics and books that others found in them."""

import json
from pathlib import Path
from typing import Any

import databento_dbn
import pytest
import zstandard

from market_depth.feeds.dbn import NotDbnError, SchemaError
from market_depth.rebuild.rebuilding import rebuild
from market_depth.rebuild.statistics import Level
from protocol.events import UNDEF_PRICE

pytestmark = pytest.mark.realdata

Book = tuple[str, int, int, int, int, int, str, str, str | None]
"""Symbol, instrument id, publisher id, orders, bid levels, ask levels, best bid, best ask, spread."""

EMPTY_ESH1: tuple[int, int, list[Book]] = (2, 2, [("ESH1", 5482, 1, 0, 0, 0, "–", "–", None)])

EXPECTED: dict[str, tuple[int, int, list[Book]]] = {
    "CLX5_mbo.dbn": (
        38_212,
        1_440,
        [("CLX5", 432669, 1, 147, 61, 52, "65.40 × 1 (1)", "64.78 × 3 (1)", "-0.62")],
    ),
    "dbeq-basic-20240403.mbo.dbn.zst": (
        286_130,
        0,
        [
            ("GOOGL", 7152, 39, 7, 4, 3, "152.950 × 700 (1)", "154.530 × 700 (1)", "1.580"),
            ("GOOGL", 7152, 41, 2, 1, 1, "149.800 × 101 (1)", "155.000 × 300 (1)", "5.200"),
            ("GOOG", 7151, 41, 2, 1, 1, "147.470 × 100 (1)", "156.000 × 118 (1)", "8.530"),
            ("GOOGL", 7152, 40, 2, 1, 1, "145.920 × 100 (1)", "161.540 × 100 (1)", "15.620"),
            ("GOOG", 7151, 40, 2, 1, 1, "147.270 × 100 (1)", "163.060 × 100 (1)", "15.790"),
            ("GOOG", 7151, 39, 6, 3, 3, "154.620 × 700 (1)", "155.670 × 700 (1)", "1.050"),
        ],
    ),
    "esh4-glbx-mdp3-20231224.mbo.dbn.zst": (
        8_725,
        0,
        [("ESH4", 17077, 1, 8_725, 892, 559, "4799.00 × 16 (4)", "4799.50 × 23 (4)", "0.50")],
    ),
    "vendor/LIVE/test_data.live.dbn.zst": (
        46,
        0,
        [("ESZ4", 183748, 1, 5, 3, 2, "4702.75 × 2 (1)", "4730.50 × 2 (1)", "27.75")],
    ),
    "vendor/XNAS.ITCH/test_data.mbo.dbn.zst": (
        4,
        0,
        [("NVDA", 6155, 2, 4, 3, 1, "512.01 × 1 (1)", "539.00 × 17 (1)", "26.99")],
    ),
    "vendor/test_data.mbo.dbn": EMPTY_ESH1,
    "vendor/test_data.mbo.v1.dbn.zst": EMPTY_ESH1,
    "vendor/test_data.mbo.v2.dbn.zst": EMPTY_ESH1,
    "vendor/test_data.mbo.v3.dbn": EMPTY_ESH1,
    "vendor/test_data.mbo.v3.dbn.zst": EMPTY_ESH1,
}


def text(level: Level | None) -> str:
    return f"{level.price} × {level.size} ({level.count})" if level else "–"


@pytest.mark.parametrize("name", EXPECTED)
def test_the_statistics_of_a_recorded_file(realdata: Path, name: str) -> None:
    path = realdata / "dbn" / name
    records, unknown_orders, books = EXPECTED[name]

    statistics = rebuild(path)

    assert (statistics.file, statistics.bytes) == (path.name, path.stat().st_size)
    assert statistics.records == records
    # The live capture holds records of other types, too.
    assert statistics.orders_processed == (5 if "LIVE" in name else records)
    assert statistics.unknown_orders == unknown_orders
    assert [
        (
            book.symbol,
            book.instrument_id,
            book.publisher_id,
            book.active_orders,
            book.bid_levels,
            book.ask_levels,
            text(book.best_bid),
            text(book.best_ask),
            book.spread,
        )
        for book in statistics.books
    ] == books


def test_every_other_recorded_file_is_refused_with_what_it_is_and_where(realdata: Path) -> None:
    folder = realdata / "dbn"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.db*") if path.is_file()}
    assert files > set(EXPECTED)
    for name in files - set(EXPECTED):
        with pytest.raises(
            (SchemaError, NotDbnError), match=r"holds [a-z0-9-]+ records from byte [\d,]+ on|is DBZ"
        ):
            rebuild(folder / name)


@pytest.mark.parametrize("limit", [1_000, 5_000])
def test_the_last_record_of_the_output_is_the_book_after_the_last_event(
    realdata: Path, tmp_path: Path, limit: int
) -> None:
    output = tmp_path / "clx5.ndjson"

    statistics = rebuild(realdata / "dbn" / "CLX5_mbo.dbn", output=output, levels=1000, limit=limit)

    (book,) = statistics.books
    last = last_record(output)
    assert (len(last["levels"]["bids"]), len(last["levels"]["asks"])) == (book.bid_levels, book.ask_levels)
    assert last["stats"]["total_orders"] == book.active_orders


def test_the_output_ends_with_the_levels_that_others_found_in_the_file(
    realdata: Path, tmp_path: Path
) -> None:
    output = tmp_path / "clx5.ndjson"

    rebuild(realdata / "dbn" / "CLX5_mbo.dbn", output=output)

    expected = json.loads((realdata / "dbn" / "CLX5_final_book.json").read_text())
    assert sides(last_record(output)) == [
        [(round(level["px_f"] * 100) * 10**7, level["sz"], level["ct"]) for level in expected[side][:10]]
        for side in ("bids", "asks")
    ]


def last_record(output: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(output.read_bytes().splitlines()[-1])
    return record


def test_the_output_is_the_vendors_own_record_of_the_best_ten_levels(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "dbn" / "vendor" / "XNAS.ITCH"
    output = tmp_path / "nvda.ndjson"

    rebuild(folder / "test_data.mbo.dbn.zst", output=output)

    told = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(line["timestamp_ns"], *sides(line)) for line in told] == [
        (record.ts_event, *vendor_sides(record))
        for record in vendor_records(folder / "test_data.mbp-10.dbn.zst")
    ]


def sides(line: dict[str, Any]) -> list[list[tuple[int, int, int]]]:
    return [
        [(int(level["price"]), level["size"], level["count"]) for level in line["levels"][side]]
        for side in ("bids", "asks")
    ]


def vendor_records(path: Path) -> list[databento_dbn.MBP10Msg]:
    decoder = databento_dbn.DBNDecoder()
    decoder.write(zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read())
    return [record for record in decoder.decode() if isinstance(record, databento_dbn.MBP10Msg)]


def vendor_sides(record: databento_dbn.MBP10Msg) -> list[list[tuple[int, int, int]]]:
    levels = record.levels
    bids = [(level.bid_px, level.bid_sz, level.bid_ct) for level in levels]
    asks = [(level.ask_px, level.ask_sz, level.ask_ct) for level in levels]
    return [[level for level in side if level[0] != UNDEF_PRICE] for side in (bids, asks)]
