from collections.abc import Sequence
from decimal import Decimal

import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.soundness import CheckedBookEngine
from market_depth.record.frame_changes import FrameChanges, FrameError, order_number
from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side
from protocol.messages import MarketData, PriceLevels, RestingOrder, RestingOrders
from protocol.timestamp import NS_PER_S
from tests.market_depth.feeds.dbn_files import START_NS
from tests.market_depth.record.frames import ACME, Resting, frame, frame_of, random_books, rows, shown

NOW_NS = START_NS + 60 * NS_PER_S


def told(*frames: MarketData) -> OrderEvents:
    """The events that lead to the last of the frames."""
    changes = FrameChanges(ACME)
    return [changes.take(one) for one in frames][-1]


def in_short(events: OrderEvents) -> list[str]:
    """Action, number and size of each."""
    return [f"{event['action']:c} {event['order_id']} {event['size']}" for event in events]


def test_a_first_frame_is_a_snapshot() -> None:
    events = told(frame(Resting(5, -1, 10, 3), Resting(6, 2, 20, 4), sequence=9))
    clear, bid, ask = events
    assert (clear["action"], clear["side"], clear["price"]) == (Action.CLEAR, Side.NONE, UNDEF_PRICE)
    assert [bid[name] for name in ("action", "side", "order_id", "price", "size")] == [
        Action.ADD,
        Side.BID,
        5,
        999 * ACME.tick_size,
        10,
    ]
    assert (ask["side"], ask["price"]) == (Side.ASK, 1002 * ACME.tick_size)
    assert events["ts_event"].tolist() == [NOW_NS, START_NS + 3 * NS_PER_S, START_NS + 4 * NS_PER_S]
    assert events["ts_recv"].tolist() == [NOW_NS] * 3
    assert events["sequence"].tolist() == [9] * 3
    assert events["instrument_id"].tolist() == [7] * 3
    assert events["flags"].tolist() == [Flag.SNAPSHOT, Flag.SNAPSHOT, Flag.SNAPSHOT | Flag.LAST]


def test_an_empty_first_frame_is_a_clear() -> None:
    events = told(frame())
    assert in_short(events) == ["R 0 0"]
    assert events["flags"].tolist() == [Flag.SNAPSHOT | Flag.LAST]


A, B, C = (Resting(number, -1, 10, number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        ([A, B], [A, B], []),
        ([A], [A, B], ["A 2 10"]),
        ([A, B], [B], ["C 1 10"]),
        ([A], [A._replace(lots=4)], ["M 1 4"]),
        ([A, B], [B, A._replace(lots=11, placed_s=9)], ["M 1 11"]),
        ([A, B], [A, B._replace(ticks=-2, placed_s=9)], ["M 2 10"]),
        # To the end of its own queue with the same size: a Modify would leave it where it is.
        ([A, B], [B, A._replace(placed_s=9)], ["C 1 10", "A 1 10"]),
        ([A, B, C], [B._replace(lots=9), C, A._replace(lots=3, placed_s=9)], ["C 1 10", "M 2 9", "A 1 3"]),
        # It was away and came back before anyone else joined.
        ([A], [A._replace(placed_s=9)], ["C 1 10", "A 1 10"]),
        # To the other side.
        ([A], [A._replace(ticks=1)], ["C 1 10", "A 1 10"]),
        ([A, B], [], ["C 1 10", "C 2 10"]),
        # No market puts an order before others; a server that does is believed.
        ([A, B], [A, C, B], ["C 2 10", "A 3 10", "A 2 10"]),
    ],
)
def test_a_frame_is_told_by_what_changed(
    before: Sequence[Resting], after: Sequence[Resting], events: list[str]
) -> None:
    assert in_short(told(frame(*before), frame(*after, at_s=61))) == events


def test_changes_are_one_event_of_the_frames_time_and_orders_keep_theirs() -> None:
    events = told(frame(A, B), frame(B._replace(lots=1), C, sequence=2**32 + 5, at_s=61))
    assert in_short(events) == ["C 1 10", "M 2 1", "A 3 10"]
    assert events["flags"].tolist() == [0, 0, Flag.LAST]
    now_ns = START_NS + 61 * NS_PER_S
    assert events["ts_event"].tolist() == [now_ns, now_ns, START_NS + 3 * NS_PER_S]
    assert events["ts_recv"].tolist() == [now_ns] * 3
    assert events["sequence"].tolist() == [5] * 3


@pytest.mark.parametrize("seed", range(8))
def test_whoever_applies_the_events_has_the_book_of_every_frame(seed: int) -> None:
    changes, engine = FrameChanges(ACME), CheckedBookEngine()
    for number, sides in enumerate(random_books(seed, 200)):
        if number % 50 == 49:
            changes.restart()
        events = changes.take(frame_of(*sides, number, NOW_NS + number * NS_PER_S))
        if len(events):
            engine.apply(events)
        assert shown(engine) == rows(*sides), f"{seed=} {number=} {in_short(events)}"
    assert engine.counters.unknown_orders == 0
    assert engine.counters.duplicate_orders == 0


def test_after_a_restart_the_next_frame_is_a_snapshot() -> None:
    changes = FrameChanges(ACME)
    changes.take(frame(A, B))
    changes.restart()
    assert in_short(changes.take(frame(A))) == ["R 0 0", "A 1 10"]


@pytest.mark.parametrize(
    ("order_id", "number"),
    [
        ("0", 0),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("007", None),
        ("-1", None),
        ("1e5", None),
        ("٣", None),
        ("", None),
        ("4f2a-buy", None),
    ],
)
def test_an_id_in_decimal_digits_is_the_number_and_any_other_has_one_of_its_own(
    order_id: str, number: int | None
) -> None:
    if number is None:
        assert 2**32 < order_number(order_id) < 2**64
    else:
        assert order_number(order_id) == number
    assert order_number(order_id) == order_number(order_id) != order_number(order_id, 1)


def test_orders_of_two_publishers_with_the_same_id_are_two_orders() -> None:
    engine = BookEngine()
    changes = FrameChanges(ACME)
    twins = [A, Resting(1, -1, 5), Resting(1, 1, 7)]
    for orders in (twins, twins[:2], twins[1:]):
        engine.apply(changes.take(frame(*orders)))
        sizes = [[order[2] for order in side] for side in shown(engine)]
        assert sizes == [[o.lots for o in orders if o.ticks < 0], [o.lots for o in orders if o.ticks > 0]]


def spoilt(**fields: object) -> MarketData:
    """A frame of one order, some of whose fields are others."""
    good = frame(A)
    assert isinstance(good.data, RestingOrders)
    order = RestingOrder.model_construct(**dict(good.data.bids[0]) | fields)
    return good.model_copy(update={"data": RestingOrders(bids=[order], asks=[])})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"price": Decimal("0.0000000001")}, "the price 1E-10 cannot be held in DBN"),
        ({"price": Decimal("9223372036.854775807")}, "the price 9223372036.854775807 cannot be held in DBN"),
        ({"price": Decimal("1e999999")}, "the price 1E+999999 cannot be held in DBN"),
        ({"price": Decimal("1." + "0" * 40 + "1")}, "cannot be held in DBN"),
        ({"quantity": Decimal("0.0005")}, "the quantity 0.0005 is not 1 to 4,294,967,295 lots of 0.001"),
        ({"quantity": Decimal(0)}, "the quantity 0 is not 1 to"),
        ({"quantity": Decimal(-1)}, "the quantity -1 is not 1 to"),
        ({"quantity": Decimal("4294967.296")}, "the quantity 4294967.296 is not 1 to"),
        ({"quantity": Decimal("1e999999")}, "is not 1 to"),
        ({"timestamp": "yesterday"}, "'yesterday' is no RFC 3339 date-time"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "1969-12-31T23:59:59Z is before 1970"),
    ],
)
def test_what_order_events_cannot_hold_is_refused_and_nothing_is_taken(
    fields: dict[str, object], problem: str
) -> None:
    changes = FrameChanges(ACME)
    with pytest.raises(FrameError) as raised:
        changes.take(spoilt(**fields))
    assert problem in str(raised.value)
    assert in_short(changes.take(frame(A))) == ["R 0 0", "A 1 10"]


def test_frames_by_price_level_are_refused() -> None:
    levels = frame().model_copy(update={"data": PriceLevels(bids=[], asks=[])})
    with pytest.raises(FrameError, match="not by order"):
        told(levels)
