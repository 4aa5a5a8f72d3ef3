"""How far a replay may have come at a given moment: pure arithmetic, exact and without drift.

Time is nanoseconds since the replay's start, a record's place is its number (the first is 1) or its recorded time
(ns after the first record). Every answer is computed from the start, in integers, so that errors cannot add up and
a replay that was held up for a while catches up exactly.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from market_depth.feeds.base import FeedOptionError
from protocol.timestamp import NS_PER_S

MAX_SPEED = 1_000_000
MAX_RATE = 1_000_000_000

LAST_NS = np.iinfo(np.int64).max

Times = npt.NDArray[np.int64]
"""Recorded times of successive records, ns after the first record of the replay, never falling."""


class PacingError(FeedOptionError):
    """A speed or rate that no replay can keep."""


class Pacing(Protocol):
    """Decides when records go out. An implementation ignores what it does not need."""

    def due(self, elapsed_ns: int, delivered: int, times: Times) -> int:
        """How many of the next records, recorded at `times`, are due now that `delivered` have gone before."""

    def due_at(self, number: int, time: int) -> int:
        """When record `number`, recorded at `time`, is due: the first moment at which `due` counts it."""


@dataclass(frozen=True, slots=True)
class FullSpeed:
    """Everything is due at once: as fast as it can be read and taken."""

    def due(self, elapsed_ns: int, delivered: int, times: Times) -> int:  # noqa: ARG002
        return len(times)

    def due_at(self, number: int, time: int) -> int:  # noqa: ARG002
        return 0


@dataclass(frozen=True, slots=True)
class RecordedPace:
    """The recording's own pace × `speed`. Pauses are kept: a night at speed 1 takes a night.

    The recorded time is `ts_recv`, which never falls; `ts_event` does, where several venues share a file.
    """

    speed: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if not 0 < self.speed <= MAX_SPEED:
            raise _speed_error(self.speed)

    def reached(self, elapsed_ns: int) -> int:
        """The recorded time that is played after so long."""
        return min(elapsed_ns * self.speed.numerator // self.speed.denominator, LAST_NS)

    def due(self, elapsed_ns: int, delivered: int, times: Times) -> int:  # noqa: ARG002
        return int(np.searchsorted(times, self.reached(elapsed_ns), side="right"))

    def due_at(self, number: int, time: int) -> int:  # noqa: ARG002
        return _divide_up(time * self.speed.denominator, self.speed.numerator)


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """`rate` records a second, whatever their times: after t seconds exactly floor(rate × t) are due."""

    rate: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.rate <= MAX_RATE:
            raise _rate_error(self.rate)

    def records(self, elapsed_ns: int) -> int:
        """How many records are due after so long, in all."""
        return elapsed_ns * self.rate.numerator // (self.rate.denominator * NS_PER_S)

    def due(self, elapsed_ns: int, delivered: int, times: Times) -> int:
        return min(max(self.records(elapsed_ns) - delivered, 0), len(times))

    def due_at(self, number: int, time: int) -> int:  # noqa: ARG002
        return _divide_up(number * NS_PER_S * self.rate.denominator, self.rate.numerator)


def choose_pacing(speed: float | str = 1, rate: float | None = None) -> Pacing:
    """The pacing that a user asked for: `rate` records a second when given, else recorded time × `speed`.

    `speed` is a factor above 0 and up to 1,000,000, as a number or as text, or "max". `rate` is above 0 and up to
    1,000,000,000.
    Raises: PacingError, which names the value and what is allowed.
    """
    if rate is not None:
        exact_rate = _exact(rate)
        if exact_rate is None:
            raise _rate_error(rate)
        return ConstantRate(exact_rate)
    if speed == "max":
        return FullSpeed()
    exact_speed = _exact(speed)
    if exact_speed is None:
        raise _speed_error(speed)
    return RecordedPace(exact_speed)


def _exact(value: float | str) -> Fraction | None:
    """The number that was written ("0.1" is a tenth, not its binary neighbour), or None if it is none."""
    try:
        number = float(value)  # judges the text first: Fraction would also spend hours on "1e999999999"
        return Fraction(str(value)) if abs(number) <= MAX_RATE else None
    except ValueError:
        return None


def _speed_error(speed: object) -> PacingError:
    return PacingError(
        "replay",
        f"a speed of {speed} is not possible",
        f"give a factor from above 0 to {MAX_SPEED:,}, or max",
    )


def _rate_error(rate: object) -> PacingError:
    return PacingError(
        "replay", f"a rate of {rate} is not possible", f"give records a second from above 0 to {MAX_RATE:,}"
    )


def _divide_up(value: int, divisor: int) -> int:
    return -(-value // divisor)
