"""One run of a scenario, reduced to what statistics of realism need.

Times are the venue's own: a price is read at every simulated second, however many events that second had.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.events import Action, Flag, OrderEvents, Side
from simulator.flow import FARTHEST, NS
from simulator.listings import listing
from simulator.scenarios import Scenario
from simulator.venue import Venue

START_NS = 1_700_000_000 * NS
SYMBOL = "BTCUSD"

PROFILE_TICKS = 60
"""How deep the depth profile looks, in ticks from the best price of a side."""

WIDEST_SPREAD = 500

DIGEST_RECORDS = 20_000
"""How many of a run's first records its digest covers."""

_BATCH = 50_000
_LOOK_EVERY = 500  # events between two looks at the whole book

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run showed."""

    seed: int
    events: int
    adds: int  # participants' actions: adds, marketable ones included
    updates: int
    cancels: int
    trades: int  # the marketable ones
    crossed_or_locked: int  # books after a complete event
    empty_sides: int
    resting: Integers  # orders in the book, at regular numbers of events
    spreads: Integers  # how many events ended with a spread of so many ticks
    bid_profile: Floats  # mean lots at so many ticks from the best bid
    ask_profile: Floats
    distances: Integers  # how many new orders rested so many ticks behind the best price of their side
    gap_mean_ns: float  # time between events
    gap_deviation_ns: float
    descendant_share: float
    mids: Integers  # best bid plus best ask in ticks, that is twice the mid, at every second
    second_spreads: Integers  # ticks, at every second
    trade_signs: Integers  # +1 where a buyer, -1 where a seller started the trade
    trade_prices: Integers  # ticks: the first price of each trade
    digest: str


def digest(scenario: Scenario, seed: int) -> str:
    """SHA-256 of the bytes of a run's opening and first records."""
    venue = Venue(listing(SYMBOL), scenario, seed, START_NS)
    return hashlib.sha256(venue.open().tobytes() + venue.run(DIGEST_RECORDS).tobytes()).hexdigest()


def sample(scenario: Scenario, seed: int, events: int) -> Sample:
    """Run `events` events of a scenario and keep what the statistics need."""
    venue = Venue(listing(SYMBOL), scenario, seed, START_NS)
    observer = _Observer(venue)
    for first in range(0, events, _BATCH):
        observer.watch(min(_BATCH, events - first))
    return observer.sample(scenario, seed, events)


class _Observer:
    """Watches a venue event by event and keeps sums, histograms and series."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._tick = venue.instrument.tick_size
        self._actions = np.zeros(256, np.int64)
        self._crossed_or_locked = 0
        self._empty_sides = 0
        self._spreads = np.zeros(WIDEST_SPREAD, np.int64)
        self._distances = np.zeros(FARTHEST + 1, np.int64)
        self._profiles = {side: np.zeros(PROFILE_TICKS) for side in (Side.BID, Side.ASK)}
        self._resting: list[int] = []
        self._mids: list[Integers] = []
        self._second_spreads: list[Integers] = []
        self._signs: list[Integers] = []
        self._prices: list[Integers] = []
        self._gaps = np.zeros(3)  # how many, their sum, the sum of their squares
        # What the event before left: best prices in ticks, and when it was.
        self._bid = venue.book.best(Side.BID) // self._tick
        self._ask = venue.book.best(Side.ASK) // self._tick
        self._last_ns = venue.now_ns
        self._next_second_ns = START_NS

    def watch(self, count: int) -> None:
        """Let `count` events happen and look at the book after each."""
        venue, book = self._venue, self._venue.book
        bids: list[int] = []
        asks: list[int] = []
        for number in range(count):
            venue.step()
            bids.append(book.best_bid or 0)  # 0: no order on that side
            asks.append(book.best_ask or 0)
            if number % _LOOK_EVERY == 0:
                self._look()
        self._account(venue.take(), np.array(bids) // self._tick, np.array(asks) // self._tick)

    def _look(self) -> None:
        book = self._venue.book
        self._resting.append(len(book))
        for side, profile in self._profiles.items():
            best = book.best(side)
            for price, size, _ in book.levels(side, PROFILE_TICKS):
                distance = abs(price - best) // self._tick
                if distance < PROFILE_TICKS:
                    profile[distance] += size

    def _account(self, rows: OrderEvents, bids: Integers, asks: Integers) -> None:
        is_last = (rows["flags"] & Flag.LAST) != 0
        is_first = np.concatenate([[True], is_last[:-1]])
        heads = rows[is_first]
        actions, sides = heads["action"], heads["side"]
        prices = heads["price"] // self._tick
        times = heads["ts_event"].astype(np.int64)
        self._actions += np.bincount(actions, minlength=256)
        self._empty_sides += int(((bids == 0) | (asks == 0)).sum())
        self._crossed_or_locked += int(((bids >= asks) & (bids > 0) & (asks > 0)).sum())
        spreads = np.clip(asks - bids, 0, WIDEST_SPREAD - 1)
        self._spreads += np.bincount(spreads, minlength=WIDEST_SPREAD)

        bids_before = np.concatenate([[self._bid], bids[:-1]])
        asks_before = np.concatenate([[self._ask], asks[:-1]])
        behind = np.where(sides == Side.BID, bids_before - prices, prices - asks_before)
        behind = behind[(actions == Action.ADD) & (behind >= 0)]
        self._distances += np.bincount(np.minimum(behind, FARTHEST), minlength=FARTHEST + 1)

        is_trade = actions == Action.TRADE
        self._signs.append(np.where(sides[is_trade] == Side.BID, 1, -1))
        self._prices.append(prices[is_trade])

        gaps = np.diff(times, prepend=self._last_ns).astype(np.float64)
        self._gaps += (len(gaps), gaps.sum(), (gaps * gaps).sum())
        self._read_seconds(times, bids, asks, spreads)
        self._bid, self._ask, self._last_ns = int(bids[-1]), int(asks[-1]), int(times[-1])

    def _read_seconds(self, times: Integers, bids: Integers, asks: Integers, spreads: Integers) -> None:
        """The state at each whole second up to the last event: what the last event before it left."""
        seconds = np.arange(self._next_second_ns, times[-1], NS)
        latest = np.searchsorted(times, seconds, side="right") - 1
        mids = np.where(latest >= 0, bids[latest] + asks[latest], self._bid + self._ask)
        self._mids.append(mids)
        self._second_spreads.append(np.where(latest >= 0, spreads[latest], self._ask - self._bid))
        self._next_second_ns += len(seconds) * NS

    def sample(self, scenario: Scenario, seed: int, events: int) -> Sample:
        count, total, squares = self._gaps
        mean = total / count
        actions = self._actions
        looks = len(self._resting)
        return Sample(
            seed=seed,
            events=events,
            adds=int(actions[Action.ADD] + actions[Action.TRADE]),
            updates=int(actions[Action.MODIFY]),
            cancels=int(actions[Action.CANCEL]),
            trades=int(actions[Action.TRADE]),
            crossed_or_locked=self._crossed_or_locked,
            empty_sides=self._empty_sides,
            resting=np.array(self._resting),
            spreads=self._spreads,
            bid_profile=self._profiles[Side.BID] / looks,
            ask_profile=self._profiles[Side.ASK] / looks,
            distances=self._distances,
            gap_mean_ns=float(mean),
            gap_deviation_ns=float(np.sqrt(squares / count - mean * mean)),
            descendant_share=self._venue.descendant_share,
            mids=np.concatenate(self._mids),
            second_spreads=np.concatenate(self._second_spreads),
            trade_signs=np.concatenate(self._signs),
            trade_prices=np.concatenate(self._prices),
            digest=digest(scenario, seed),
        )
