import json
import socket
from collections.abc import Iterator

import pytest

from market_depth.bench.errors import BenchError
from market_depth.bench.load import Load, _Checked, _Skimmed
from market_depth.server.frames import text_frame

HEARTBEAT = text_frame(b'{"type":"HeartBeat","timestamp":"2026-11-20T12:00:00.000000Z"}')


def market_data(stream_id: str, sequence: int, padding: int = 200) -> bytes:
    message = {
        "type": "MarketData",
        "stream_id": stream_id,
        "sequence": sequence,
        "data": "x" * padding,
    }
    return text_frame(json.dumps(message).encode())


FRAMES = [HEARTBEAT, market_data("1", 7), market_data("2", 1, padding=70_000), HEARTBEAT, market_data("1", 8)]
DATA_BYTES = len(FRAMES[1]) + len(FRAMES[2]) + len(FRAMES[4])


@pytest.fixture
def load() -> Iterator[Load]:
    with Load(0, []) as load:
        yield load


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=["skimmed", "checked"])
def client(
    request: pytest.FixtureRequest, load: Load, ends: tuple[socket.socket, socket.socket]
) -> _Skimmed | _Checked:
    if request.param == "skimmed":
        return _Skimmed(load, ends[0], bytearray(1 << 20), b"")
    return _Checked(load, ends[0], b"")


@pytest.mark.parametrize("cuts", [[], [1], [64, 65, 66, 67, 68], [300, 301], [350, 40_000, 70_500]])
def test_frames_are_counted_however_they_are_cut(
    client: _Skimmed | _Checked, load: Load, ends: tuple[socket.socket, socket.socket], cuts: list[int]
) -> None:
    data = b"".join(FRAMES)
    for first, last in zip([0, *cuts], [*cuts, len(data)], strict=True):
        ends[1].sendall(data[first:last])
        client.receive()

    assert (load.frames, load.bytes) == (3, DATA_BYTES)


def test_a_frame_is_counted_when_it_is_whole(
    client: _Skimmed | _Checked, load: Load, ends: tuple[socket.socket, socket.socket]
) -> None:
    frame = market_data("1", 7)
    ends[1].sendall(frame[:-1])
    client.receive()
    assert load.frames == 0

    ends[1].sendall(frame[-1:])
    client.receive()
    assert load.frames == 1


def test_a_torn_frame_is_noticed(
    client: _Skimmed | _Checked, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].sendall(market_data("1", 7)[:-5] + market_data("1", 8))
    with pytest.raises(BenchError, match=r"must begin|not JSON"):
        client.receive()


def test_the_end_of_a_connection_is_noticed(
    client: _Skimmed | _Checked, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError):
        client.receive()


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        ([market_data("1", 8), market_data("1", 7)], "stream 1: sequence 7 after 8"),
        ([text_frame(b'{"type":"MarketData",')], "not JSON"),
        ([text_frame(b'{"type":"Error","code":404,"message":"unknown symbol"}')], "404: unknown symbol"),
    ],
    ids=["sequence falls", "not JSON", "error"],
)
def test_a_checked_client_notices_what_is_wrong_inside(
    load: Load, ends: tuple[socket.socket, socket.socket], frames: list[bytes], problem: str
) -> None:
    ends[1].sendall(b"".join(frames))
    with pytest.raises(BenchError, match=problem):
        _Checked(load, ends[0], b"").receive()


def test_a_checked_client_keeps_the_newest_frame_of_each_stream(
    load: Load, ends: tuple[socket.socket, socket.socket]
) -> None:
    client = _Checked(load, ends[0], b"")
    ends[1].sendall(market_data("1", 7) + market_data("2", 3) + market_data("1", 8))
    client.receive()

    assert client.newest == {"1": market_data("1", 8), "2": market_data("2", 3)}
