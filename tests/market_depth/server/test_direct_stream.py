import random
import socket

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.frame_protocol import FrameProtocol

from market_depth.metrics import Cut, ServerCounts
from market_depth.server.direct_stream import (
    MAX_POSTED,
    MAX_POSTED_BYTES,
    NOTSENT_BYTES,
    STALL_LIMIT_S,
    DirectStream,
)
from market_depth.server.frames import text_frame
from market_depth.server.turnstile import Turnstile
from tests.market_depth.server.socket_pairs import BUFFER_BYTES, direct_pair, frame_texts

BIG = text_frame(b"x" * 100_000)
"""More than the socket of a pair takes at once."""

PONG = bytes(FrameProtocol(client=False, extensions=[]).pong(b"pong"))


def close_frame(code: int) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).close(code, "bye"))


def offer(stream: DirectStream, **texts: str) -> None:
    """Offer each stream's next frame, which is then the newest of the stream."""
    frames = {stream_id: text_frame(text.encode()) for stream_id, text in texts.items()}
    latest: dict[str, bytes] = (getattr(stream.newest, "__defaults__", None) or ({},))[0]
    latest.update(frames)

    def newest(_: DirectStream, stream_id: str, latest: dict[str, bytes] = latest) -> bytes | None:
        return latest.get(stream_id)

    stream.newest = newest
    stream.offer(b"".join(frames.values()), frames)


async def test_writes_reach_an_open_socket_at_once_and_in_order() -> None:
    async with direct_pair() as pair:
        pair.stream.post(text_frame(b"first"))
        offer(pair.stream, a="second", b="third")
        await pair.stream.send_all(PONG)
        assert not pair.stream.is_full
        assert frame_texts(await pair.client.receive_some()) == ["first", "second", "third", "pong"]


async def test_a_full_socket_gets_the_answers_in_order_then_the_newest_frame_of_each_stream() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        assert pair.stream.is_full
        offer(pair.stream, a="a1", b="b1")
        pair.stream.post(text_frame(b"answer 1"))
        offer(pair.stream, a="a2")
        pair.stream.post(text_frame(b"answer 2"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.stream.wait_drained)
            received = b""
            while not received.endswith(text_frame(b"b1")):
                received += await pair.client.receive_some()
        assert frame_texts(received)[1:] == ["answer 1", "answer 2", "a2", "b1"]
        assert pair.stream.skipped == 1
        offer(pair.stream, a="a3")
        assert frame_texts(await pair.client.receive_some()) == ["a3"]


async def test_a_withdrawn_stream_sends_nothing_more() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        offer(pair.stream, a="a1", b="b1")
        pair.stream.withdraw("a")
        pair.stream.withdraw("unknown")
        pair.stream.post(text_frame(b"unsubscribed a"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.stream.wait_drained)
            received = b""
            while not received.endswith(text_frame(b"b1")):
                received += await pair.client.receive_some()
        assert frame_texts(received)[1:] == ["unsubscribed a", "b1"]


async def test_no_data_follows_a_close_frame_but_answers_before_it_arrive() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        offer(pair.stream, a="a1")
        pair.stream.post(text_frame(b"answer"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.stream.send_all, close_frame(1001))
            await wait_all_tasks_blocked()
            assert pair.stream.is_closing
            assert pair.stream.close_code == 1001
            offer(pair.stream, a="a2")
            pair.stream.post(text_frame(b"too late"))
            received = b""
            while not received.endswith(close_frame(1001)):
                received += await pair.client.receive_some()
        assert frame_texts(received)[1:] == ["answer", "1001"]


async def test_a_client_that_is_gone_breaks_the_stream_and_wakes_its_reader() -> None:
    async with direct_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.stream.receive_some)
        await wait_all_tasks_blocked()
        await pair.client.aclose()
        for _ in range(2):
            pair.stream.post(text_frame(b"anybody there?"))
            offer(pair.stream, a="a")
        assert pair.stream.is_broken
        with pytest.raises(trio.BrokenResourceError):
            await pair.stream.send_all(PONG)


@pytest.mark.parametrize("waiting", [1, 2])
async def test_everyone_who_waits_is_told_when_the_client_leaves_in_the_middle_of_a_frame(
    waiting: int,
) -> None:
    async with direct_pair() as pair:

        async def expect_broken() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await pair.stream.send_all(PONG + BIG)

        async with trio.open_nursery() as nursery:
            for _ in range(waiting):
                nursery.start_soon(expect_broken)
            nursery.start_soon(pair.stream.wait_drained)
            nursery.start_soon(pair.stream.wait_posted)
            await wait_all_tasks_blocked()
            # Enough for the first of them to be under way.
            await pair.client.receive_some(len(BIG) // 2)
            await wait_all_tasks_blocked()
            await pair.client.aclose()
        assert pair.stream.is_broken
        assert not pair.stream.is_full


async def test_closing_in_the_moment_in_which_the_socket_fills_ends_quietly() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        await pair.stream.aclose()
        await pair.stream.wait_drained()
        assert pair.stream.is_closing


async def test_closing_a_full_socket_ends_its_writer() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        await wait_all_tasks_blocked()
        await pair.stream.aclose()
        await pair.stream.wait_drained()
        with pytest.raises(trio.BrokenResourceError):
            await pair.stream.send_all(PONG)


async def test_a_client_that_takes_no_byte_is_cut_after_the_stall_limit(mock_clock: MockClock) -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        await wait_all_tasks_blocked()
        mock_clock.jump(STALL_LIMIT_S - 1)
        await wait_all_tasks_blocked()
        assert pair.stream.is_full
        for _ in range(8):  # signs of life: the limit begins anew
            await pair.client.receive_some(4096)
        await wait_all_tasks_blocked()
        mock_clock.jump(STALL_LIMIT_S - 1)
        await wait_all_tasks_blocked()
        assert pair.stream.is_full
        mock_clock.jump(2)
        await pair.stream.wait_drained()
        assert pair.stream.is_broken
        assert pair.counts.connections_cut == {Cut.STALLED: 1}


async def test_a_client_with_too_many_bytes_of_unread_answers_is_cut() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        answer = text_frame(b"x" * 60_000)
        for _ in range(MAX_POSTED_BYTES // len(answer)):
            pair.stream.post(answer)
        assert pair.counts.connections_cut == {}
        for _ in range(2):
            pair.stream.post(answer)
        assert pair.stream.is_broken
        assert pair.counts.connections_cut == {Cut.BACKLOG: 1}
        await pair.stream.wait_drained()


async def test_frames_left_out_and_bytes_begun_are_counted() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        for number in range(3):
            offer(pair.stream, a=f"a{number}")
        assert pair.stream.skipped == 2
        assert pair.counts == ServerCounts(bytes_sent=len(BIG), frames_skipped=2)


async def test_a_client_that_reads_too_little_for_all_its_streams_gets_each_of_them_in_turn() -> None:
    streams = dict.fromkeys("abcdef", "·" * BUFFER_BYTES)  # a few of these fill the socket
    async with direct_pair() as pair:
        received = b""
        while len(frame_texts(received)) < 20 * len(streams):
            offer(pair.stream, **{stream_id: f"{stream_id}{text}" for stream_id, text in streams.items()})
            await wait_all_tasks_blocked()
            received += pair.read_now()
            await wait_all_tasks_blocked()
    assert pair.stream.skipped > len(streams)
    order = "".join(text[0] for text in frame_texts(received))
    for after in range(len(streams), len(order) - len(streams)):
        assert set(order[after : after + len(streams)]) == set(streams), order


async def test_no_more_frames_are_made_ahead_for_a_full_client_than_one_write_takes() -> None:
    frame = text_frame(b"x" * (NOTSENT_BYTES // 2))
    asked_for: list[str] = []

    def newest(_: DirectStream, stream_id: str) -> bytes:
        asked_for.append(stream_id)
        return frame

    async with direct_pair() as pair:
        pair.stream.post(BIG)
        pair.stream.newest = newest
        pair.stream.offer(b"", (), "abcdef")
        received = b""
        while not asked_for:
            await wait_all_tasks_blocked()
            received += await pair.client.receive_some(1000)
        await wait_all_tasks_blocked()
        assert asked_for == ["a", "b"]
        while len(frame_texts(received)) < 7:
            received += await pair.client.receive_some()
        assert asked_for == list("abcdef")


async def test_the_last_words_of_a_cut_wait_for_nobody() -> None:
    async with direct_pair() as open_, direct_pair() as full:
        full.stream.post(BIG)
        for pair in (open_, full):
            pair.stream.cut(Cut.SILENT, close_frame(4012))
            pair.stream.cut(Cut.SILENT, close_frame(4012))
            assert pair.counts.connections_cut == {Cut.SILENT: 1}
        assert (open_.stream.close_code, full.stream.close_code) == (4012, None)
        assert frame_texts(open_.read_now()) == ["4012"]
        assert b"bye" not in full.read_now()
        await full.stream.wait_drained()


async def test_waiting_for_the_answers_does_not_wait_for_market_data() -> None:
    async with direct_pair() as pair:
        pair.stream.post(BIG)
        for number in range(MAX_POSTED + 1):
            pair.stream.post(text_frame(b"answer %d" % number))
        assert pair.stream.is_backed_up
        offer(pair.stream, a="a" * 100_000)
        async with trio.open_nursery() as nursery:

            async def read_slowly() -> None:
                while await pair.client.receive_some(1000):
                    pass

            nursery.start_soon(read_slowly)
            await pair.stream.wait_posted()
            assert (pair.stream.is_full, pair.stream.is_backed_up) == (True, False)
            nursery.cancel_scope.cancel()


async def test_bytes_put_back_are_received_again_first() -> None:
    async with direct_pair() as pair:
        await pair.client.send_all(b"later")
        pair.stream.unread(b"world")
        pair.stream.unread(b"hello ")
        assert await pair.stream.receive_some(4) == b"hell"
        assert await pair.stream.receive_some() == b"o world"
        assert await pair.stream.receive_some() == b"later"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "127.0.0.1:{}"), ("::1", "[::1]:{}"), (None, "local")]
)
async def test_the_peer_is_named_as_it_is_reached(host: str | None, expected: str) -> None:
    if host is None:
        async with direct_pair() as pair:
            assert pair.stream.peer == expected
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            async with trio.open_nursery() as nursery:
                stream = DirectStream(accepted, nursery, ServerCounts(), Turnstile())
                assert stream.peer == expected.format(client.getsockname()[1])
                await stream.aclose()


@pytest.mark.parametrize("seed", range(30))
async def test_frames_are_whole_and_in_order_whatever_is_written_and_however_it_is_read(seed: int) -> None:
    chance = random.Random(seed)
    posted: list[str] = []
    offered: dict[str, list[str]] = {stream_id: [] for stream_id in "abc"}
    received = b""

    def text(name: str, number: int) -> str:
        return f"{name}:{number}:" + "·" * chance.choice((0, 10, 60, 3_000, 40_000))

    async with direct_pair() as pair:
        stream = pair.stream

        async def write() -> None:
            for number in range(150):
                match chance.randrange(5):
                    case 0:
                        posted.append(text("post", number))
                        stream.post(text_frame(posted[-1].encode()))
                    case 1:
                        posted.append(text("send", number))
                        await stream.send_all(text_frame(posted[-1].encode()))
                    case 2:
                        await trio.lowlevel.checkpoint()
                    case _:
                        texts = {stream_id: text(stream_id, number) for stream_id in chance.sample("abc", 2)}
                        for stream_id, content in texts.items():
                            offered[stream_id].append(content)
                        offer(stream, **texts)
            await stream.wait_drained()
            await stream.send_all(close_frame(1000))
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while data := await pair.client.receive_some(chance.choice((1, 7, 126, 5_000, 60_000))):
                received += data
                if chance.random() < 0.2:
                    await trio.lowlevel.checkpoint()

    *texts, last = frame_texts(received)
    assert last == "1000", seed
    by_name: dict[str, list[str]] = {"post": [], **{stream_id: [] for stream_id in "abc"}}
    for content in texts:
        name = content.split(":")[0]
        by_name["post" if name == "send" else name].append(content)
    assert by_name.pop("post") == posted, seed
    for stream_id, contents in by_name.items():
        written = iter(offered[stream_id])
        assert all(content in written for content in contents), seed  # in order, some skipped
        assert contents[-1:] == offered[stream_id][-1:], seed
    assert len(texts) + stream.skipped == len(posted) + sum(map(len, offered.values())), seed
