"""Is a simulated market believable? What a scenario's runs show, against what is known of real markets.

Moments, correlations and exponents are taken over the runs of all seeds together, since one run of a heavy-tailed
process proves little; every run counts alone where a single bad one must show: invariants, mix, drift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from simulator.sample import Floats, Integers, Sample, digest
from simulator.scenarios import Scenario

RETURN_S = 10
"""The horizon of the returns whose autocorrelation counts, in seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One property of a market: what it should be and what it is. `number` is its place in the list of properties."""

    number: int
    metric: str
    target: str
    value: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What the runs of a scenario showed; `ok` when every target is met."""

    scenario: str
    seeds: tuple[int, ...]
    events: int
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)


def judge(scenario: Scenario, samples: Sequence[Sample]) -> Report:
    """What every scenario owes, and of `busy`, which claims to look like a real market, everything."""
    rows = _essentials(samples)
    if scenario.name == "busy":
        rows += [
            *_spread(samples),
            *_profile(samples),
            _placement(samples),
            *_clock(samples),
            *_returns(samples),
            *_kurtosis(samples),
            *_clustering(samples),
            _signs(samples),
        ]
    rows.append(_determinism(scenario, samples))
    return Report(
        scenario.name, tuple(run.seed for run in samples), sum(run.events for run in samples), tuple(rows)
    )


def _essentials(samples: Sequence[Sample]) -> list[Row]:
    """The mix, trades, no crossed book, a book that stands still, a tight spread."""
    mixes = np.array(
        [[100 * count / run.events for count in (run.adds, run.updates, run.cancels)] for run in samples]
    )
    adds, updates, cancels = mixes.mean(axis=0)
    farthest = np.abs(mixes - (40, 30, 30)).max()
    trades = sum(run.trades for run in samples)
    trade_share = 100 * trades / sum(run.events for run in samples)
    per_trade = sum(run.cancels for run in samples) / max(1, trades)
    crossed = sum(run.crossed_or_locked for run in samples)
    empty = sum(run.empty_sides for run in samples)
    drift = 100 * max(_drift(run.resting) for run in samples)
    spread = _mean_spread(samples)
    return [
        Row(
            1,
            "adds / updates / cancels, in every run",
            "40 / 30 / 30 ± 0.5",
            f"{adds:.2f} / {updates:.2f} / {cancels:.2f}, at most {farthest:.2f} off",
            bool(farthest <= 0.5),
        ),
        Row(2, "trades in all events", "2 – 6 %", f"{trade_share:.2f}", 2 <= trade_share <= 6),
        Row(3, "cancels for each trade", "5 – 25", f"{per_trade:.1f}", 5 <= per_trade <= 25),
        Row(4, "crossed or locked books", "0", f"{crossed}", crossed == 0),
        Row(4, "books with an empty side", "0", f"{empty}", empty == 0),
        Row(5, "drift of resting orders, worst run", "< 10 % of mean", f"{drift:.1f}", drift < 10),
        Row(6, "mean spread", "1 – 3 ticks", f"{spread:.2f}", 1 <= spread <= 3),
    ]


def _drift(resting: Integers) -> float:
    """How far the mean of the last quarter lies from that of the first, as a share of the whole mean."""
    quarter = max(1, len(resting) // 4)
    return float(abs(resting[-quarter:].mean() - resting[:quarter].mean()) / resting.mean())


def _spreads(samples: Sequence[Sample]) -> Integers:
    spreads: Integers = np.sum([run.spreads for run in samples], axis=0)
    return spreads


def _mean_spread(samples: Sequence[Sample]) -> float:
    spreads = _spreads(samples)
    return float((np.arange(len(spreads)) * spreads).sum() / spreads.sum())


def _spread(samples: Sequence[Sample]) -> list[Row]:
    spreads = _spreads(samples)
    mean = _mean_spread(samples)
    mode = int(spreads.argmax())
    narrow = float(spreads[:3].sum() / spreads.sum())
    quiet, volatile = np.mean([_spread_by_volatility(run) for run in samples], axis=0)
    return [
        Row(6, "mean spread, as of a liquid market", "1.05 – 2.5 ticks", f"{mean:.2f}", 1.05 <= mean <= 2.5),
        Row(6, "most frequent spread", "1 tick", f"{mode}", mode == 1),
        Row(6, "spread of at most 2 ticks", "≥ 0.9 of events", f"{narrow:.3f}", narrow >= 0.9),
        Row(
            6,
            "spread in quiet, in volatile minutes",
            "wider",
            f"{quiet:.2f}, {volatile:.2f}",
            bool(volatile > quiet),
        ),
    ]


def _spread_by_volatility(run: Sample) -> tuple[float, float]:
    """The mean spread in the quieter half of the minutes and in the most volatile tenth."""
    minutes = (len(run.mids) - 1) // 60
    moves = np.abs(np.diff(run.mids))[: minutes * 60].reshape(minutes, 60).sum(axis=1)
    spreads = run.second_spreads[: minutes * 60].reshape(minutes, 60).mean(axis=1)
    order = np.argsort(moves, kind="stable")
    return float(spreads[order[: minutes // 2]].mean()), float(
        spreads[order[-max(1, minutes // 10) :]].mean()
    )


def _profile(samples: Sequence[Sample]) -> list[Row]:
    bids: Floats = np.mean([run.bid_profile for run in samples], axis=0)
    asks: Floats = np.mean([run.ask_profile for run in samples], axis=0)
    both = bids + asks
    hump = int(both.argmax())
    # By tens of ticks from the hump on: a single far level may hold more than the one before it.
    beyond = both[hump : hump + 50].reshape(-1, 10).mean(axis=1) / both[hump]
    imbalance = 100 * abs(bids.sum() / asks.sum() - 1)
    return [
        Row(7, "most depth at this level", "1 – 10", f"{hump + 1}", hump < 10),
        Row(
            7,
            "then, by 10 ticks, as shares of it",
            "falling",
            ", ".join(f"{share:.2f}" for share in beyond),
            bool((np.diff(beyond) < 0).all()),
        ),
        Row(7, "depth of bids and asks differs by", "≤ 10 %", f"{imbalance:.1f}", imbalance <= 10),
    ]


def _placement(samples: Sequence[Sample]) -> Row:
    exponent = _tail_exponent(np.sum([run.distances for run in samples], axis=0))
    return Row(
        8, "distance of new orders: exponent", "1.5 ± 0.3", f"{exponent:.2f}", abs(exponent - 1.5) <= 0.3
    )


def _tail_exponent(counts: Integers, nearest: int = 10, farthest: int = 300) -> float:
    """The slope of log P(distance >= d) over log d, at distances spaced evenly in the logarithm."""
    beyond = counts[::-1].cumsum()[::-1] / counts.sum()
    at = np.unique(np.geomspace(nearest, farthest, 20).astype(int))
    return float(-np.polyfit(np.log(at), np.log(beyond[at]), 1)[0])


def _clock(samples: Sequence[Sample]) -> list[Row]:
    variation = float(np.mean([run.gap_deviation_ns / run.gap_mean_ns for run in samples]))
    # Counted, not fitted: activity that changes by itself looks like more branching to every fit of counts.
    branching = float(np.mean([run.descendant_share for run in samples]))
    return [
        Row(10, "variation of the time between events", "≥ 1.3", f"{variation:.2f}", variation >= 1.3),
        Row(10, "branching ratio", "0.6 – 0.9", f"{branching:.2f}", 0.6 <= branching <= 0.9),
    ]


def _returns(samples: Sequence[Sample]) -> list[Row]:
    moves = [_moves(run, RETURN_S) for run in samples]
    lags = [_mean_autocorrelation(moves, lag) for lag in (1, 2, 3)]
    bounce = _mean_autocorrelation([np.diff(run.trade_prices) for run in samples], 1)
    return [
        Row(
            11,
            f"autocorrelation of {RETURN_S} s returns, lags 1 – 3",
            "< 0.05 in size",
            ", ".join(f"{value:+.3f}" for value in lags),
            all(abs(value) < 0.05 for value in lags),
        ),
        Row(11, "the same from trade to trade, lag 1", "negative", f"{bounce:+.3f}", bounce < 0),
    ]


def _kurtosis(samples: Sequence[Sample]) -> list[Row]:
    second, ten, minute = (_excess_kurtosis(samples, horizon_s) for horizon_s in (1, 10, 60))
    return [
        Row(12, "excess kurtosis of 1 s returns", "3 – 50", f"{second:.1f}", 3 <= second <= 50),
        Row(12, "of 10 s returns", "between", f"{ten:.1f}", second > ten > minute),
        Row(12, "of 60 s returns", "0.3 – 10", f"{minute:.1f}", 0.3 <= minute <= 10),
    ]


def _clustering(samples: Sequence[Sample]) -> list[Row]:
    moves = [np.abs(_moves(run, RETURN_S)) for run in samples]
    first, thirtieth = (_mean_autocorrelation(moves, lag) for lag in (1, 30))
    return [
        Row(13, f"autocorrelation of |{RETURN_S} s returns|, lag 1", "≥ 0.1", f"{first:.3f}", first >= 0.1),
        Row(13, "lag 30", "> 0", f"{thirtieth:.3f}", thirtieth > 0),
    ]


def _signs(samples: Sequence[Sample]) -> Row:
    signs = [run.trade_signs for run in samples]
    curve = [_mean_autocorrelation(signs, lag) for lag in range(1, 301)]
    # Single lags are noisy far out: means over bands of equal width in the logarithm, then a line through them.
    bands = list(pairwise(np.unique(np.geomspace(1, 301, 13).astype(int)).tolist()))
    middles = [(low + high - 1) / 2 for low, high in bands]
    means = [float(np.mean(curve[low - 1 : high - 1])) for low, high in bands]
    positive = min(means) > 0
    exponent = float(-np.polyfit(np.log(middles), np.log(means), 1)[0]) if positive else float("nan")
    return Row(
        14,
        "autocorrelation of trade signs: exponent",
        "0.4 – 0.8",
        f"{exponent:.2f} (lag 1: {curve[0]:.2f}, lag 300: {means[-1]:.3f})",
        positive and 0.4 <= exponent <= 0.8,
    )


def _determinism(scenario: Scenario, samples: Sequence[Sample]) -> Row:
    same = sum(run.digest == digest(scenario, run.seed) for run in samples)
    return Row(18, "same SHA-256 of a second run", "all", f"{same} of {len(samples)}", same == len(samples))


def _moves(run: Sample, horizon_s: int) -> Integers:
    """Changes of the mid over intervals of `horizon_s` that do not overlap, in half ticks."""
    moves: Integers = np.diff(run.mids[::horizon_s])
    return moves


def _mean_autocorrelation(runs: Sequence[Integers], lag: int) -> float:
    """The autocorrelation of a series, the mean over the runs."""
    values = []
    for series in runs:
        centred = series - series.mean()
        values.append((centred[lag:] * centred[:-lag]).mean() / (centred * centred).mean())
    return float(np.mean(values))


def _excess_kurtosis(samples: Sequence[Sample], horizon_s: int) -> float:
    moves = np.concatenate([_moves(run, horizon_s) for run in samples]).astype(np.float64)
    moves -= moves.mean()
    return float((moves**4).mean() / (moves**2).mean() ** 2 - 3)
