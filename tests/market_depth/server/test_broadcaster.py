from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from market_depth.metrics import ServerCounts
from market_depth.server.broadcaster import CHUNK_WRITES, MAX_PAYLOAD_BYTES, Broadcaster
from market_depth.stream.publisher import Publisher
from protocol.codecs import decode_answer
from protocol.messages import MarketData
from protocol.session import Subscription
from tests.market_depth.server.local_server import SYMBOLS, WrittenMarket
from tests.market_depth.server.socket_pairs import frame_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from market_depth.server.direct_stream import DirectStream


class WrittenStream:
    """Takes what is offered to a client; `writes` has the time of each write and its frames."""

    def __init__(self, name: str = "", on_write: Callable[[WrittenStream], None] | None = None) -> None:
        self.name = name
        self.on_write = on_write
        self.writes: list[tuple[float, list[MarketData]]] = []
        self.withdrawn: list[str] = []
        self.is_full = False
        self.carried: list[list[str]] = []
        self.due: list[str] = []
        self.newest: Callable[[DirectStream, str], bytes | None] = lambda *_: None

    @property
    def direct(self) -> DirectStream:
        return cast("DirectStream", self)

    @property
    def frames(self) -> list[MarketData]:
        return [frame for _, frames in self.writes for frame in frames]

    def write(self, payload: bytes) -> int:
        if self.is_full:
            raise BlockingIOError
        self._take(payload)
        return len(payload)

    def refuse(self, _: OSError, carried: Iterable[str]) -> None:
        self.remember(carried)

    def offer(self, payload: bytes, carried: Iterable[str], further: Iterable[str] = ()) -> bool:
        if self.is_full:
            self.remember([*carried, *further])
            return False
        self._take(payload, further)
        assert self.carried[-1] == list(carried)
        return bool(payload)

    def _take(self, payload: bytes, further: Iterable[str] = ()) -> None:
        answers = [decode_answer(text) for text in frame_texts(payload)]
        messages = [answer for answer in answers if isinstance(answer, MarketData)]
        self.carried.append([message.stream_id for message in messages])
        for stream_id in further:
            frame = self.newest(self.direct, stream_id)
            assert frame is not None
            message = decode_answer(frame_texts(frame)[0])
            assert isinstance(message, MarketData)
            messages.append(message)
        self.writes.append((trio.current_time(), messages))
        if self.on_write is not None:
            self.on_write(self)

    def remember(self, stream_ids: Iterable[str]) -> None:
        self.due += stream_ids

    def withdraw(self, stream_id: str) -> None:
        self.withdrawn.append(stream_id)


def subscription(stream_id: str, symbol: str = "BTCUSD", max_levels: int = 20) -> Subscription:
    return Subscription(stream_id, symbol, "MBP", max_levels)


def six_streams() -> list[Subscription]:
    return [
        Subscription(f"{symbol} {data_type}", symbol, data_type, 20)
        for symbol in SYMBOLS
        for data_type in ("MBO", "MBP")
    ]


def make(market: WrittenMarket | None = None, interval_s: float = 0.3) -> tuple[WrittenMarket, Broadcaster]:
    market = market or WrittenMarket()
    return market, Broadcaster(Publisher([market]), interval_s, ServerCounts())


async def test_rounds_are_aligned_and_a_client_gets_all_its_streams_in_one_write(
    autojump_clock: MockClock,
) -> None:
    _, broadcaster = make()
    client = WrittenStream()
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        nursery.start_soon(broadcaster.run)
        for stream in six_streams():
            await trio.sleep(0.01)
            broadcaster.start(client.direct, stream)
        assert [len(frames) for _, frames in client.writes] == [1] * 6
        client.writes.clear()
        await trio.sleep_until(start + 1.0)
        nursery.cancel_scope.cancel()
    assert [round(at - start, 6) for at, _ in client.writes] == [0.3, 0.6, 0.9]
    assert [len(frames) for _, frames in client.writes] == [6] * 3


async def test_a_book_is_encoded_once_a_round_however_many_receive_it() -> None:
    market, broadcaster = make()
    clients = [WrittenStream(str(number)) for number in range(50)]
    for client in clients:
        for stream in six_streams():
            broadcaster.start(client.direct, stream)
    for number, client in enumerate(clients):  # an id of its own is another frame, not another encoding
        broadcaster.start(client.direct, subscription(f"my {number}"))
    market.encoded.clear()
    await broadcaster.broadcast()
    assert len(market.encoded) == 6
    assert all(len(client.writes[-1][1]) == 7 for client in clients)
    assert broadcaster.stream_count == 50 * 7
    assert broadcaster._counts.frames_sent == 50 * 7 * 2


async def test_many_subscriptions_at_a_time_share_one_encoding(
    mock_clock: MockClock,
) -> None:
    market, broadcaster = make()
    for number in range(100):
        broadcaster.start(WrittenStream().direct, subscription(f"{number}"))
    assert len(market.encoded) == 1


async def test_nothing_is_encoded_when_nobody_receives_it() -> None:
    market, broadcaster = make()
    client = WrittenStream()
    broadcaster.start(client.direct, subscription("a"))
    broadcaster.start(client.direct, subscription("b", "ETHUSD"))
    broadcaster.stop(client.direct, "a")
    assert client.withdrawn == ["a"]
    market.encoded.clear()
    await broadcaster.broadcast()
    assert [symbol for symbol, _, _ in market.encoded] == ["ETHUSD"]
    broadcaster.leave(client.direct)
    await broadcaster.broadcast()
    assert len(market.encoded) == 1
    assert not broadcaster._publisher._bodies


async def test_whoever_comes_before_the_market_opens_gets_the_first_snapshot_when_it_does(
    autojump_clock: MockClock,
) -> None:
    market, broadcaster = make(WrittenMarket(is_open=False))
    client = WrittenStream()
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        nursery.start_soon(broadcaster.run)
        broadcaster.start(client.direct, subscription("a"))
        await trio.sleep(0.7)
        assert client.writes == []
        market.is_open = True
        broadcaster.hurry()
        await trio.sleep_until(start + 1.3)
        nursery.cancel_scope.cancel()
    assert [round(at - start, 6) for at, _ in client.writes] == [0.7, 0.9, 1.2]


async def test_a_round_that_takes_too_long_skips_those_it_overran(mock_clock: MockClock) -> None:
    _, broadcaster = make()
    client = WrittenStream()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        broadcaster.start(client.direct, subscription("a"))
        client.writes.clear()
        nursery.start_soon(broadcaster.run)
        for step in (0.3, 0.8, 0.05, 0.05, 0.3):  # at 0.3, 1.1, 1.15, 1.2, 1.5
            await wait_all_tasks_blocked()
            mock_clock.jump(step)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [round(at - start, 2) for at, _ in client.writes] == [0.3, 1.1, 1.2, 1.5]


async def test_every_round_somebody_else_is_first() -> None:
    order: list[str] = []
    _, broadcaster = make()
    clients = [WrittenStream(name, lambda client: order.append(client.name)) for name in "abc"]
    for client in clients:
        broadcaster.start(client.direct, subscription("same"))
    firsts = []
    for _ in range(3):
        order.clear()
        await broadcaster.broadcast()
        firsts.append(order[0])
        assert sorted(order) == ["a", "b", "c"]
    assert sorted(firsts) == ["a", "b", "c"]


@pytest.mark.usefixtures("mock_clock")  # no time passes: the round gives way after every chunk
async def test_others_have_their_turn_in_the_middle_of_a_large_round() -> None:
    written_at_turn: list[int] = []
    _, broadcaster = make()
    count = 0

    def written(_: WrittenStream) -> None:
        nonlocal count
        count += 1

    for _ in range(4 * CHUNK_WRITES):
        broadcaster.start(WrittenStream(on_write=written).direct, subscription("a"))
    count = 0

    async def take_turns() -> None:
        while True:
            written_at_turn.append(count)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await broadcaster.broadcast()
        nursery.cancel_scope.cancel()
    assert count == 4 * CHUNK_WRITES
    steps = [after - before for before, after in pairwise(written_at_turn)]
    assert max(steps) <= 2 * CHUNK_WRITES  # tasks take their turns in any order


async def test_a_round_has_as_much_time_as_the_tasks_between_its_turns(mock_clock: MockClock) -> None:
    written_at_turn: list[int] = []
    _, broadcaster = make()
    count = 0

    def written(_: WrittenStream) -> None:
        nonlocal count
        count += 1
        mock_clock.jump(0.001 / CHUNK_WRITES)

    for _ in range(20 * CHUNK_WRITES):
        broadcaster.start(WrittenStream(on_write=written).direct, subscription("a"))
    count = 0

    async def take_long_turns() -> None:
        while True:
            written_at_turn.append(count)
            mock_clock.jump(0.0033)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_long_turns)
        await broadcaster.broadcast()
        nursery.cancel_scope.cancel()
    chunks = {(after - before) / CHUNK_WRITES for before, after in pairwise(written_at_turn)}
    assert count == 20 * CHUNK_WRITES
    assert 4 <= max(chunks) <= 8  # tasks take their turns in any order: two of theirs, one more of ours


@pytest.mark.usefixtures("mock_clock")  # no time passes: the round gives way after every chunk
async def test_many_different_books_are_not_encoded_in_one_go() -> None:
    market, broadcaster = make()
    client = WrittenStream()
    for depth in range(1, 257):
        broadcaster.start(client.direct, subscription(str(depth), max_levels=depth))
    market.encoded.clear()
    encoded_at_turn: list[int] = []

    async def take_turns() -> None:
        while True:
            encoded_at_turn.append(len(market.encoded))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await broadcaster.broadcast()
        nursery.cancel_scope.cancel()
    assert len(market.encoded) == 256
    assert len(set(encoded_at_turn)) > 8
    assert len(client.writes[-1][1]) == 256


async def test_nothing_is_encoded_for_a_client_that_is_full() -> None:
    market, broadcaster = make()
    full, reading = WrittenStream(), WrittenStream()
    full.is_full = True
    broadcaster.start(full.direct, subscription("a", "ETHUSD"))
    broadcaster.start(full.direct, subscription("b", "ADAUSD"))
    broadcaster.start(reading.direct, subscription("a"))
    market.encoded.clear()
    await broadcaster.broadcast()
    assert [symbol for symbol, *_ in market.encoded] == ["BTCUSD"]
    assert (full.writes, full.due) == ([], ["a", "b", "b", "a"])


async def test_what_is_due_beyond_one_payload_follows_at_the_pace_of_the_client() -> None:
    _, broadcaster = make(WrittenMarket(padding=MAX_PAYLOAD_BYTES // 2))
    client = WrittenStream()
    broadcaster.join(client.direct)
    for stream_id in "abcd":
        broadcaster.start(client.direct, subscription(stream_id, max_levels=ord(stream_id)))
    await broadcaster.broadcast()
    assert client.carried[-1] == ["a", "b"]
    assert [frame.stream_id for frame in client.writes[-1][1]] == ["a", "b", "c", "d"]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["start", "stop", "leave", "restart"]), st.integers(0, 4), st.sampled_from("abc")
    ),
    max_size=12,
)


@given(changes=CHANGES)
async def test_streams_that_change_during_a_round_miss_nothing_and_never_go_back(
    changes: list[tuple[str, int, str]],
) -> None:
    """Five clients; whenever one is written to, the next changes happen, each between two turns of the broadcaster."""
    _, broadcaster = make()
    clients = [WrittenStream(str(number)) for number in range(5)]
    live: dict[WrittenStream, set[str]] = defaultdict(set)

    def start(client: WrittenStream, stream_id: str) -> None:
        live[client].add(stream_id)
        broadcaster._publisher._bodies.clear()  # as if the last encoding were long ago
        broadcaster.start(client.direct, subscription(stream_id, max_levels=3))

    def stop(client: WrittenStream, stream_id: str) -> None:
        live[client].remove(stream_id)
        broadcaster.stop(client.direct, stream_id)

    def change(action: str, client: WrittenStream, stream_id: str) -> None:
        is_live = stream_id in live[client]
        if action == "start" and not is_live:
            start(client, stream_id)
        elif action == "stop" and is_live:
            stop(client, stream_id)
        elif action == "restart" and is_live:
            stop(client, stream_id)
            start(client, stream_id)
        elif action == "leave":
            live[client].clear()
            broadcaster.leave(client.direct)

    for client in clients:
        broadcaster.join(client.direct)
        start(client, "a")
        start(client, "b")
    remaining = list(changes)
    during = {client: {"a", "b"} for client in clients}
    before = {client: len(client.writes) for client in clients}

    async def change_between_turns() -> None:
        while remaining:
            action, number, stream_id = remaining.pop(0)
            change(action, clients[number], stream_id)
            during[clients[number]] &= live[clients[number]]
            await trio.lowlevel.checkpoint()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("market_depth.server.broadcaster.CHUNK_WRITES", 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change_between_turns)
            await broadcaster.broadcast()
    for client in clients:
        in_round = {frame.stream_id for _, frames in client.writes[before[client] :] for frame in frames}
        assert during[client] <= in_round
        sequences: dict[str, list[int]] = defaultdict(list)
        for frame in client.frames:
            sequences[frame.stream_id].append(frame.sequence)
        assert all(numbers == sorted(numbers) for numbers in sequences.values())
    await broadcaster.broadcast()
    for client in clients:
        last = {frame.stream_id for frame in client.writes[-1][1]}
        assert last == live[client] or not live[client]
    assert set(broadcaster._publisher._bodies) == set(broadcaster._manager.topics)
