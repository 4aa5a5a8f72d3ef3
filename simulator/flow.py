"""Order-flow models: when somebody acts, on which side, how far from the best price, and how much.

Everything is pure and seeded. To give the same integers on every machine, chance enters as the raw words of a bit
generator (NumPy promises those streams, but not those of its distributions), and every distribution is an inverted
table: while events are made, only additions, multiplications, divisions and comparisons of IEEE doubles happen, and
those are exact everywhere. Logarithms and powers appear in the making of the tables alone, rounded to twelve
digits, so that the last bit of a machine's mathematics library disappears.

Source of the models: Hawkes processes by their branching construction; Calvet and Fisher 2004 for the activity
regimes; Lillo, Mike and Farmer 2005 for the signs of trades; Zovko and Farmer 2002 for the distance of new orders.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import accumulate, pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from protocol.events import Side

NS = 1_000_000_000

BLOCK = 1024
"""Random words are drawn this many at a time: a call of NumPy costs as much as a hundred of its numbers. A venue has
some fifteen streams, which larger blocks would fill with megabytes."""

Uniforms = npt.NDArray[np.float64]
Table = npt.NDArray[np.float64]


class Chance:
    """Independent random streams, all from one seed (any integer) and the instrument's id.

    A stream's place in the order of asking decides its numbers; when they are drawn does not.
    """

    def __init__(self, seed: int, instrument_id: int) -> None:
        self._root = np.random.SeedSequence([abs(seed), int(seed < 0), instrument_id])

    def uniforms(self) -> Iterator[float]:
        """A further stream of numbers in [0, 1)."""
        return self.drawn(lambda uniforms: uniforms)

    def drawn(self, transform: Callable[[Uniforms], npt.NDArray[np.float64]]) -> Iterator[float]:
        """A further stream of numbers: uniform ones put through `transform`, a block at a time."""
        blocks = _blocks(self._next_bits())
        return (number for uniforms in blocks for number in transform(uniforms).tolist())

    def drawn_integers(self, transform: Callable[[Uniforms], npt.NDArray[np.int64]]) -> Iterator[int]:
        """A further stream of integers: uniform numbers put through `transform`, a block at a time."""
        blocks = _blocks(self._next_bits())
        return (number for uniforms in blocks for number in transform(uniforms).tolist())

    def picked(self, table: Table) -> Iterator[int]:
        """A further stream of indices into a `cumulative` table, each as often as its weight says."""
        return self.drawn_integers(lambda uniforms: np.searchsorted(table, uniforms, side="right"))

    def _next_bits(self) -> np.random.PCG64:
        return np.random.PCG64(self._root.spawn(1)[0])


def _blocks(bits: np.random.PCG64) -> Iterator[Uniforms]:
    while True:
        # The upper 53 bits of a word are a double in [0, 1), exactly.
        yield (bits.random_raw(BLOCK) >> np.uint64(11)) * np.float64(2.0**-53)


def cumulative(weights: Sequence[float]) -> Table:
    """The table that draws an index in proportion to its weight."""
    total = math.fsum(weights)
    table = [round(part / total, 12) for part in accumulate(weights)]
    table[-1] = 1.0
    return np.array(table)


_EXPONENTIAL_CELLS = 4096

# Quantiles of the exponential distribution; between two of them the draw is linear. The last cell has no upper end:
# with a width of two its mean is the tail's.
_EXPONENTIAL = np.array(
    [round(-math.log(1 - cell / _EXPONENTIAL_CELLS), 12) for cell in range(_EXPONENTIAL_CELLS)]
    + [round(math.log(_EXPONENTIAL_CELLS) + 2, 12)]
)


def exponential(uniforms: Uniforms) -> Uniforms:
    """Exponential waiting times of mean 1."""
    scaled = uniforms * _EXPONENTIAL_CELLS
    cell = scaled.astype(np.int64)
    low = _EXPONENTIAL[cell]
    waits: Uniforms = low + (_EXPONENTIAL[cell + 1] - low) * (scaled - cell)
    return waits


class Activity:
    """Slow regimes of activity: a factor of mean 1 that makes lively hours and quiet ones.

    The factor is a product over `periods_s`. Each period's part is `1 + swing` or `1 - swing` and is drawn anew
    after an exponential time of that mean, so that liveliness is remembered over seconds and over an hour alike.
    """

    def __init__(self, chance: Chance, periods_s: Sequence[float], swing: float, start_ns: int) -> None:
        self.factor = 1.0
        self._swing = swing
        self._uniforms = chance.uniforms()
        self._waits = chance.drawn(exponential)
        self._parts = [1.0] * len(periods_s)
        self._periods_ns = [period * NS for period in periods_s]
        self._changes: list[tuple[int, int]] = []
        for part in range(len(periods_s)):
            self._redraw(part, start_ns)

    @property
    def changes_ns(self) -> int | None:
        """When the factor is drawn anew; None when it never is."""
        return self._changes[0][0] if self._changes else None

    def change(self) -> None:
        """Go on to the next regime."""
        at_ns, part = heappop(self._changes)
        self._redraw(part, at_ns)

    def _redraw(self, part: int, at_ns: int) -> None:
        self._parts[part] = 1 + self._swing if next(self._uniforms) < 0.5 else 1 - self._swing
        heappush(self._changes, (at_ns + int(next(self._waits) * self._periods_ns[part]), part))
        self.factor = math.prod(self._parts)


class HawkesClock:
    """The instants at which somebody acts: each one makes further ones likely soon after.

    Built by its branching: immigrants arrive on their own at a rate that follows the activity, and every instant,
    immigrant or not, has on average `branching` descendants, each after an exponential delay of one of the kernels.
    That needs no thinning and no exponential at run time, keeps time in whole nanoseconds, and knows the true
    branching ratio: the share of descendants. An immigrant is, with probability `shock_share`, a shock that has
    `shock_size` direct descendants more.

    The clock starts in its stride: descendants of a past at the mean rate are already under way.
    """

    def __init__(
        self,
        chance: Chance,
        activity: Activity,
        *,
        rate: float,
        branching: float,
        kernels: Sequence[tuple[float, float]],
        shock_share: float,
        shock_size: int,
        start_ns: int,
    ) -> None:
        """`rate`: instants a second in the long run; `kernels`: (share, mean delay in s), shares adding up to 1."""
        self.immigrants = 0
        self.descendants = 0
        self._activity = activity
        self._families = chance.picked(_poisson(branching))
        self._gaps = chance.drawn(exponential)
        self._shocks = chance.uniforms()
        self._shock_share = shock_share
        self._shock_size = shock_size
        self._delays = _delays(chance, kernels)
        # A shock's direct descendants have families too, so all of a shock counts shock_size / (1 - branching).
        immigrants_a_second = rate * (1 - branching) / (1 + shock_share * shock_size)
        self._immigrants_per_ns = immigrants_a_second / NS
        self._due: list[int] = []
        for share, mean_s in kernels:
            # Delays are memoryless: what a steady past has under way is spread like the delays themselves.
            under_way = int(rate * branching * share * mean_s)
            waits = exponential((np.arange(under_way) + 0.5) / max(1, under_way))
            self._due += (start_ns + (waits * (mean_s * NS)).astype(np.int64)).tolist()
        heapify(self._due)
        self._immigrant_ns = self._next_immigrant(start_ns)
        self.next_ns = min(self._immigrant_ns, self._due[0]) if self._due else self._immigrant_ns
        """The coming instant, in ns since the epoch."""

    def advance(self) -> None:
        """Let the coming instant pass: its descendants are now under way."""
        due = self._due
        now_ns = self.next_ns
        family = next(self._families)
        if now_ns == self._immigrant_ns:
            self.immigrants += 1
            self._immigrant_ns = self._next_immigrant(now_ns)
            if next(self._shocks) < self._shock_share:
                family += self._shock_size
        else:
            heappop(due)
            self.descendants += 1
        while family:
            heappush(due, now_ns + int(next(self._delays)))
            family -= 1
        self.next_ns = due[0] if due and due[0] < self._immigrant_ns else self._immigrant_ns

    def _next_immigrant(self, now_ns: int) -> int:
        wait = next(self._gaps)
        activity = self._activity
        while True:
            per_ns = self._immigrants_per_ns * activity.factor
            at_ns = now_ns + 1 + int(wait / per_ns)
            changes_ns = activity.changes_ns
            if changes_ns is None or at_ns < changes_ns:
                return at_ns
            wait = max(0.0, wait - (changes_ns - now_ns) * per_ns)
            now_ns = changes_ns
            activity.change()


def _poisson(mean: float) -> Table:
    weights = [math.exp(-mean) * mean**count / math.factorial(count) for count in range(16)]
    return cumulative(weights)


def _delays(chance: Chance, kernels: Sequence[tuple[float, float]]) -> Iterator[float]:
    kernel_of = chance.picked(cumulative([share for share, _ in kernels]))
    means_ns = [mean_s * NS for _, mean_s in kernels]
    waits = chance.drawn(exponential)
    return (means_ns[kernel] * wait for kernel, wait in zip(kernel_of, waits, strict=False))


MOST_PIECES = 20_000
"""The longest parent order: hours of trading."""


class ParentOrders:
    """The sides of successive marketable orders: large parent orders at work in many pieces, several at a time.

    A parent's number of pieces has the tail `pieces ** -exponent`, which gives signs of trades an autocorrelation
    that falls as `lag ** (1 - exponent)`.
    """

    def __init__(self, chance: Chance, *, concurrent: int, exponent: float) -> None:
        self._choices = chance.uniforms()
        self._sides = chance.uniforms()
        self._lengths = chance.picked(_tail(1.0, exponent, MOST_PIECES))
        self._parents = [self._new_parent(0.5) for _ in range(concurrent)]

    def next_side(self, buy_share: float) -> Side:
        """The side of the next marketable order; a parent that starts with it buys as often as `buy_share` says."""
        parents = self._parents
        index = int(next(self._choices) * len(parents))
        side, pieces = parents[index]
        parents[index] = (side, pieces - 1) if pieces > 1 else self._new_parent(buy_share)
        return side

    def _new_parent(self, buy_share: float) -> tuple[Side, int]:
        side = Side.BID if next(self._sides) < buy_share else Side.ASK
        return side, 1 + next(self._lengths)


class Trend:
    """A direction that lasts: +1 or -1, turned around after exponential times of mean `period_s`."""

    def __init__(self, chance: Chance, *, period_s: float, start_ns: int) -> None:
        self.direction = 1 if next(chance.uniforms()) < 0.5 else -1
        self._waits = chance.drawn(exponential)
        self._period_ns = period_s * NS
        self._turns_ns = start_ns + int(next(self._waits) * self._period_ns)

    def at(self, now_ns: int) -> int:
        """The direction at an instant no earlier than any asked for before."""
        while now_ns >= self._turns_ns:
            self.direction = -self.direction
            self._turns_ns += int(next(self._waits) * self._period_ns)
        return self.direction


FARTHEST = 1000
"""Distance in ticks beyond which nobody places an order."""


def distances(chance: Chance, *, exponent: float, offset: float) -> Iterator[int]:
    """How many ticks behind the best price new orders rest: P(distance >= d) = (1 + d / offset) ** -exponent."""
    return chance.picked(_tail(offset, exponent, FARTHEST))


@lru_cache
def _tail(offset: float, exponent: float, largest: int) -> Table:
    """The table that draws n from 0 to `largest` with P(at least n) = (1 + n / offset) ** -exponent."""
    tail = [(1 + n / offset) ** -exponent for n in range(largest + 2)]
    return cumulative([at_least - more for at_least, more in pairwise(tail)])


_SIZE_CELLS = 1024


def sizes(chance: Chance, *, typical_size: int, spread: float) -> Iterator[int]:
    """Sizes in lots, log-normal around `typical_size` as the median; `spread` is the deviation of the logarithm."""
    normal = NormalDist()
    table = np.array(
        [
            max(1, round(typical_size * math.exp(spread * normal.inv_cdf((cell + 0.5) / _SIZE_CELLS))))
            for cell in range(_SIZE_CELLS)
        ]
    )
    return chance.drawn_integers(lambda uniforms: table[(uniforms * _SIZE_CELLS).astype(np.int64)])


def marketable_share(balanced: float, resting: int, target: int) -> float:
    """The share of adds that trade at once, so that the number of resting orders stands still at `target`.

    Above the target more orders trade and the book shrinks, below it fewer do and it grows: `balanced` times the cube
    of its fullness, at most twice, which brings it back within some thousand events.
    """
    fullness = resting / target
    return min(2.0, fullness * fullness * fullness) * balanced
