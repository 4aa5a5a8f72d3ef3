import json
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from market_depth.book.engine import BookEngine
from market_depth.book.records import SnapshotRecords
from market_depth.book.views import price_levels
from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError
from market_depth.feeds.dbn import DamagedFileError, FileUnreadableError, NotDbnError, SchemaError
from market_depth.rebuild.errors import CancelledError, IncompleteError, OutputError
from market_depth.rebuild.rebuilding import MAX_LEVELS, Progress, rebuild
from market_depth.rebuild.statistics import FinalBook, Level
from protocol.events import Flag, OrderEvents, Side
from tests.market_depth.book.written_events import written
from tests.market_depth.feeds.dbn_files import CENT, adds, compressed, encoded, metadata, write
from tests.market_depth.feeds.test_dbn_records import STATUS, TRADE, mapping

Json = dict[str, Any]

HEADER = metadata().encode()
BLOCK_BYTES = 1 << 17  # of content in a zstd file


def market(count: int, *, instrument_ids: tuple[int, ...] = (7,)) -> OrderEvents:
    """Adds on both sides and cancels of some of them, each an event by itself but every fifth, which goes on."""
    events = adds(count, instrument_ids=instrument_ids)
    numbers = np.arange(count)
    is_ask = numbers // len(instrument_ids) % 2 == 1
    events["side"][is_ask] = Side.ASK
    events["price"][is_ask] += 60 * CENT
    cancels = (numbers % 3 == 2) & (numbers >= 6 * len(instrument_ids))
    events[cancels] = events[np.flatnonzero(cancels) - 4 * len(instrument_ids)]
    events["action"][cancels] = ord("C")
    events["ts_event"] = events["ts_recv"] = 1_700_000_000_000_000_000 + numbers
    events["flags"] = np.where(numbers % 5 == 3, 0, Flag.LAST)
    return events


def lines(text: bytes) -> list[Json]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_is_told_of_with_its_final_books(tmp_path: Path) -> None:
    events = written(
        "A 1 B 65390000000 2 L; A 2 B 65400000000 1; A 3 B 65400000000 4 L; A 4 A 65450000000 3 L; C 9 B 65000000000 1 L; T 0 A 65000000000 1",
        instrument_id=7,
        publisher_id=2,
    )
    path = write(tmp_path, encoded(events) + STATUS)

    statistics = rebuild(path)

    assert statistics.books == (
        FinalBook(
            symbol="ACME",
            instrument_id=7,
            publisher_id=2,
            active_orders=4,
            bid_levels=2,
            ask_levels=1,
            best_bid=Level("65.40", 5, 2),
            best_ask=Level("65.45", 3, 1),
            spread="0.05",
        ),
    )
    assert (statistics.file, statistics.bytes) == ("test.dbn", path.stat().st_size)
    assert (statistics.records, statistics.orders_processed, statistics.unknown_orders) == (7, 6, 1)
    assert statistics.throughput_per_s == pytest.approx(7 / statistics.wall_s)
    assert 0 < statistics.apply_mean_ns < statistics.wall_s * 1e9 / 6
    assert statistics.apply_p99_ns == pytest.approx(statistics.apply_mean_ns, rel=0.01)  # of one batch


def test_statistics_have_the_promised_names_and_are_json(tmp_path: Path) -> None:
    told = json.loads(json.dumps(rebuild(write(tmp_path, encoded(adds(3)))).as_dict()))
    assert list(told) == [
        "file",
        "bytes",
        "records",
        "orders_processed",
        "unknown_orders",
        "wall_s",
        "throughput_per_s",
        "apply_mean_ns",
        "apply_p99_ns",
        "books",
    ]
    assert told["books"] == [
        {
            "symbol": "ACME",
            "instrument_id": 7,
            "publisher_id": 2,
            "active_orders": 3,
            "bid_levels": 3,
            "ask_levels": 0,
            "best_bid": {"price": "10.02", "size": 1, "count": 1},
            "best_ask": None,
            "spread": None,
        }
    ]


def test_records_of_other_types_are_counted_to_the_end_of_the_file(tmp_path: Path) -> None:
    content = STATUS + encoded(adds(3))[len(HEADER) :] + STATUS * 50_000
    statistics = rebuild(write(tmp_path, HEADER + content))
    assert (statistics.records, statistics.orders_processed) == (50_004, 3)
    with pytest.raises(IncompleteError, match=r"\(record 50,005\), after 3 order events") as incomplete:
        rebuild(write(tmp_path, HEADER + content + b"\x0e"))
    assert incomplete.value.statistics.records == 50_004


def test_each_publisher_and_instrument_has_its_own_book(tmp_path: Path) -> None:
    first = written("A 1 B 100 5 L; A 2 A 90 5 L", instrument_id=7, publisher_id=2)
    other = written("A 1 B 300 1 L", instrument_id=7, publisher_id=3)
    unnamed = written("A 1 A 200 1 L; C 1 A 200 1 L", instrument_id=8, publisher_id=2)
    statistics = rebuild(write(tmp_path, encoded(np.concatenate([first, other, unnamed]))))
    assert [
        (book.symbol, book.publisher_id, book.best_bid and book.best_bid.size, book.spread)
        for book in statistics.books
    ] == [("ACME", 2, 5, "-0.00000001"), ("ACME", 3, 1, None), ("8", 2, None, None)]


@pytest.mark.parametrize("pack", [lambda content: content, compressed], ids=["plain", "zstd"])
@pytest.mark.parametrize("count", [1, MAX_BATCH_RECORDS, 9 * MAX_BATCH_RECORDS + 5])
def test_books_are_those_of_all_events_however_many_chunks_and_whatever_the_compression(
    tmp_path: Path, count: int, pack: Callable[[bytes], bytes]
) -> None:
    events = market(count, instrument_ids=(7, 8, 9))
    statistics = rebuild(write(tmp_path, pack(encoded(events))))
    engine = BookEngine()
    engine.apply(events)
    states = [engine.book(index) for index in range(engine.book_count)]
    assert statistics.orders_processed == statistics.records == count
    assert [
        (book.instrument_id, book.active_orders, book.bid_levels, book.ask_levels)
        for book in statistics.books
    ] == [(state.instrument_id, state.orders, state.bid_levels, state.ask_levels) for state in states]


def test_instruments_that_appear_late_are_rebuilt_and_named_like_the_others(tmp_path: Path) -> None:
    late = adds(4, instrument_ids=(98, 99))
    content = encoded(adds(2 * MAX_BATCH_RECORDS)) + mapping(99, "LATE", "LATE") + late.tobytes()
    output = tmp_path / "out.ndjson"
    for asked in (None, output):
        statistics = rebuild(write(tmp_path, content), output=asked)
        assert [(book.symbol, book.active_orders) for book in statistics.books] == [
            ("ACME", 2 * MAX_BATCH_RECORDS),
            ("98", 2),
            ("LATE", 2),
        ]
    assert [line["symbol"] for line in lines(output.read_bytes())][-4:] == ["98", "LATE", "98", "LATE"]


@pytest.mark.parametrize(
    "limit", [1, 100, MAX_BATCH_RECORDS, MAX_BATCH_RECORDS + 1, 2 * MAX_BATCH_RECORDS - 1, 10**9]
)
def test_a_limit_ends_after_so_many_order_events(tmp_path: Path, limit: int) -> None:
    events = market(2 * MAX_BATCH_RECORDS)
    statistics = rebuild(write(tmp_path, encoded(events)), limit=limit)
    engine = BookEngine()
    engine.apply(events[:limit])
    assert statistics.records == statistics.orders_processed == min(limit, len(events))
    assert [book.active_orders for book in statistics.books] == [engine.book(0).orders]


def test_a_limit_before_damage_does_not_meet_it(tmp_path: Path) -> None:
    assert rebuild(write(tmp_path, encoded(adds(5)) + b"\x0e"), limit=5).orders_processed == 5


def test_levels_and_limits_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(adds(1)))
    for levels in (0, MAX_LEVELS + 1):
        with pytest.raises(ValueError, match=f"levels must be 1 to 1000, not {levels}"):
            rebuild(path, levels=levels)
    with pytest.raises(ValueError, match="a limit must be 1 or more, not 0"):
        rebuild(path, limit=0)


def test_progress_is_told_after_each_chunk_up_to_the_end(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(adds(3 * MAX_BATCH_RECORDS)))
    told: list[Progress] = []
    rebuild(path, progress=told.append)
    assert [progress.records for progress in told] == [n * MAX_BATCH_RECORDS for n in (1, 2, 3)]
    size = path.stat().st_size
    assert {progress.bytes for progress in told} == {size}
    assert 0 < told[0].bytes_read < told[1].bytes_read < told[2].bytes_read == size


def test_a_cancelled_rebuild_stops_after_the_chunk_and_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(adds(20 * MAX_BATCH_RECORDS)))
    folder = tmp_path / "out"
    folder.mkdir()
    told: list[Progress] = []
    with pytest.raises(CancelledError):
        rebuild(
            path,
            output=folder / "x.ndjson.zst",
            levels=1,
            progress=told.append,
            is_cancelled=lambda: len(told) == 2,
        )
    assert len(told) == 2
    assert list(folder.iterdir()) == []
    for thread in threading.enumerate():
        if thread.name.startswith("read-ahead"):
            thread.join(10)
            assert not thread.is_alive()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    events = adds(MAX_BATCH_RECORDS)
    events["action"] = ord("T")
    events["order_id"] = 0
    content = encoded(np.tile(events, 40))  # 37 MB
    small = write(tmp_path, encoded(np.tile(events, 6)), "small.dbn")
    large = write(tmp_path, content, "large.dbn")
    packed = write(tmp_path, compressed(content), "large.dbn.zst")
    rebuild(small)
    peaks = []
    for path in (small, large, packed):
        tracemalloc.start()
        rebuild(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < peaks[0] + 500_000 < 10_000_000, peaks


def shown(levels: np.ndarray[Any, Any]) -> list[Json]:
    return [{"price": str(price), "size": size, "count": count} for price, size, count in levels.tolist()]


@pytest.mark.parametrize("depth", [1, 3, 1000])
def test_the_output_is_each_change_of_the_best_levels_at_the_end_of_events(
    tmp_path: Path, depth: int
) -> None:
    events = market(500)
    engine, expected = BookEngine(), []
    before: list[list[Json]] = [[], []]
    for number, event in enumerate(events):
        engine.apply(events[number : number + 1])
        bids, asks = (shown(price_levels(engine, 7, side, depth)) for side in (Side.BID, Side.ASK))
        if event["flags"] & Flag.LAST and [bids, asks] != before:
            before = [bids, asks]
            state = engine.book(0)
            expected.append(
                {
                    "symbol": "ACME",
                    "timestamp": str(event["ts_event"]),
                    "timestamp_ns": int(event["ts_event"]),
                    "bbo": {"bid": bids[0] if bids else None, "ask": asks[0] if asks else None},
                    "levels": {"bids": bids, "asks": asks},
                    "stats": {
                        "total_orders": state.orders,
                        "bid_levels": state.bid_levels,
                        "ask_levels": state.ask_levels,
                    },
                }
            )
    output = tmp_path / "out.ndjson"

    rebuild(write(tmp_path, encoded(events)), output=output, levels=depth)

    told = lines(output.read_bytes())
    assert [{name: line[name] for name in expected[0]} for line in told] == expected


def test_the_output_of_a_long_file_is_whole(tmp_path: Path) -> None:
    events = market(3 * MAX_BATCH_RECORDS, instrument_ids=(7, 8))
    texts = []
    SnapshotRecords(engine := BookEngine(), {7: "ACME", 8: "8"}, 10).apply_and_write(
        events, lambda text: texts.append(bytes(text))
    )
    plain, packed = tmp_path / "out.ndjson", tmp_path / "out.ndjson.zst"

    path = write(tmp_path, compressed(encoded(events)))
    for output in (plain, packed):
        rebuild(path, output=output)

    assert engine.book_count == 2
    assert plain.read_bytes() == b"".join(texts)
    assert zstandard.ZstdDecompressor().stream_reader(packed.read_bytes()).read() == b"".join(texts)


def test_an_input_is_never_its_own_output(tmp_path: Path) -> None:
    content = encoded(adds(3))
    path = write(tmp_path, content)
    with pytest.raises(OutputError, match=r"test\.dbn: is the file to be read"):
        rebuild(path, output=path)
    assert path.read_bytes() == content


SMALL = market(5)
PLAIN = encoded(SMALL)


def test_cut_short_anywhere_a_file_is_rebuilt_as_far_as_it_goes_and_the_place_is_told(tmp_path: Path) -> None:
    for length in range(len(PLAIN)):
        path = write(tmp_path, PLAIN[:length])
        whole, torn = divmod(length - len(HEADER), 56)
        if length < len(HEADER) or (whole == 0 and torn):
            with pytest.raises(FeedError, match=r"is empty|not a DBN file|at byte") as unread:
                rebuild(path)
            place = "" if length < 4 else f"at byte {min(length, len(HEADER)):,}"
            assert place in str(unread.value)
            continue
        if torn:
            with pytest.raises(IncompleteError) as incomplete:
                rebuild(path)
            statistics = incomplete.value.statistics
            place = f"({torn} bytes of it) at byte {length - torn:,} (record {whole + 1}), after {whole} order events"
            assert place in str(incomplete.value)
            assert isinstance(incomplete.value.damage, DamagedFileError)
        else:
            statistics = rebuild(path)
        assert statistics.records == statistics.orders_processed == whole


@pytest.mark.parametrize("whole", range(1, len(SMALL)))
@pytest.mark.parametrize("name", ["out.ndjson", "out.ndjson.zst"])
def test_the_output_of_a_file_cut_short_is_that_of_its_whole_records(
    tmp_path: Path, whole: int, name: str
) -> None:
    output, expected = tmp_path / name, tmp_path / f"expected-{name}"
    rebuild(write(tmp_path, encoded(SMALL[:whole])), output=expected)
    with pytest.raises(IncompleteError):
        rebuild(write(tmp_path, encoded(SMALL)[: len(HEADER) + 56 * whole + 20]), output=output)
    assert output.read_bytes() == expected.read_bytes() != b""


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.9999])
def test_a_compressed_file_cut_short_is_rebuilt_as_far_as_its_blocks_go(tmp_path: Path, kept: float) -> None:
    content = encoded(adds(20_000))
    packed = compressed(content)
    path = write(tmp_path, packed[: int(len(packed) * kept)], "test.dbn.zst")
    with pytest.raises(
        IncompleteError,
        match=rf"cannot be read on at byte .*: its compressed data breaks off at byte {path.stat().st_size:,} of the file;",
    ) as incomplete:
        rebuild(path)
    statistics = incomplete.value.statistics
    read_bytes = len(HEADER) + 56 * statistics.records
    assert read_bytes > kept * len(content) - 2 * BLOCK_BYTES
    assert f"(record {statistics.records + 1:,})" in str(incomplete.value)


def test_damage_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    count = MAX_BATCH_RECORDS + 100
    content = encoded(adds(count)) + bytes(56) + adds(5).tobytes()
    with pytest.raises(IncompleteError, match=rf"no record .* \(record {count + 1:,}\)") as incomplete:
        rebuild(write(tmp_path, content))
    assert [book.active_orders for book in incomplete.value.statistics.books] == [count]


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", NotDbnError, "is empty (0 bytes)"),
        (HEADER[:50], NotDbnError, "breaks off inside its metadata, at byte 50 and before record 1"),
        (metadata(schema=None).encode() + TRADE, SchemaError, "holds mbp-0 records from byte"),
        (HEADER + bytes(56), DamagedFileError, f"at byte {len(HEADER)} (record 1), after 0 order events"),
    ],
)
def test_a_file_of_which_nothing_can_be_had_is_refused_and_the_output_untouched(
    tmp_path: Path, content: bytes, error: type[FeedError], text: str
) -> None:
    output = write(tmp_path, b"older", "out.ndjson")
    with pytest.raises(error) as raised:
        rebuild(write(tmp_path, content), output=output)
    assert text in str(raised.value)
    assert output.read_bytes() == b"older"


def test_a_missing_file_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market_depth.rebuild.rebuilding.load_kernels", lambda _: pytest.fail("too early"))
    with pytest.raises(FileUnreadableError, match="no such file"):
        rebuild(tmp_path / "missing.dbn")


def test_a_file_without_order_events_has_no_books(tmp_path: Path) -> None:
    statistics = rebuild(write(tmp_path, HEADER))
    assert (statistics.records, statistics.books) == (0, ())
    assert statistics.apply_mean_ns == statistics.apply_p99_ns == statistics.throughput_per_s == 0
