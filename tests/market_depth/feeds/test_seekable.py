from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.book.engine import BookEngine
from market_depth.feeds import seekable
from market_depth.feeds.base import MAX_BATCH_RECORDS
from market_depth.feeds.dbn import DamagedFileError, DbnFile
from market_depth.feeds.recording import Recording
from market_depth.feeds.seekable import SeekableRecording
from protocol.events import ORDER_EVENT, Flag, OrderEvents
from tests.market_depth.book.random_events import many_events
from tests.market_depth.book.test_snapshot import contents
from tests.market_depth.feeds.dbn_files import START_NS, adds, compressed, encoded, write
from tests.market_depth.feeds.memory_recording import MemoryRecording

SECOND = 1_000_000_000
DAMAGE = DamagedFileError("memory", "breaks off", "fetch it again")


def random_market(seed: int, count: int) -> OrderEvents:
    """Events of one to five records, with times that stand still, jump, fall and are missing."""
    rng = np.random.default_rng(seed)
    events = many_events(seed, count)
    events["instrument_id"] %= 3
    events["flags"] = np.where(rng.random(count) < 0.4, Flag.LAST, 0)
    events["flags"][-1] = Flag.LAST
    steps = rng.choice([0, 0, 1, 1000, 10**9], count)
    events["ts_recv"] = START_NS + np.cumsum(steps)
    events["ts_recv"][rng.random(count) < 0.01] = 2**64 - 1
    events["ts_recv"][rng.random(count) < 0.01] -= 5_000
    events["ts_recv"][0] = START_NS
    return events


def played_until(events: OrderEvents, instant_ns: int) -> int:
    """How many records of whole events are over at an instant, looked at one by one."""
    latest, played = START_NS, 0
    for number, (recorded, flags) in enumerate(events[["ts_recv", "flags"]].tolist(), 1):
        latest = max(latest, recorded) if recorded < 2**63 else latest
        if latest > instant_ns:
            break
        if flags & Flag.LAST:
            played = number
    return played


def arrive(recording: SeekableRecording, instant_ns: int | None) -> None:
    for _ in recording.go_to(instant_ns):
        pass


def read_all(recording: SeekableRecording) -> OrderEvents:
    chunks = [np.empty(0, ORDER_EVENT)]
    while len(events := recording.read().events):
        chunks.append(events)
    return np.concatenate(chunks)


def engine_of(events: OrderEvents) -> BookEngine:
    engine = BookEngine()
    engine.apply(events)
    return engine


class Follower:
    """Books that follow a recording wherever it goes."""

    def __init__(self, recording: SeekableRecording, events: OrderEvents) -> None:
        self._recording = recording
        self._events = events
        self._engine = BookEngine()

    def read_all(self) -> None:
        """Read and apply the rest."""
        before = self._recording.records
        rest = read_all(self._recording)
        np.testing.assert_array_equal(rest, self._events[before:])
        self._engine.apply(rest)

    def assert_arrives(self, instant_ns: int) -> None:
        """After the snapshot of an instant the books are those that playing from the beginning gives."""
        self._engine.apply(self._recording.snapshot())
        played = played_until(self._events, instant_ns)
        assert self._recording.records == played
        expected = contents(engine_of(self._events[:played]))
        empty: tuple[list[object], list[object]] = ([], [])
        got = contents(self._engine)
        assert got[: len(expected)] == expected
        assert [sides for _, _, sides in got[len(expected) :]] == [[empty, empty]] * (
            len(got) - len(expected)
        )


@pytest.fixture
def close_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seekable, "CHECKPOINT_RECORDS", 300)
    monkeypatch.setattr(seekable, "RECORDS_PER_ORDER", 0)


@pytest.mark.usefixtures("close_checkpoints")
@pytest.mark.parametrize("seed", range(5))
def test_at_any_instant_the_books_are_those_that_playing_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = random_market(seed, 3000)
    recording = SeekableRecording(MemoryRecording(*np.array_split(events, 23)))
    follower = Follower(recording, events)
    span = int(events["ts_recv"].max(where=events["ts_recv"] < 2**63, initial=0)) - START_NS
    for instant_ns in (START_NS + rng.integers(-span // 20, span + span // 20, 40)).tolist():
        arrive(recording, instant_ns)
        follower.assert_arrives(instant_ns)
        if rng.random() < 0.3:
            follower.read_all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.lists(st.integers(-1, 60), max_size=6),
)
def test_an_event_is_read_whole_or_not_at_all(
    rows: list[tuple[int, bool]], chunks: list[int], instants: list[int]
) -> None:
    events = adds(len(rows))
    events["ts_recv"] = START_NS + np.cumsum([step for step, _ in rows])
    events["flags"] = [Flag.LAST if is_last else 0 for _, is_last in rows]
    events["flags"][-1] = Flag.LAST
    start = int(events["ts_recv"][0])
    recording = SeekableRecording(
        MemoryRecording(*np.split(events, np.cumsum(chunks)[np.cumsum(chunks) < len(rows)]))
    )
    for instant in instants:
        arrive(recording, start + instant)
        played = played_until(events, start + instant)
        assert recording.records == played
        assert recording.position_ns == int(events["ts_recv"][max(0, played - 1)])
        chunk = recording.read()
        assert (len(chunk.events) > 0) == (played < len(events))
        np.testing.assert_array_equal(chunk.events, events[played : played + len(chunk.events)])


def test_to_go_back_takes_the_last_checkpoint_and_to_go_on_none() -> None:
    events = adds(100 * MAX_BATCH_RECORDS, step_ns=1000)
    events["order_id"] %= 100
    memory = MemoryRecording(*np.split(events, 100))
    recording = SeekableRecording(memory)
    read_all(recording)
    for before in (90, 30, 70):
        instant_ns = int(events["ts_recv"][before * MAX_BATCH_RECORDS])
        memory.records_read = 0
        arrive(recording, instant_ns)
        assert memory.records_read <= seekable.CHECKPOINT_RECORDS + MAX_BATCH_RECORDS
        memory.records_read = 0
        arrive(recording, instant_ns + MAX_BATCH_RECORDS * 1000)
        assert memory.records_read <= MAX_BATCH_RECORDS


@pytest.mark.usefixtures("close_checkpoints")
@pytest.mark.parametrize(("name", "most"), [("MAX_CHECKPOINTS", 10), ("MAX_CHECKPOINT_BYTES", 20_000_000)])
def test_checkpoints_are_thinned_out_evenly(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seekable, name, most)
    events = adds(40_000)
    recording = SeekableRecording(MemoryRecording(*np.split(events, 400)))
    read_all(recording)
    kept = recording._checkpoints
    assert len(kept) <= (most if name == "MAX_CHECKPOINTS" else 40)
    assert sum(checkpoint.size_bytes for checkpoint in kept) <= 50_000_000
    gaps = np.diff([checkpoint.records for checkpoint in kept])
    assert gaps.max() <= 3 * gaps.min()
    assert kept[-1].records > 30_000


def test_one_who_turns_round_half_way_arrives_as_well() -> None:
    events = random_market(3, 5000)
    recording = SeekableRecording(MemoryRecording(*np.array_split(events, 50)))
    follower = Follower(recording, events)
    follower.read_all()
    for instant_ns in events["ts_recv"][[4000, 100, 2000]].tolist():
        way = recording.go_to(START_NS + (instant_ns - START_NS) // 2)
        next(way, None)
        arrive(recording, instant_ns)
        follower.assert_arrives(instant_ns)


def test_the_end_may_be_an_instant_and_may_change() -> None:
    events = adds(100, step_ns=1000)
    recording = SeekableRecording(MemoryRecording(*np.split(events, 4)))
    recording.end_ns = START_NS + 29_500
    assert (len(read_all(recording)), recording.records) == (30, 30)
    recording.end_ns = START_NS + 80_000
    assert (len(read_all(recording)), recording.records) == (51, 81)
    arrive(recording, None)
    recording.end_ns = None
    np.testing.assert_array_equal(read_all(recording), events)


@pytest.mark.parametrize("limit", [1, 25, 26, 99, 100, 1000])
def test_a_limit_is_the_end_from_wherever_it_is_read(limit: int) -> None:
    events = adds(100, step_ns=1000)
    recording = SeekableRecording(MemoryRecording(*np.split(events, 4)), limit)
    assert len(read_all(recording)) == min(limit, 100)
    arrive(recording, START_NS + 10**9)
    assert recording.records == min(limit, 100)
    arrive(recording, START_NS)
    assert len(read_all(recording)) == min(limit, 100) - 1


def test_damage_is_told_after_everything_before_it_whenever_it_is_read() -> None:
    events = adds(10, step_ns=1000)
    events["flags"][-2:] = 0
    recording = SeekableRecording(MemoryRecording(*np.split(events, 2), damage=DAMAGE))
    for instant_ns in (START_NS, START_NS + SECOND, START_NS + 9_500, START_NS + 8_500):
        arrive(recording, instant_ns)
        played = recording.records
        assert played == {START_NS: 1, START_NS + 8_500: 8}.get(instant_ns, 10)
        assert len(read_all_before_damage(recording)) == 10 - played


def read_all_before_damage(recording: SeekableRecording) -> OrderEvents:
    chunks = [np.empty(0, ORDER_EVENT)]
    with suppress(DamagedFileError):
        while True:
            chunks.append(recording.read().events)
    return np.concatenate(chunks)


def test_records_without_event_ends_are_read_in_bounded_chunks_and_told_apart_by_time() -> None:
    events = adds(3 * MAX_BATCH_RECORDS, step_ns=1000)
    events["flags"] = 0
    recording = SeekableRecording(MemoryRecording(*np.array_split(events, 7)))
    arrive(recording, START_NS + 20_000_500)
    assert recording.records == 20_001
    np.testing.assert_array_equal(read_all(recording), events[20_001:])


def test_a_recording_without_records_is_anywhere_at_once() -> None:
    recording = SeekableRecording(MemoryRecording())
    arrive(recording, START_NS)
    assert (recording.records, len(recording.read().events), len(recording.snapshot())) == (0, 0, 0)


@pytest.mark.usefixtures("close_checkpoints")
@pytest.mark.parametrize("frames", [0, 1, 50], ids=["plain", "one frame", "many frames"])
def test_a_file_on_disk_is_set_to_any_instant(frames: int, tmp_path: Path) -> None:
    events = many_events(1, 5 * MAX_BATCH_RECORDS)
    events["ts_recv"] = START_NS + 1000 * np.arange(len(events))
    events["flags"] = Flag.LAST
    content = encoded(events)
    file = DbnFile(write(tmp_path, compressed(content, frames) if frames else content))
    recording: Recording = file
    played = SeekableRecording(recording)
    assert (read_all(played) == events).all()
    assert played.share() == 1
    for number in (70_000, 10, 20_000, 40_000, 39_000, 81_000):
        arrive(played, START_NS + 1000 * number)
        assert played.records == number + 1
        expected = engine_of(events[: number + 1])
        late = engine_of(played.snapshot())
        assert sum(book.orders for book in map(late.book, range(late.book_count))) == sum(
            book.orders for book in map(expected.book, range(expected.book_count))
        )
        np.testing.assert_array_equal(played.read().events[:100], events[number + 1 :][:100])
    file.close()
