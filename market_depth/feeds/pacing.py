"""How far a replay may have come at a given moment: pure arithmetic, exact and without drift.

Time is nanoseconds since the replay's start, a record's place is its number (the first is 1) or its recorded time
(ns after the first record). Every answer is computed from the start, in integers, so that errors cannot add up and
a replay that was held up for a while catches up exactly.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import Protocol

import numpy as np
import numpy.typing as npt

from market_depth.feeds.base import FeedOptionError
from protocol.events import OrderEvents
from protocol.timestamp import NS_PER_S

MAX_SPEED = 1_000_000
MIN_SPEED = Fraction(1, MAX_SPEED)
MAX_RATE = 1_000_000_000
MIN_RATE = Fraction(1, 1_000_000)
"""A record in twelve days. Slower than that, or than a millionth of recorded time, nobody waits for a record."""

LAST_NS = np.iinfo(np.int64).max

Times = npt.NDArray[np.int64]
"""Recorded times of successive records, ns after the first record of the replay, never falling."""


def recorded_times(events: OrderEvents, before_ns: int) -> Times:
    """When records were recorded, in ns since the epoch and never falling; `before_ns`: when the one before them was.

    A record without a time, or with an earlier one than its predecessor, goes with its predecessor.
    """
    times = events["ts_recv"].astype(np.int64)  # "no time" becomes -1
    times[:1] = np.maximum(times[:1], before_ns)
    return np.maximum.accumulate(times, out=times)


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
        if not MIN_SPEED <= self.speed <= MAX_SPEED:
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
        if not MIN_RATE <= self.rate <= MAX_RATE:
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

    `speed` is a factor from 0.000001 to 1,000,000, as a number or as text, or "max"; `rate` is from 0.000001 to
    1,000,000,000. Where both may be given, whoever asks has to know that the rate wins.
    Raises: PacingError, which names the value and what is allowed.
    """
    if rate is not None:
        exact_rate = _exact(rate)
        if exact_rate is None or not MIN_RATE <= exact_rate <= MAX_RATE:
            raise _rate_error(rate)
        return ConstantRate(exact_rate)
    if speed == "max":
        return FullSpeed()
    exact_speed = _exact(speed)
    if exact_speed is None or not MIN_SPEED <= exact_speed <= MAX_SPEED:
        raise _speed_error(speed)
    return RecordedPace(exact_speed)


def _exact(value: float | str) -> Fraction | None:
    """The number that was written ("0.1" is a tenth, not its binary neighbour), or None if it is none or not above 0."""
    try:
        # As a float first, which has bounds: Fraction would spend hours on "1e999999999".
        return Fraction(str(value)) if 0 < float(value) < inf else None
    except ValueError:
        return None


def _speed_error(speed: float | Fraction | str) -> PacingError:
    return PacingError(
        "replay",
        f"a speed of {_shown(speed)} is not possible",
        f"give a factor from {float(MIN_SPEED):f} to {MAX_SPEED:,}, or max",
    )


def _rate_error(rate: float | Fraction) -> PacingError:
    return PacingError(
        "replay",
        f"a rate of {_shown(rate)} is not possible",
        f"give records a second from {float(MIN_RATE):f} to {MAX_RATE:,}",
    )


def _shown(value: float | Fraction | str) -> str:
    return value if isinstance(value, str) else f"{float(value):.15g}"


def _divide_up(value: int, divisor: int) -> int:
    return -(-value // divisor)
