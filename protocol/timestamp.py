"""Nanoseconds since the epoch as RFC 3339 text: UTC, microseconds, `Z`."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MAX_NS = 2**63 - 1
"""DBN's undefined timestamp is 2**64 - 1; such a time is shown as the last one numpy can hold, in 2262."""

FIRST_NS = 10**15
"""An instant given as a number below it is ms since the epoch, from it on ns: the one ends in the year 33658, the other
begins eleven days after 1970 did."""

# Hours end at 23 and minutes at 59 here, because what `fromisoformat` makes of 24:00 differs between Pythons.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]([01]\d|2[0-3]):[0-5]\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def timestamp_text(ns: int) -> str:
    """`ns` as text cut to whole microseconds, e.g. `"2026-11-20T16:41:03.000250Z"`."""
    moment = _EPOCH + timedelta(microseconds=min(ns, _MAX_NS) // NS_PER_US)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z"


def timestamp_texts(ns: npt.NDArray[np.uint64]) -> Iterator[str]:
    """The same for an array, several times faster than one by one."""
    microseconds = np.minimum(ns, np.uint64(_MAX_NS)) // np.uint64(NS_PER_US)
    for text in np.datetime_as_string(microseconds.astype("datetime64[us]")).tolist():
        yield f"{text}Z"


def timestamp_ns(text: str) -> int:
    """The instant that an RFC 3339 date-time names, exact to the nanosecond; negative before 1970.

    Raises: ValueError when it is none.
    """
    if not is_timestamp(text):
        raise ValueError(f"{text!r} is no RFC 3339 date-time")
    whole, _, rest = text.upper().partition(".")
    digits = rest.rstrip("Z").partition("+")[0].partition("-")[0]
    seconds = datetime.fromisoformat(whole + rest[len(digits) :]) - _EPOCH
    return seconds // timedelta(seconds=1) * NS_PER_S + int(digits.ljust(9, "0")[:9])


def instant_ns(value: object) -> int:
    """An instant in ns since the epoch, from an RFC 3339 date-time, or from ns or ms since the epoch.

    Raises: ValueError that says what is expected.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value if value >= FIRST_NS else value * NS_PER_MS
    try:
        return timestamp_ns(str(value))
    except ValueError:
        raise ValueError(
            "an instant is expected: a date-time such as 2025-09-24T20:00:00Z, or ns or ms since the epoch"
        ) from None


def is_timestamp(text: str) -> bool:
    """Whether `text` is an RFC 3339 date-time that exists on the calendar."""
    if _RFC3339.fullmatch(text) is None:
        return False
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True
