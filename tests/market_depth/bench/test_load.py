from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from market_depth.bench.errors import BenchError
from market_depth.bench.load import Load
from market_depth.server.frames import text_frame
from protocol.messages import Subscribe
from tests.market_depth.bench.scripted_server import HEARTBEAT, ScriptedServer, market_data, scripted_server

FRAMES = [HEARTBEAT, market_data("1", 7), market_data("2", 1, padding=70_000), HEARTBEAT, market_data("1", 8)]
DATA_BYTES = len(FRAMES[1]) + len(FRAMES[2]) + len(FRAMES[4])
SUBSCRIPTIONS = [Subscribe(stream_id=name, symbol="BTCUSD", data_type="MBP") for name in "12"]


@contextmanager
def connected(clients: int = 1) -> Iterator[tuple[ScriptedServer, Load]]:
    with scripted_server() as server, Load(server.address, SUBSCRIPTIONS) as load:
        load.connect(clients, 10)
        yield server, load


@pytest.mark.parametrize("cuts", [[], [1], [64, 65, 66, 67, 68], [300, 301], [350, 40_000, 70_500]])
def test_frames_are_counted_however_they_are_cut(cuts: list[int]) -> None:
    data = b"".join(FRAMES)
    with connected() as (server, load):
        for first, last in zip([0, *cuts], [*cuts, len(data)], strict=True):
            server.send(data[first:last])
            load.receive(10)
        while load.frames < 3:
            assert load.receive(10)
        assert (load.frames, load.bytes) == (3, DATA_BYTES)


def test_a_frame_is_counted_when_it_is_whole() -> None:
    frame = market_data("1", 7)
    with connected() as (server, load):
        server.send(frame[:-1])
        load.receive(10)
        assert load.frames == 0
        server.send(frame[-1:])
        load.receive(10)
        assert load.frames == 1


def test_clients_subscribe_after_the_handshake() -> None:
    with connected() as (server, _):
        request = server.clients[0].recv(4096)
    assert request.count(b'"type":"Subscribe"') == 2


def test_the_end_of_a_connection_is_noticed() -> None:
    with connected(2) as (server, load):
        server.clients[0].close()
        load.receive(10)
        assert (load.lost, load.clients) == (1, 1)


def test_the_client_that_was_there_longest_can_leave() -> None:
    with connected(2) as (server, load):
        load.disconnect_oldest()
        assert load.clients == 1
        server.clients[0].recv(4096)
        with pytest.raises(ConnectionError):
            server.clients[0].recv(1)


def test_pings_are_answered() -> None:
    with connected() as (server, load):
        server.clients[0].recv(4096)
        server.send(b"\x89\x02hi")
        load.receive(10)
        assert server.clients[0].recv(100) == b"\x8a\x82\0\0\0\0hi"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (market_data("1", 8) + market_data("1", 7), "stream 1: sequence 7 after 8"),
        (text_frame(b'{"type":"MarketData",'), "not JSON"),
        (text_frame(b'{"type":"Error","code":404,"message":"unknown symbol"}'), "404: unknown symbol"),
        (market_data("1", 7)[:-5] + market_data("1", 8), "must begin|not JSON"),
        (b"\xc1\x00", "0xc1 0x00 where an unmasked frame must begin"),
        (b"\x81\x80", "0x81 0x80 where"),
        (b"\x81\x7f" + b"\x10" * 8, "a frame of 1,157,442,765,409,226,768 bytes"),
    ],
    ids=["sequence falls", "not JSON", "error", "torn", "reserved bit", "masked", "giant"],
)
def test_what_no_server_of_ours_may_send_is_noticed(data: bytes, problem: str) -> None:
    with connected() as (server, load):
        server.send(data)
        with pytest.raises(BenchError, match=problem):
            load.receive_for(1, 0.1)


def test_the_newest_message_of_each_stream_is_kept() -> None:
    with connected() as (server, load):
        server.send(market_data("1", 7))
        load.receive(10)
        assert load.messages == []
        server.send(market_data("2", 3) + market_data("1", 8))
        load.wait_for_messages(10)
        assert [text_frame(message) for message in load.messages] == [
            market_data("1", 8),
            market_data("2", 3),
        ]


def test_a_refused_handshake_is_told() -> None:
    with (
        scripted_server(b"HTTP/1.1 403 Forbidden\r\n\r\n") as server,
        Load(server.address, []) as load,
        pytest.raises(BenchError, match="403 Forbidden"),
    ):
        load.connect(1, 10)


def test_a_server_that_is_not_there_is_told() -> None:
    with scripted_server() as server:
        gone = server.address
    with Load(gone, []) as load, pytest.raises(BenchError, match=f"no connection to {gone}"):
        load.connect(1, 10)
