"""The rules of the books, as tables of cases, and the memory that holds them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from market_depth.book import kernels
from market_depth.book.engine import BookEngine
from market_depth.book.views import best_bid_offer, price_levels, resting_orders
from protocol.events import ORDER_EVENT, UNDEF_PRICE, OrderEvents, Side, order_events
from tests.market_depth.book.random_events import many_events
from tests.market_depth.book.written_events import ALL, INSTRUMENT, side_text, written

RULES = {
    # Adds
    "an add rests": ("A 1 B 100 5", "100: 1x5", ""),
    "adds at one price queue in order of arrival": ("A 1 B 100 5; A 2 B 100 3; A 3 B 100 4", "100: 1x5 2x3 3x4", ""),
    "the highest bid and the lowest ask are best": (
        "A 1 B 99 1; A 2 B 100 1; A 3 B 98 1; A 4 A 103 1; A 5 A 102 1; A 6 A 104 1",
        "100: 2x1 | 99: 1x1 | 98: 3x1",
        "102: 5x1 | 103: 4x1 | 104: 6x1",
    ),
    "negative prices sort like others": (
        "A 1 B -5 1; A 2 B -3 1; A 3 B 0 1; A 4 A -1 1; A 5 A -2 1",
        "0: 3x1 | -3: 2x1 | -5: 1x1",
        "-2: 5x1 | -1: 4x1",
    ),
    "a book may be crossed": ("A 1 B 105 1; A 2 A 100 1", "105: 1x1", "100: 2x1"),
    "sizes use all of 32 bits": (f"A 1 B 100 {2**32 - 1}", f"100: 1x{2**32 - 1}", ""),
    "ids use all of 64 bits": (f"A {2**64 - 1} B 100 1", f"100: {2**64 - 1}x1", ""),
    # Cancels
    "a cancel of all removes": ("A 1 B 100 5; A 2 B 100 3; C 1 B 100 5", "100: 2x3", ""),
    "a cancel of more than rests removes": ("A 1 B 100 5; C 1 B 100 9", "", ""),
    "a cancel of a part keeps the place": ("A 1 B 100 5; A 2 B 100 3; C 1 B 100 2", "100: 1x3 2x3", ""),
    "a cancel of the last order removes the level": ("A 1 B 100 5; A 2 B 99 1; C 1 B 100 5", "99: 2x1", ""),
    "a cancel goes by id alone": ("A 1 B 100 5; C 1 N - 2", "100: 1x3", ""),
    # Modifies
    "a smaller size keeps the place": ("A 1 B 100 5; A 2 B 100 3; M 1 B 100 2", "100: 1x2 2x3", ""),
    "an equal size keeps the place": ("A 1 B 100 5; A 2 B 100 3; M 1 B 100 5", "100: 1x5 2x3", ""),
    "a greater size loses the place": ("A 1 B 100 5; A 2 B 100 3; M 1 B 100 6", "100: 2x3 1x6", ""),
    "another price loses the place": (
        "A 1 B 100 5; A 2 B 99 3; M 1 B 99 2; M 2 B 100 3; M 2 B 99 3",
        "99: 1x2 2x3",
        "",
    ),
    "another side moves": ("A 1 B 100 5; M 1 A 100 5", "", "100: 1x5"),
    "side N keeps the side": ("A 1 A 100 5; M 1 N 101 4", "", "101: 1x4"),
    "a modify to size 0 removes": ("A 1 B 100 5; M 1 B 100 0", "", ""),
    "a modify to an undefined price removes": ("A 1 B 100 5; M 1 B - 5", "", ""),
    # Clears
    "a clear empties both sides": ("A 1 B 100 5; A 2 A 101 5; R 0 N - 0", "", ""),
    "a cleared id may be added again": ("A 1 B 100 5; R 0 N - 0; A 1 A 101 2", "", "101: 1x2"),
    # Trades, fills, no action
    "trades and fills tell and change nothing": ("A 1 B 100 5; T 0 A 100 5; F 1 B 100 5; N 1 B 100 5", "100: 1x5", ""),
    # Top of book
    "a top-of-book add replaces its side": (
        "A 1 B 100 5 T; A 2 A 101 5 T; A 3 B 99 4 T",
        "99: 3x4",
        "101: 2x5",
    ),
    "a top-of-book add without a price empties its side": ("A 1 B 100 5 T; A 2 A 101 5 T; A 0 B - 0 T", "", "101: 2x5"),
    "a top-of-book add without a size empties its side": ("A 1 B 100 5 T; A 2 B 100 0 T", "", ""),
    "a top-of-book add replaces orders with ids too": ("A 1 B 100 5; A 2 B 99 5; A 3 B 98 1 T", "98: 3x1", ""),
    "top-of-book ids may collide": (
        "A 1 B 100 5 T; A 1 A 101 5 T; A 1 B 99 4 T",
        "99: 1x4",
        "101: 1x5",
    ),
    "an order beside a top-of-book order of its id is another": (
        "A 1 B 100 5 T; A 1 B 100 2; C 1 B 100 2",
        "100: 1x5",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("events", "bids", "asks"), RULES.values(), ids=RULES)
def test_rule(events: str, bids: str, asks: str) -> None:
    engine = BookEngine()

    engine.apply(written(events))

    assert (side_text(engine, Side.BID), side_text(engine, Side.ASK)) == (bids, asks)
    counters = engine.counters
    assert (counters.unknown_orders, counters.duplicate_orders, counters.invalid_events) == (0, 0, 0)


COUNTED = {
    "a cancel of an unknown order": ("unknown_orders", "A 1 B 100 5; C 2 B 100 5", "100: 1x5"),
    "a modify of an unknown order, which is added": ("unknown_orders", "M 2 B 100 5", "100: 2x5"),
    "a modify of an unknown order to nothing": ("unknown_orders", "M 2 B 100 0", ""),
    "a modify of an unknown order on no side": ("unknown_orders", "M 2 N 100 5", ""),
    "a cancel of a top-of-book order, which has no id": ("unknown_orders", "A 1 B 100 5 T; C 1 B 100 5", "100: 1x5"),
    "an add of a resting id, which moves": (
        "duplicate_orders",
        "A 1 B 100 5; A 2 B 100 3; A 1 B 100 5",
        "100: 2x3 1x5",
    ),
    "an add of a resting id on the other side": ("duplicate_orders", "A 1 A 101 5; A 1 B 100 4", "100: 1x4"),
    "an add without a price": ("invalid_events", "A 1 B - 5", ""),
    "an add at the lowest number there is": ("invalid_events", f"A 1 B {-(2**63)} 5", ""),
    "an add of size 0": ("invalid_events", "A 1 B 100 0", ""),
    "an add of a resting id with size 0, which stays": ("invalid_events", "A 1 B 100 5; A 1 B 100 0", "100: 1x5"),
    "an add on no side": ("invalid_events", "A 1 N 100 5", ""),
    "an add on an unknown side": ("invalid_events", "A 1 x 100 5", ""),
    "a top-of-book add on no side": ("invalid_events", "A 1 B 100 5 T; A 2 N 100 5 T", "100: 1x5"),
    "a modify to an unknown side": ("invalid_events", "A 1 B 100 5; M 1 x 100 4", "100: 1x5"),
    "a cancel of size 0": ("invalid_events", "A 1 B 100 5; C 1 B 100 0", "100: 1x5"),
    "an unknown action": ("invalid_events", "A 1 B 100 5; x 1 B 100 5", "100: 1x5"),
}  # fmt: skip


@pytest.mark.parametrize(("counter", "events", "bids"), COUNTED.values(), ids=COUNTED)
def test_counted(counter: str, events: str, bids: str) -> None:
    engine = BookEngine()

    engine.apply(written(events))

    assert side_text(engine, Side.BID) == bids
    assert side_text(engine, Side.ASK) == ""
    counts = {
        name: getattr(engine.counters, name)
        for name in ("unknown_orders", "duplicate_orders", "invalid_events")
    }
    assert counts == {**dict.fromkeys(counts, 0), counter: 1}


CHANGES = {
    "an add": ("A 1 B 100 5", 1),
    "a partial cancel": ("A 1 B 100 5; C 1 B 100 2", 2),
    "a modify that changes nothing": ("A 1 B 100 5; M 1 B 100 5", 1),
    "a cancel of an unknown order": ("C 1 B 100 5", 0),
    "trades and fills": ("T 0 B 100 5; F 1 B 100 5; N 0 N - 0", 0),
    "a clear": ("A 1 B 100 5; A 2 A 101 5; R 0 N - 0", 3),
    "a clear of an empty book": ("R 0 N - 0", 0),
    "a top-of-book add": ("A 1 B 100 5 T; A 1 B 100 5 T", 2),
    "a top-of-book add that empties an empty side": ("A 1 B - 0 T", 0),
}


@pytest.mark.parametrize(("events", "sequence"), CHANGES.values(), ids=CHANGES)
def test_sequence_counts_the_events_that_changed_the_book(events: str, sequence: int) -> None:
    engine = BookEngine()

    engine.apply(written(events))

    assert engine.sequence(INSTRUMENT) == sequence


PLACED = {
    "an add": ("A 1 B 100 5; A 2 B 100 5", 1),
    "a partial cancel": ("A 1 B 100 5; C 1 B 100 2", 1),
    "a modify in place": ("A 1 B 100 5; M 1 B 100 2", 1),
    "a modify that loses the place": ("A 1 B 100 5; M 1 B 100 6", 2),
    "a modify to another price": ("A 1 B 100 5; M 1 B 101 5", 2),
    "an add of a resting id": ("A 1 B 100 5; A 1 B 100 5", 2),
}


@pytest.mark.parametrize(("events", "ts_event"), PLACED.values(), ids=PLACED)
def test_an_order_is_as_old_as_its_place_in_the_queue(events: str, ts_event: int) -> None:
    engine = BookEngine()

    engine.apply(written(events))

    (first, *_) = resting_orders(engine, INSTRUMENT, Side.BID, ALL)
    assert first["ts_event"] == ts_event


def test_a_book_remembers_its_last_event() -> None:
    engine = BookEngine()

    engine.apply(written("A 1 B 100 5; A 2 A 101 5; T 0 B 101 1 L"))

    (index,) = engine.books(INSTRUMENT)
    book = engine.book(index)
    assert (book.ts_event, book.ts_recv, book.flags) == (3, 3, 128)
    assert (book.orders, book.bid_levels, book.ask_levels) == (2, 1, 1)


def test_counters_tell_what_was_seen() -> None:
    engine = BookEngine()

    engine.apply(
        written(
            "A 1 B 100 5; A 2 A 101 5; M 1 B 100 4; T 0 B 101 1; F 2 A 101 1; C 2 A 101 1; N 0 N - 0; x 0 N - 0"
        )
    )

    counters = engine.counters
    assert counters.events == 8
    assert (counters.adds, counters.modifies, counters.cancels, counters.clears) == (2, 1, 1, 0)
    assert (counters.trades, counters.fills, counters.nones) == (1, 1, 1)


def test_each_publisher_of_an_instrument_has_its_own_book() -> None:
    engine = BookEngine()

    engine.apply(written("A 1 B 100 5", publisher_id=39))
    engine.apply(written("A 1 B 100 3; A 1 B 101 2 T", publisher_id=40))
    engine.apply(written("R 0 N - 0", publisher_id=41))

    books = [engine.book(index) for index in engine.books(INSTRUMENT)]
    assert [(book.publisher_id, book.orders) for book in books] == [(39, 1), (40, 1), (41, 0)]
    assert engine.sequence(INSTRUMENT) == 3


def test_one_id_may_rest_in_several_instruments() -> None:
    engine = BookEngine()

    engine.apply(np.concatenate([written("A 1 B 100 5", instrument_id=i) for i in (7, 2**32 - 1, 0)]))
    engine.apply(written("C 1 B 100 5", instrument_id=7))

    assert engine.instruments() == [7, 2**32 - 1, 0]
    assert [side_text(engine, Side.BID, i) for i in (7, 2**32 - 1, 0)] == ["", "100: 1x5", "100: 1x5"]


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda events: events[::2], id="every second row"),
        pytest.param(lambda events: events[::-1], id="backwards"),
        pytest.param(lambda events: np.frombuffer(events.tobytes(), ORDER_EVENT), id="read-only"),
        pytest.param(
            lambda events: np.frombuffer(b"123" + events.tobytes(), ORDER_EVENT, offset=3), id="unaligned"
        ),
        pytest.param(lambda events: events[:0], id="empty"),
    ],
)  # fmt: skip
def test_events_may_lie_in_memory_as_they_like(cut: Callable[[OrderEvents], OrderEvents]) -> None:
    events = written("A 1 B 100 5; A 2 B 101 5; A 3 B 102 5; A 4 B 103 5")
    engine, expected = BookEngine(), BookEngine()

    engine.apply(cut(events))
    expected.apply(np.array(cut(events)))

    assert side_text(engine, Side.BID) == side_text(expected, Side.BID)
    assert events.flags.writeable


def test_one_compilation_serves_all_events() -> None:
    for events in (
        order_events(3),
        np.frombuffer(order_events(3).tobytes(), ORDER_EVENT),
        order_events(9)[::3],
    ):
        BookEngine().apply(events)

    assert len(kernels.apply_events.signatures) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("events", "error", "text"),
    [
        ([], TypeError, "events must be an array of ORDER_EVENT rows, not list"),
        (np.zeros(3), TypeError, "events must be an array of ORDER_EVENT rows, not an array of float64"),
        (np.zeros((2, 3), ORDER_EVENT), ValueError, "events must have one dimension, not 2"),
        (np.zeros((), ORDER_EVENT), ValueError, "events must have one dimension, not 0"),
    ],
)
def test_what_is_not_events_is_refused(events: OrderEvents, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        BookEngine().apply(events)


def test_events_may_come_as_single_records() -> None:
    engine, expected = BookEngine(), BookEngine()
    events = many_events(1, 20_000)

    data = events.tobytes()
    for start in range(0, len(data), ORDER_EVENT.itemsize):
        engine.apply_record(data[start : start + ORDER_EVENT.itemsize])
    expected.apply(events)

    assert engine.counters == expected.counters
    for instrument_id in expected.instruments():
        for side in (Side.BID, Side.ASK):
            assert side_text(engine, side, instrument_id) == side_text(expected, side, instrument_id)


@pytest.mark.parametrize("size", [0, 55, 57, 112])
def test_a_record_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a record has 56 bytes, not {size}"):
        BookEngine().apply_record(bytes(size))


def test_an_instrument_never_seen_has_no_books() -> None:
    engine = BookEngine()

    assert engine.books(5) == []
    assert engine.sequence(5) == 0
    with pytest.raises(IndexError, match="no book 0: there are 0"):
        engine.book(0)


def resting_at(prices: list[int]) -> OrderEvents:
    events = written("A 1 B 1 1;" * len(prices))
    events["order_id"] = np.arange(len(prices))
    events["price"] = prices
    return events


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_books_grow_in_one_batch(order: str) -> None:
    prices = np.arange(20_000)
    if order != "rising":
        prices = prices[::-1] if order == "falling" else np.random.default_rng(1).permutation(prices)
    engine = BookEngine()

    engine.apply(resting_at(prices.tolist()))

    levels = price_levels(engine, INSTRUMENT, Side.BID, ALL)
    assert levels[:, 0].tolist() == list(range(19_999, -1, -1))
    assert levels[:, 1:].min() == levels[:, 1:].max() == 1


def test_thousands_of_books_grow_in_one_batch() -> None:
    events = np.tile(written("A 1 B 100 5"), 5_000)
    events["instrument_id"] = np.arange(5_000) * 4096
    engine = BookEngine()

    engine.apply(events)

    assert engine.instruments() == events["instrument_id"].tolist()
    assert {side_text(engine, Side.BID, instrument_id) for instrument_id in engine.instruments()} == {
        "100: 1x5"
    }


def test_memory_is_used_again() -> None:
    engine = BookEngine()
    batch = np.concatenate([resting_at(list(range(1_000))), written("R 0 N - 0")])
    engine.apply(batch)
    size = engine.memory_bytes

    for _ in range(50):
        engine.apply(batch)

    assert engine.memory_bytes == size
    assert best_bid_offer(engine, INSTRUMENT).bid is None


def test_prices_at_both_ends_of_the_range_rest() -> None:
    engine = BookEngine()

    engine.apply(
        written(
            f"A 1 B {UNDEF_PRICE - 1} 1; A 2 B {-(2**63) + 1} 1; A 3 A {UNDEF_PRICE - 1} 1; A 4 A {-(2**63) + 1} 1"
        )
    )

    assert side_text(engine, Side.BID) == f"{UNDEF_PRICE - 1}: 1x1 | {-UNDEF_PRICE}: 2x1"
    assert side_text(engine, Side.ASK) == f"{-UNDEF_PRICE}: 4x1 | {UNDEF_PRICE - 1}: 3x1"


def test_the_kernels_are_in_the_cache_once_they_ran() -> None:
    BookEngine.warm_up()

    assert BookEngine.is_compiled()


def test_the_kernels_are_not_in_an_empty_cache(tmp_path: Path) -> None:
    program = "from market_depth.book.engine import BookEngine; print(BookEngine.is_compiled())"

    output = subprocess.check_output(
        [sys.executable, "-c", program], env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}, text=True
    )

    assert output == "False\n"


def test_importing_the_package_does_not_load_numba() -> None:
    program = "import sys, market_depth.book; print('numba' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"
