"""What can go wrong at the simulated venue: one base error, and below it one class for each decision of a caller."""

from protocol.events import Side


class SimulatorError(Exception):
    """The simulated venue was asked for something it does not offer."""


class MalformedSymbolError(SimulatorError):
    """A symbol that no venue would list: choose another."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"symbol {symbol!r} is malformed: 1 to 32 characters of A-Z 0-9 . _ : / -")
        self.symbol = symbol


class UnknownScenarioError(SimulatorError):
    """A scenario that does not exist: choose one of `known`."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown scenario {name!r}: choose one of {', '.join(known)}")
        self.name = name
        self.known = known


class OrderRejectedError(SimulatorError):
    """The matching book cannot carry out the instruction, and has not changed."""

    def __init__(self, order_id: int, reason: str) -> None:
        super().__init__(f"order {order_id}: {reason}")
        self.order_id = order_id
        self.reason = reason


class EmptySideError(SimulatorError):
    """The best price of a side without orders: ask again when one rests."""

    def __init__(self, side: Side) -> None:
        super().__init__(f"no {side.name.lower()} in the book")
        self.side = side
