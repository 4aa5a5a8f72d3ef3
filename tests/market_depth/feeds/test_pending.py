from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.base import MAX_BATCH_RECORDS
from market_depth.feeds.pending import PendingEvents
from protocol.events import Flag
from tests.market_depth.feeds.dbn_files import adds


def pending(count: int, event_ends: Sequence[int]) -> PendingEvents:
    """`count` records; `event_ends` says behind which of them an event ends."""
    events = adds(count)
    events["flags"] = 0
    events["flags"][np.array(event_ends, np.intp) - 1] = Flag.LAST
    queue = PendingEvents()
    queue.append(events, np.arange(count))
    return queue


@pytest.mark.parametrize(
    ("count", "event_ends", "has_batch", "shortest"),
    [
        (0, [], False, 0),
        (5, [], False, 5),
        (5, [2, 4], True, 2),
        (5, [5], True, 5),
        (MAX_BATCH_RECORDS, [], True, MAX_BATCH_RECORDS),
        (MAX_BATCH_RECORDS + 5, [MAX_BATCH_RECORDS], True, MAX_BATCH_RECORDS),
        (MAX_BATCH_RECORDS + 5, [MAX_BATCH_RECORDS + 1], True, MAX_BATCH_RECORDS),
    ],
)
def test_the_shortest_batch_is_one_event_or_as_much_as_a_batch_may_have(
    count: int, event_ends: list[int], has_batch: bool, shortest: int
) -> None:
    queue = pending(count, event_ends)
    assert (queue.has_batch(), queue.shortest_batch()) == (has_batch, shortest)


@pytest.mark.parametrize(
    ("count", "event_ends", "due", "longest"),
    [
        (9, [2, 4, 7], 2, 2),
        (9, [2, 4, 7], 6, 4),
        (9, [2, 4, 7], 7, 7),
        (9, [2, 4, 7], 9, 7),
        (9, [2, 4, 7], 1, 2),
        (9, [], 9, 9),
        (MAX_BATCH_RECORDS + 9, [4, MAX_BATCH_RECORDS + 1], MAX_BATCH_RECORDS + 9, 4),
        (MAX_BATCH_RECORDS + 9, [], MAX_BATCH_RECORDS + 9, MAX_BATCH_RECORDS),
    ],
)
def test_the_longest_batch_ends_at_the_last_event_end_among_the_records_due(
    count: int, event_ends: list[int], due: int, longest: int
) -> None:
    assert pending(count, event_ends).longest_batch(due) == longest


@pytest.mark.parametrize(
    ("count", "event_ends", "events", "batch"),
    [
        (9, [2, 4, 7], 1, (2, 1)),
        (9, [2, 4, 7], 2, (4, 2)),
        (9, [2, 4, 7], 9, (7, 3)),
        (9, [], 2, (9, 1)),
        (MAX_BATCH_RECORDS + 9, [4, MAX_BATCH_RECORDS + 1], 2, (4, 1)),
        (MAX_BATCH_RECORDS + 9, [], 2, (MAX_BATCH_RECORDS, 1)),
    ],
)
def test_a_batch_of_some_events_ends_with_the_last_of_them_that_it_has_room_for(
    count: int, event_ends: list[int], events: int, batch: tuple[int, int]
) -> None:
    assert pending(count, event_ends).batch_of(events) == batch


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.sets(st.integers(1, 72)), st.data())
def test_batches_joined_are_the_records_appended_and_are_cut_behind_event_ends(
    chunks: list[int], event_ends: set[int], data: st.DataObject
) -> None:
    count = sum(chunks)
    events = adds(count)
    events["flags"] = [Flag.LAST if number + 1 in event_ends else 0 for number in range(count)]
    queue = PendingEvents()
    taken = []
    for chunk in np.split(events, np.cumsum(chunks)[:-1]):
        queue.append(chunk, chunk["sequence"].astype(np.int64))
        while queue.has_batch() and data.draw(st.booleans()):
            times = queue.times
            batch = queue.take(queue.longest_batch(data.draw(st.integers(0, len(queue)))))
            assert batch["flags"][-1] == Flag.LAST
            assert times[: len(batch)].tolist() == batch["sequence"].tolist()
            taken.append(batch)
    taken.append(queue.take(len(queue)))
    np.testing.assert_array_equal(np.concatenate(taken), events)
    assert len(queue) == 0
