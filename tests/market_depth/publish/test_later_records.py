import numpy as np
import pytest

from market_depth.feeds.base import FeedError
from market_depth.publish.later_records import LaterRecords
from protocol.events import OrderEvents
from tests.market_depth.feeds.dbn_files import START_NS, adds
from tests.market_depth.feeds.test_replay import MemoryRecording


def read_all(recording: LaterRecords) -> list[OrderEvents]:
    chunks = []
    while len(events := recording.read()):
        chunks.append(events)
    return chunks


@pytest.mark.parametrize("first", [0, 1, 3, 4, 9])
def test_all_records_from_an_instant_on_are_read_in_every_round(first: int) -> None:
    events = adds(10, step_ns=10)
    recording = LaterRecords(MemoryRecording(events[:4], events[4:]), START_NS + 10 * first - 5 * (first > 0))
    assert recording.start_ns == START_NS + 10 * first
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(read_all(recording)), events[first:])
        recording.rewind()


def test_records_that_come_later_stay_even_if_they_are_of_earlier() -> None:
    events = adds(3, step_ns=10)
    events["ts_event"][2] = START_NS
    recording = LaterRecords(MemoryRecording(events), START_NS + 10)
    assert np.concatenate(read_all(recording))["order_id"].tolist() == [2, 3]


def test_a_recording_that_ends_before_has_no_records() -> None:
    recording = LaterRecords(MemoryRecording(adds(3)), START_NS * 2)
    assert (read_all(recording), recording.start_ns) == ([], START_NS)


def test_damage_before_the_instant_closes_the_recording() -> None:
    damaged = MemoryRecording(damage=FeedError("memory", "is damaged", "fetch it again"))
    with pytest.raises(FeedError, match="is damaged"):
        LaterRecords(damaged, START_NS)
    assert damaged.is_closed
