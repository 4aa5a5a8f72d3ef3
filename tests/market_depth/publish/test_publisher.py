import logging
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, open_stream_to_socket_listener

from market_depth.clock import ManualClock
from market_depth.feeds.base import FeedError
from market_depth.feeds.dbn import DamagedFileError
from market_depth.feeds.dbn_decoding import HEARTBEAT, REPLAY_COMPLETED, RTYPE_ERROR, RTYPE_SYSTEM, Notice
from market_depth.feeds.gateway_client import RefusedError
from market_depth.feeds.gateway_text import END_OF_RECORDING, Subscription, challenge_response
from market_depth.feeds.pacing import Pacing, choose_pacing
from market_depth.publish.playback import OpenRecords
from market_depth.publish.publisher import MAX_STRANGERS, Publisher
from market_depth.publish.session import Catalog
from protocol.events import Action
from tests.market_depth.feeds.dbn_files import START_NS, adds, encoded, metadata, write
from tests.market_depth.publish.gateway_peer import KEY, Peer
from tests.market_depth.publish.memory_records import records

S = 1_000_000_000
SEED = 7
CATALOG = Catalog("TEST.MBO", {7: "ACME"})
END = Notice(RTYPE_SYSTEM, REPLAY_COMPLETED, END_OF_RECORDING)


def publisher(
    open_records: OpenRecords,
    pacing: Pacing | None = None,
    *,
    loop: bool = False,
    max_clients: int = 64,
) -> Publisher:
    return Publisher(
        open_records,
        CATALOG,
        pacing or choose_pacing("max"),
        ManualClock(START_NS),
        loop=loop,
        key=KEY,
        max_clients=max_clients,
    )


def connect(nursery: trio.Nursery, served: Publisher) -> trio.abc.HalfCloseableStream:
    """The client's end of a new connection."""
    ours, theirs = memory_stream_pair()
    nursery.start_soon(served.serve, theirs)
    return ours


async def test_every_client_gets_every_record_whenever_it_comes(tmp_path: Path) -> None:
    events = adds(40_000)
    path = write(tmp_path, encoded(events))
    served = await Publisher.open(path, choose_pacing("max"), ManualClock(START_NS), key=KEY)
    peers = []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                peers.append(Peer(connect(nursery, served)))
                nursery.start_soon(peers[-1].run)
    for peer in peers:
        np.testing.assert_array_equal(peer.events, events)
        assert peer.mappings == [(7, "ACME")]
        assert peer.notices[-1] == END


async def test_records_keep_the_pace(autojump_clock: MockClock) -> None:
    served = publisher(records(adds(5)), choose_pacing(rate=0.5))
    async with trio.open_nursery() as nursery:
        peer = Peer(connect(nursery, served))
        start = trio.current_time()
        nursery.start_soon(peer.run)
    assert [(round(at - start), count) for at, count in peer.arrivals] == [(2 * n, 1) for n in range(1, 6)]


async def test_a_quiet_market_is_told_to_be_there(autojump_clock: MockClock) -> None:
    served = publisher(records(adds(2, step_ns=100 * S)), choose_pacing(1))
    async with trio.open_nursery() as nursery:
        peer = Peer(connect(nursery, served), heartbeat_s=30)
        nursery.start_soon(peer.run)
    assert [notice.code for notice in peer.notices if notice.is_heartbeat] == [HEARTBEAT] * 3


async def test_a_subscription_may_start_later() -> None:
    events = adds(10, step_ns=10)
    served = publisher(records(events))
    async with trio.open_nursery() as nursery:
        peer = Peer(connect(nursery, served), subscription=Subscription(start_ns=START_NS + 40))
        nursery.start_soon(peer.run)
    np.testing.assert_array_equal(peer.events, events[4:])


async def test_a_loop_starts_again_with_clear_books(autojump_clock: MockClock) -> None:
    served = publisher(records(adds(3)), choose_pacing(rate=1), loop=True)
    async with trio.open_nursery() as nursery:
        peer = Peer(connect(nursery, served))
        await peer.shake_hands()
        while len(peer.events) < 8:
            await peer.receive()
        nursery.cancel_scope.cancel()
    actions = [Action(action).name for action in peer.events["action"][:7]]
    assert actions == ["ADD"] * 3 + ["CLEAR"] + ["ADD"] * 3


async def test_damage_is_told_after_the_records_before_it() -> None:
    events = adds(3)
    damage = DamagedFileError("memory", "breaks off", "fetch it again")
    served = publisher(records(events, damage=damage))
    async with trio.open_nursery() as nursery:
        peer = Peer(connect(nursery, served))
        nursery.start_soon(peer.run)
    np.testing.assert_array_equal(peer.events, events)
    assert peer.notices[-1] == Notice(RTYPE_ERROR, 6, "memory: breaks off; fetch it again")


async def test_another_key_is_refused_and_the_connection_closed() -> None:
    served = publisher(records(adds(3)))
    async with trio.open_nursery() as nursery:
        peer = Peer(connect(nursery, served), key="another")
        with pytest.raises(RefusedError, match="Authentication failed"):
            await peer.shake_hands()
        assert await peer.stream.receive_some() == b""
        await peer.stream.aclose()


async def test_no_two_challenges_are_the_same() -> None:
    served = publisher(records(adds(3)))
    greetings = set()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            stream = connect(nursery, served)
            greetings.add(bytes(await stream.receive_some()))
            await stream.aclose()
    assert len(greetings) == 10


async def test_one_client_too_many_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    served = publisher(records(adds(3)), max_clients=1)
    async with trio.open_nursery() as nursery:
        first = Peer(connect(nursery, served))
        await first.shake_hands()
        second = Peer(connect(nursery, served))
        with pytest.raises(RefusedError, match="Connection limit reached"):
            await second.shake_hands()
        await second.stream.aclose()
        await first.stream.aclose()
    assert "session refused session=2 problem='Connection limit reached'" in caplog.text
    async with trio.open_nursery() as nursery:
        third = Peer(connect(nursery, served))
        nursery.start_soon(third.run)
    assert third.notices[-1] == END


async def test_silent_connections_keep_nobody_out_and_are_bounded(autojump_clock: MockClock) -> None:
    served = publisher(records(adds(3)), max_clients=1)
    async with trio.open_nursery() as nursery:
        silent = []
        for _ in range(MAX_STRANGERS + 1):
            silent.append(connect(nursery, served))
            assert await silent[-1].receive_some()
        assert await silent[0].receive_some() == b""
        client = Peer(connect(nursery, served))
        await client.run()
        assert client.notices[-1] == END
        assert await silent[1].receive_some() == b""
        assert trio.current_time() == 0
        # The others until their time is up.
        assert b"Nothing came for 10 s" in await silent[2].receive_some()
        for stream in silent:
            await stream.aclose()


@pytest.mark.parametrize(
    ("is_authenticated", "patience_s"), [(False, 10), (True, 300)], ids=["silent", "authenticated"]
)
async def test_a_client_that_does_not_go_on_is_let_go(
    is_authenticated: bool, patience_s: int, autojump_clock: MockClock
) -> None:
    served = publisher(records(adds(3)))
    async with trio.open_nursery() as nursery:
        stream = connect(nursery, served)
        greeting = bytes(await stream.receive_some()).decode()
        start = trio.current_time()
        if is_authenticated:
            challenge = greeting.split("cram=")[1].strip()
            await stream.send_all(f"auth={challenge_response(challenge, KEY)}\n".encode())
            await stream.receive_some()
        last = bytes(await stream.receive_some())
        assert f"Nothing came for {patience_s} s".encode() in last
        assert trio.current_time() - start == pytest.approx(patience_s)
        await stream.aclose()


async def test_a_client_that_takes_nothing_is_let_go(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "market_depth")
    served = publisher(records(adds(3)))
    _, theirs = lockstep_stream_pair()
    start = trio.current_time()
    await served.serve(theirs)
    assert trio.current_time() - start == pytest.approx(30)
    assert "client takes nothing" in caplog.text


async def test_a_slow_client_gets_every_record_and_makes_nobody_else_wait(
    autojump_clock: MockClock,
) -> None:
    events = adds(100_000)
    served = publisher(records(*np.split(events, 10)))
    ours, theirs = lockstep_stream_pair()
    slow = Peer(ours)

    async def read_slowly() -> None:
        await slow.shake_hands()
        while await slow.receive():  # noqa: ASYNC110 - its slowness is what is tested
            await trio.sleep(5)
        await ours.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.serve, theirs)
        nursery.start_soon(read_slowly)
        fast = Peer(connect(nursery, served))
        await fast.run()
        fast_s = trio.current_time()
    assert fast_s < trio.current_time() - 25
    np.testing.assert_array_equal(slow.events, events)
    np.testing.assert_array_equal(fast.events, events)


async def test_hostile_clients_leave_the_others_undisturbed(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(SEED)
    served = publisher(records(adds(1000)))
    async with trio.open_nursery() as nursery:
        peer = Peer(connect(nursery, served))
        nursery.start_soon(peer.run)
        for _ in range(300):
            stream = connect(nursery, served)
            challenge = bytes(await stream.receive_some()).decode().split("cram=")[1].strip()
            words = f"auth={challenge_response(challenge, KEY)}\n".encode() + LINES
            torn = bytearray(words[: rng.integers(len(words) + 1)])
            for at in rng.integers(0, max(len(torn), 1), rng.integers(4)):
                torn[at : at + 1] = rng.bytes(int(rng.integers(3)))
            await stream.send_all(bytes(torn) + rng.bytes(int(rng.integers(200))))
            await stream.aclose()
    assert len(peer.events) == 1000
    assert "session failed" not in caplog.text, f"seed {SEED}"


LINES = b"schema=mbo|symbols=ACME\nstart_session=0\n"


@pytest.mark.parametrize("length", range(0, len(LINES) + 1, 8))
async def test_a_client_may_leave_at_any_moment(length: int, caplog: pytest.LogCaptureFixture) -> None:
    served = publisher(records(adds(3)), choose_pacing(rate=0.001))
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.serve, theirs)
        challenge = bytes(await ours.receive_some()).decode().split("cram=")[1].strip()
        words = f"auth={challenge_response(challenge, KEY)}\n".encode() + LINES
        await ours.send_all(words[: len(words) - len(LINES) + length])
        await ours.aclose()
    assert "ERROR" not in caplog.text


async def test_the_end_of_the_publisher_leaves_no_torn_record() -> None:
    events = adds(100_000)
    served = publisher(records(*np.split(events, 10)), loop=True)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        running = trio.CancelScope()

        async def run() -> None:
            with running:
                await served.run(listeners)

        nursery.start_soon(run)
        stream = await open_stream_to_socket_listener(listeners[0])
        peer = Peer(stream)
        await peer.shake_hands()
        while len(peer.events) < 30_000:
            await peer.receive()
        running.cancel()
        while await peer.receive():
            pass
        await stream.aclose()
    assert not peer.has_torn_record


async def test_a_file_that_cannot_be_published_is_refused_at_once(tmp_path: Path) -> None:
    empty = write(tmp_path, metadata(mappings={}).encode())
    for path, problem in [(tmp_path / "none.dbn", "no such file"), (empty, "holds nothing to publish")]:
        with pytest.raises(FeedError, match=problem):
            await Publisher.open(path, choose_pacing("max"), ManualClock(0))
