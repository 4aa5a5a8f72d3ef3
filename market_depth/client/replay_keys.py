"""What keys mean to one who watches a replay."""

from collections.abc import Sequence
from typing import NamedTuple

from market_depth.client.replay_remote import ReplayStatus
from protocol.timestamp import NS_PER_S, timestamp_text

SEEKS_S = {
    "left": -10,
    "right": 10,
    "down": -60,
    "up": 60,
    "shift left": -60,
    "shift right": 60,
    "shift down": -600,
    "shift up": 600,
}
"""How far each key goes in recorded time."""

FASTER, SLOWER = {"+", "="}, {"-", "_"}
"""With and without Shift on most keyboards."""

SPEED_BELOW_MAX = 1024.0
SLOWEST, FASTEST = 1 / 1024, 1_000_000.0
MOST_RECORDS_PER_S = 1_000_000_000.0

HELP = "q quit   space pause   ←→ 10 s   ↓↑ 1 min   +− speed   . step"


class Order(NamedTuple):
    """A control of the server's, and what it is told."""

    control: str
    content: dict[str, object]


def orders_for(keys: Sequence[str], status: ReplayStatus) -> list[Order]:
    """What to tell a replay of this status after these keys. Keys that say the same in a row become one order."""
    orders: list[Order] = []
    state, position_ns = status.state, status.position_ns
    pace = _Pace(status.speed, status.rate)
    for key in keys:
        if key in SEEKS_S:
            position_ns = max(0, position_ns + SEEKS_S[key] * NS_PER_S)
            # As text: a server takes a small number for ms, and a recording may begin in 1970.
            _append(orders, Order("seek", {"to": timestamp_text(position_ns)}))
        elif key in FASTER | SLOWER:
            pace = pace.times(2) if key in FASTER else pace.times(0.5)
            _append(orders, Order("speed", pace.content()))
        elif key == " " and state == "RUNNING":
            state = "PAUSED"
            orders.append(Order("pause", {}))
        elif key == " ":
            orders.append(Order("resume", {}) if state == "PAUSED" else Order("start", pace.content()))
            state = "RUNNING"
        elif key == ".":
            state = "PAUSED"
            orders.append(Order("step", {}))
    return [Order(control, {"file": status.file, **content}) for control, content in orders]


def _append(orders: list[Order], order: Order) -> None:
    """Add an order; it stands for the one before, if that is of its kind."""
    if orders and orders[-1].control == order.control:
        orders.pop()
    orders.append(order)


class _Pace(NamedTuple):
    speed: float | str | None
    rate: float | None

    def times(self, factor: float) -> "_Pace":
        if self.rate is not None:
            return self._replace(rate=min(self.rate * factor, MOST_RECORDS_PER_S))
        if isinstance(self.speed, float):
            return self._replace(speed=min(max(self.speed * factor, SLOWEST), FASTEST))
        return self if factor > 1 else self._replace(speed=SPEED_BELOW_MAX)

    def content(self) -> dict[str, object]:
        return {"speed": self.speed} if self.rate is None else {"rate": self.rate}
