"""Which states of a book are stored: every change, every Nth event, or one for every T milliseconds of the market's time.

A sampler sees every state, batch by batch, and picks rows; the books of a session are told apart by their series. Whatever
is chosen, the last state of a book is stored: at the end `finish` picks it, where it was not picked before.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from market_depth.store.rows import Rows, no_rows
from protocol.timestamp import NS_PER_MS

Picked = npt.NDArray[np.bool_]


class SamplingKind(StrEnum):
    """By what a state is picked."""

    CHANGE = "change"
    EVENTS = "events"
    MILLISECONDS = "ms"


@dataclass(frozen=True, slots=True)
class Sampling:
    """What was chosen: `change`, `events:N` or `ms:T` as text."""

    kind: SamplingKind = SamplingKind.CHANGE
    every: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.every <= 10**9:
            raise ValueError(f"a sampling takes every 1 to {10**9}, not {self.every}")

    def __str__(self) -> str:
        return self.kind.value if self.kind is SamplingKind.CHANGE else f"{self.kind}:{self.every}"


def parse_sampling(text: str) -> Sampling:
    """Raises: ValueError for text that is no sampling."""
    match = re.fullmatch(r"change|(events|ms):([0-9]{1,10})", text, re.ASCII)
    if match is None:
        raise ValueError(
            f"{text!r} is not a sampling: change, events:N or ms:T is expected, such as events:100 or ms:250"
        )
    kind, every = match.groups()
    return Sampling(SamplingKind(kind), int(every)) if kind else Sampling()


class Sampler:
    """Picks rows of a session: all of them best bids and offers, or all of them snapshots of one depth."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._last: dict[int, Rows] = {}  # of each series: its last row, picked or not
        self._is_picked: dict[int, bool] = {}
        self._events: dict[int, int] = {}
        self._interval: dict[int, int] = {}  # number of that in which a row was last picked

    def pick(self, rows: Rows) -> Rows:
        """Those of the next rows that are to be stored."""
        if not len(rows):
            return rows
        series = rows["series"]
        picked = np.zeros(len(rows), bool)
        for key in np.unique(series).tolist():
            places = np.flatnonzero(series == key)
            chosen = self._pick_of_series(key, rows[places])
            picked[places] = chosen
            self._last[key] = rows[places[-1:]].copy()
            self._is_picked[key] = bool(chosen[-1])
        return rows[picked]

    def finish(self) -> Rows:
        """The last row of each series, where it differs from what was stored."""
        left = [row for key, row in self._last.items() if not self._is_picked[key]]
        self._is_picked = dict.fromkeys(self._last, True)
        if not left:
            return no_rows(next(iter(self._last.values())).dtype) if self._last else no_rows(np.dtype([]))
        return np.concatenate(left)

    def _pick_of_series(self, key: int, rows: Rows) -> Picked:
        match self._sampling.kind:
            case SamplingKind.CHANGE:
                return self._changes(key, rows)
            case SamplingKind.EVENTS:
                seen = self._events.get(key, 0)
                self._events[key] = seen + len(rows)
                return np.asarray(np.arange(seen, seen + len(rows)) % self._sampling.every == 0)
            case SamplingKind.MILLISECONDS:
                intervals = rows["ts_event"] // (self._sampling.every * NS_PER_MS)
                # Venues' times step back now and then: an interval that was left has had its row.
                newest = np.maximum.accumulate(intervals)
                before = np.empty_like(newest)
                before[0] = self._interval.get(key, newest[0] - 1)
                before[1:] = np.maximum(newest[:-1], before[0])
                self._interval[key] = max(int(newest[-1]), int(before[0]))
                return np.asarray(newest > before)

    def _changes(self, key: int, rows: Rows) -> Picked:
        """Where the state is another than in the row before."""
        states = state_words(rows)
        is_new = np.empty(len(rows), bool)
        last = self._last.get(key)
        is_new[0] = last is None or bool((state_words(last)[0] != states[0]).any())
        is_new[1:] = (states[1:] != states[:-1]).any(axis=1)
        return is_new


def state_words(rows: Rows) -> npt.NDArray[np.int64]:
    """What rows show of a book, as a table of integers: of snapshots the levels, not what lies below them."""
    first = "bids" if "bids" in (rows.dtype.names or ()) else "best_bid_px"
    begin = rows.dtype.fields[first][1]  # type: ignore[index]
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)[:, begin:].copy().view(np.int64)
