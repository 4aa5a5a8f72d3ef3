import numpy as np

from market_depth.feeds.books_seen import BooksSeen
from protocol.events import UNDEF_PRICE, Action, Flag, Side
from tests.market_depth.feeds.dbn_files import START_NS, adds


def test_every_book_is_cleared_once_by_one_event() -> None:
    events = adds(6, instrument_ids=(9, 7))
    events["publisher_id"] = [1, 1, 2, 1, 1, 2**16 - 1]
    books = BooksSeen()
    for batch in np.split(events, 3):
        books.note(batch)
    clears = books.clears(START_NS)
    assert clears[["instrument_id", "publisher_id"]].tolist() == [(7, 1), (7, 2**16 - 1), (9, 1), (9, 2)]
    assert set(clears["action"]) == {Action.CLEAR}
    assert set(clears["side"]) == {Side.NONE}
    assert set(clears["price"]) == {UNDEF_PRICE}
    assert set(clears["ts_recv"]) == set(clears["ts_event"]) == {START_NS}
    assert clears["flags"].tolist() == [Flag.SNAPSHOT] * 3 + [Flag.SNAPSHOT | Flag.LAST]


def test_without_books_there_is_nothing_to_clear() -> None:
    assert len(BooksSeen().clears(START_NS)) == 0
