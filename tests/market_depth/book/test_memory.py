"""Memory that grew for many orders is given back after a clear."""

import numpy as np
import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.kernels import FIRST_NODES
from market_depth.book.memory import FEW_NODES, compacted, empty_arrays, with_more_nodes
from market_depth.book.records import SnapshotRecords
from market_depth.book.soundness import CheckedBookEngine, check_arrays
from protocol.events import Flag, OrderEvents, Side
from tests.market_depth.book.plain_book import PlainBooks
from tests.market_depth.book.plain_records import PlainRecords
from tests.market_depth.book.random_events import many_events, narrow_events
from tests.market_depth.book.test_agreement import assert_same_books
from tests.market_depth.book.written_events import INSTRUMENT, side_text, written


def filled(count: int, instrument_id: int = INSTRUMENT) -> OrderEvents:
    """As many adds, ten to a level."""
    events = np.tile(written("A 1 B 1 1", instrument_id=instrument_id), count)
    events["order_id"] = np.arange(count)
    events["price"] = np.arange(count) // 10
    return events


def test_nodes_become_four_times_as_many_while_they_are_few_then_twice() -> None:
    arrays, sizes = empty_arrays(), []
    for _ in range(5):
        sizes.append((len(arrays.nodes), len(arrays.ids)))
        arrays = with_more_nodes(arrays)

    nodes = [FEW_NODES >> 6, FEW_NODES >> 4, FEW_NODES >> 2, FEW_NODES, 2 * FEW_NODES]
    assert sizes == [(count, 2 * count) for count in nodes]


def test_memory_is_given_back_after_a_clear() -> None:
    engine = BookEngine()
    least = engine.memory_bytes
    engine.apply(filled(100_000))
    assert engine.memory_bytes > 20 * least

    engine.apply(written("R 0 N - 0; A 1 B 9 5"))

    assert engine.memory_bytes == least
    assert side_text(engine, Side.BID) == "9: 1x5"


def test_memory_stays_when_a_small_book_is_cleared() -> None:
    engine = BookEngine()
    engine.apply(filled(20_000))
    engine.apply(filled(1_000, instrument_id=2))
    size = engine.memory_bytes

    engine.apply(written("R 0 N - 0; A 1 B 9 5", instrument_id=2))

    assert engine.memory_bytes == size


def test_books_beside_the_cleared_one_stay_as_they_are() -> None:
    engine, plain = CheckedBookEngine(), PlainBooks()
    for batch in (
        filled(3_000, instrument_id=2),
        filled(60_000),
        narrow_events(np.random.default_rng(1), 200),
        written("R 0 N - 0"),
        narrow_events(np.random.default_rng(2), 200),
    ):
        engine.apply(batch)
        plain.apply(batch)

    assert_same_books(engine, plain)
    assert len(engine.arrays.nodes) < 60_000


@pytest.mark.parametrize("seed", range(3))
def test_compacted_arrays_are_the_same_books(seed: int) -> None:
    engine, plain = BookEngine(), PlainBooks()
    events = many_events(seed, 12_000)
    engine.apply(events[:10_000])
    plain.apply(events)

    engine._use(compacted(engine.arrays))
    check_arrays(engine.arrays)
    engine.apply(events[10_000:])

    check_arrays(engine.arrays)
    assert_same_books(engine, plain)


def test_nothing_is_compacted_to_the_least() -> None:
    arrays = compacted(BookEngine().arrays)

    check_arrays(arrays)
    assert len(arrays.nodes) == FIRST_NODES


def test_records_go_on_after_memory_was_given_back() -> None:
    engine = BookEngine()
    records, plain = SnapshotRecords(engine, {}, 3), PlainRecords({}, 3)
    fill = np.concatenate([filled(1_000, instrument_id=2), filled(40_000)])
    fill["flags"] = Flag.SNAPSHOT
    size = engine.memory_bytes

    for batch in (fill, np.concatenate([written("R 0 N - 0 L"), filled(20), filled(20, instrument_id=2)])):
        assert records.apply(batch) == plain.apply(batch)

    assert engine.memory_bytes == size
