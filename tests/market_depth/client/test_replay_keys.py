import pytest

from market_depth.client.replay_keys import Order, orders_for
from market_depth.client.replay_remote import ReplayStatus
from protocol.timestamp import timestamp_text

S = 1_000_000_000
NOW = 1_758_744_000 * S


def status(**changes: object) -> ReplayStatus:
    fields = {"file": "day.dbn", "state": "RUNNING", "position_ns": NOW, "speed": 1.0, "percent": 50}
    return ReplayStatus.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("keys", "before", "orders"),
    [
        (["x", "\x1b"], {}, []),
        ([" "], {}, [("pause", {})]),
        ([" "], {"state": "PAUSED"}, [("resume", {})]),
        ([" "], {"state": "DONE", "speed": 4.0}, [("start", {"speed": 4.0})]),
        ([" "], {"state": "IDLE", "speed": None, "rate": 5.0}, [("start", {"rate": 5.0})]),
        ([" ", " "], {}, [("pause", {}), ("resume", {})]),
        (["left"], {}, [("seek", {"to": timestamp_text(NOW - 10 * S)})]),
        (["right"], {}, [("seek", {"to": timestamp_text(NOW + 10 * S)})]),
        (["up"], {}, [("seek", {"to": timestamp_text(NOW + 60 * S)})]),
        (["shift down"], {}, [("seek", {"to": timestamp_text(NOW - 600 * S)})]),
        (["left", "left", "shift right", "left"], {}, [("seek", {"to": timestamp_text(NOW + 30 * S)})]),
        (["left"], {"position_ns": S}, [("seek", {"to": "1970-01-01T00:00:00.000000Z"})]),
        (["right"], {"position_ns": S}, [("seek", {"to": "1970-01-01T00:00:11.000000Z"})]),
        (["+"], {}, [("speed", {"speed": 2.0})]),
        (["+", "=", "+"], {"speed": 10.0}, [("speed", {"speed": 80.0})]),
        (["-", "_"], {}, [("speed", {"speed": 0.25})]),
        (["+"], {"speed": 900_000.0}, [("speed", {"speed": 1_000_000.0})]),
        (["+"], {"speed": "max"}, [("speed", {"speed": "max"})]),
        (["-"], {"speed": "max"}, [("speed", {"speed": 1024.0})]),
        (["+"], {"speed": None, "rate": 500.0}, [("speed", {"rate": 1000.0})]),
        (["."], {}, [("step", {})]),
        ([".", ".", " "], {}, [("step", {}), ("step", {}), ("resume", {})]),
        (
            ["left", " ", "left"],
            {},
            [
                ("seek", {"to": timestamp_text(NOW - 10 * S)}),
                ("pause", {}),
                ("seek", {"to": timestamp_text(NOW - 20 * S)}),
            ],
        ),
    ],
)
def test_keys_become_orders(
    keys: list[str], before: dict[str, object], orders: list[tuple[str, dict[str, object]]]
) -> None:
    assert orders_for(keys, status(**before)) == [
        Order(control, {"file": "day.dbn", **content}) for control, content in orders
    ]
