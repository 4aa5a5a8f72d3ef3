import numpy as np
import pytest

from market_depth.store.rows import Rows
from market_depth.store.sampling import Sampler, Sampling, SamplingKind, parse_sampling
from tests.market_depth.store.stores import START_NS, bbo_rows, snapshot_rows

MS = 1_000_000


def at(states: list[int], times_ms: list[int] | None = None, series: list[int] | None = None) -> Rows:
    """Rows whose bids tell their states."""
    rows = bbo_rows(0, len(states))
    rows["series"] = series or 0
    rows["ts_event"] = START_NS + np.array(times_ms or [0] * len(states), np.int64) * MS
    for name in (rows.dtype.names or ())[2:]:
        rows[name] = 1
    rows["best_bid_px"] = states
    return rows


@pytest.mark.parametrize(
    ("text", "sampling"),
    [
        ("change", Sampling()),
        ("events:100", Sampling(SamplingKind.EVENTS, 100)),
        ("ms:250", Sampling(SamplingKind.MILLISECONDS, 250)),
    ],
)
def test_a_sampling_is_text_and_back(text: str, sampling: Sampling) -> None:
    assert parse_sampling(text) == sampling
    assert str(sampling) == text


@pytest.mark.parametrize(
    "text",
    ["", "changes", "events", "events:", "events:0", "ms:-1", "ms:1.5", "ms:1s", "ms:١", "events:9999999999"],
)
def test_other_text_is_no_sampling(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a sampling|every 1 to"):
        parse_sampling(text)


@pytest.mark.parametrize(
    ("sampling", "rows", "picked"),
    [
        ("change", at([]), []),
        ("change", at([5]), [0]),
        ("change", at([5, 5, 6, 6, 5]), [0, 2, 4]),
        ("change", at([5, 5, 5, 6], series=[0, 1, 0, 1]), [0, 1, 3]),
        ("events:1", at([5, 5, 5]), [0, 1, 2]),
        ("events:2", at([1, 2, 3, 4, 5]), [0, 2, 4]),
        ("events:2", at([1, 2, 3, 4, 5], series=[0, 1, 0, 1, 0]), [0, 1, 4]),
        ("ms:10", at([1, 2, 3, 4, 5], [0, 9, 10, 35, 39]), [0, 2, 3]),
        ("ms:10", at([1, 2, 3, 4], [20, 5, 25, 30]), [0, 3]),
        ("ms:10", at([1, 2, 3, 4], [0, 0, 10, 11], series=[0, 1, 0, 1]), [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_picks_the_rows_that_were_chosen_whatever_the_batches(
    sampling: str, rows: Rows, picked: list[int], batch: int
) -> None:
    sampler = Sampler(parse_sampling(sampling))
    got = [sampler.pick(rows[begin : begin + batch]) for begin in range(0, len(rows), batch)]
    np.testing.assert_array_equal(np.concatenate([rows[:0], *got]), rows[picked])


@pytest.mark.parametrize(("sampling", "left"), [("change", []), ("events:3", [4, 5]), ("ms:10", [4, 5])])
def test_at_the_end_the_last_state_of_every_book_is_there(sampling: str, left: list[int]) -> None:
    rows = at([1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2], series=[0, 1] * 3)
    sampler = Sampler(parse_sampling(sampling))
    sampler.pick(rows)
    np.testing.assert_array_equal(sampler.finish(), rows[left])
    assert len(sampler.finish()) == 0


def test_a_sampler_that_saw_nothing_has_nothing_left() -> None:
    assert len(Sampler(Sampling()).finish()) == 0


def test_a_change_of_any_level_of_a_snapshot_counts_and_what_lies_below_does_not() -> None:
    rows = snapshot_rows(3, 1, depth=3).repeat(4)
    rows["ts_event"] += np.arange(4)
    rows["asks"]["count"][2:, 1] += 1
    rows["orders"][3:] += 1
    np.testing.assert_array_equal(Sampler(Sampling()).pick(rows), rows[[0, 2]])
