from types import SimpleNamespace

import numpy as np
import pytest

from market_depth.bench.peers import hftbacktest_ns, hftbacktest_rows
from protocol.events import UNDEF_PRICE
from tests.market_depth.book.written_events import written

KINDS = SimpleNamespace(
    ADD_ORDER_EVENT=1,
    MODIFY_ORDER_EVENT=2,
    CANCEL_ORDER_EVENT=3,
    BUY_EVENT=16,
    SELL_EVENT=32,
    EXCH_EVENT=64,
    LOCAL_EVENT=128,
    event_dtype=np.dtype(
        [
            ("ev", "<u8"),
            ("exch_ts", "<i8"),
            ("local_ts", "<i8"),
            ("px", "<f8"),
            ("qty", "<f8"),
            ("order_id", "<u8"),
        ]
    ),
)
BOTH = KINDS.EXCH_EVENT | KINDS.LOCAL_EVENT


def test_events_become_rows_of_hftbacktest() -> None:
    rows = hftbacktest_rows(written("A 1 B 100 5; A 2 A 200 6; M 1 B 101 4; C 2 A 200 6"), KINDS)

    assert rows["ev"].tolist() == [BOTH | 1 | 16, BOTH | 1 | 32, BOTH | 2 | 16, BOTH | 3 | 32]
    assert rows["exch_ts"].tolist() == rows["local_ts"].tolist() == [1, 2, 3, 4]
    assert rows["order_id"].tolist() == [1, 2, 1, 2]
    assert rows["qty"].tolist() == [5, 6, 4, 6]
    assert (rows["px"][1] - rows["px"][0]) == pytest.approx(100 * (rows["px"][2] - rows["px"][0]))


@pytest.mark.parametrize(
    ("text", "order_ids"),
    [
        ("C 1 B 100 5; M 2 B 100 5; A 3 B 100 5", [3]),
        ("A 1 B 100 5; A 1 B 100 5", [1]),
        ("A 1 B 100 5; C 1 B 100 1; C 1 B 100 4", [1, 1]),
        ("A 1 B 100 5; T 1 B 100 5; F 1 B 100 5; A 2 N 100 5", [1]),
        ("R 0 N 0 0", []),
    ],
    ids=["unknown order", "known order", "cancelled in parts", "neither order nor side", "nothing"],
)
def test_what_would_stop_hftbacktest_is_left_out(text: str, order_ids: list[int]) -> None:
    assert hftbacktest_rows(written(text), KINDS)["order_id"].tolist() == order_ids


def test_orders_without_a_price_are_left_out() -> None:
    events = written("A 1 B 100 5; A 2 B 100 5")
    events["price"][1] = UNDEF_PRICE

    assert hftbacktest_rows(events, KINDS)["order_id"].tolist() == [1]


def test_a_peer_that_is_not_installed_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_depth.bench.peers.find_spec", lambda _name: None)

    assert hftbacktest_ns(written("A 1 B 100 5")) is None
