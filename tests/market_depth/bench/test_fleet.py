"""The clients in C against a server that sends what each test says."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from market_depth.bench.compiler import compiled
from market_depth.bench.errors import BenchError
from market_depth.bench.fleet import OWN, launched
from protocol.messages import Subscribe
from tests.market_depth.bench.scripted_server import HEARTBEAT, market_data, now_text, scripted_server

pytestmark = pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="needs a C compiler")

FRAMES = [HEARTBEAT, market_data("1", 7), market_data("2", 1, padding=70_000), HEARTBEAT, market_data("1", 8)]
DATA_BYTES = len(FRAMES[1]) + len(FRAMES[2]) + len(FRAMES[4])
SUBSCRIPTION = Subscribe(stream_id=f"{OWN}-1", symbol="BTCUSD", data_type="MBP")

PING = b"\x89\x02hi"
WINDOW_S = 0.05


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    with compiled("fleet") as path:
        yield path


@pytest.mark.parametrize("cuts", [[], [1], [64, 65, 66, 67, 68], [300, 301], [350, 40_000, 70_500]])
def test_frames_are_counted_however_they_are_cut(program: Path, cuts: list[int]) -> None:
    data = b"".join(FRAMES)
    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(3, 2)

        def send() -> None:
            for first, last in zip([0, *cuts], [*cuts, len(data)], strict=True):
                server.send(data[first:last])

        received = fleet.receive(WINDOW_S, WINDOW_S, send)
    assert (received.frames, received.bytes, received.lost) == (9, 3 * DATA_BYTES, 0)


def test_only_what_comes_in_a_window_is_counted(program: Path) -> None:
    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(1, 1)
        server.send(market_data("1", 7)[:-1])
        first = fleet.receive(WINDOW_S, WINDOW_S, lambda: None)
        second = fleet.receive(WINDOW_S, WINDOW_S, lambda: server.send(market_data("1", 7)[-1:]))
    assert (first.frames, second.frames) == (0, 1)


def test_latency_runs_from_a_frames_timestamp_to_its_last_byte(program: Path) -> None:
    def send() -> None:
        for age_s in (0, 1, 1, 2):
            made = datetime.now(UTC) - timedelta(seconds=age_s)
            server.send(market_data("1", 7, timestamp=f"{made:%Y-%m-%dT%H:%M:%S.%fZ}"))

    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(1, 1)
        received = fleet.receive(WINDOW_S, WINDOW_S, send)
    assert received.p50_ms is not None
    assert received.p99_ms is not None
    assert 1000 < received.p50_ms < received.p99_ms
    assert received.p99_ms > 2000


def test_the_last_clients_latency_is_the_largest_of_one_timestamp(program: Path) -> None:
    def send() -> None:
        frame = market_data("1", 7, timestamp=now_text())
        first, second, last = server.clients
        first.sendall(frame + PING)
        second.sendall(frame + PING)
        for client in (first, second):
            client.recv(100)  # the answer to the ping: it has read the frame
        last.sendall(frame)

    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(3, 1)
        received = fleet.receive(WINDOW_S, WINDOW_S, send)
    assert received.last_p50_ms is not None
    assert received.p50_ms is not None
    assert received.last_p50_ms == received.last_p99_ms
    assert received.p50_ms <= received.last_p50_ms + 0.01  # the one is a bin of 10 µs, the other exact


def test_timestamps_of_another_time_are_no_latencies(program: Path) -> None:
    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(1, 1)
        received = fleet.receive(WINDOW_S, WINDOW_S, lambda: server.send(b"".join(FRAMES)))
    assert (received.frames, received.p50_ms, received.last_p99_ms) == (3, None, None)


def test_each_client_subscribes_with_its_own_number(program: Path) -> None:
    with scripted_server() as server, launched(program, server.address, [SUBSCRIPTION]) as fleet:
        fleet.connect(2, 2)
        fleet.subscribe()
        requests = [client.recv(4096) for client in server.clients]
    ids = [json.loads(request[request.index(b"{") :])["stream_id"] for request in requests]
    assert ids == ["00000-1", "00001-1"]


def test_pings_are_answered(program: Path) -> None:
    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(1, 1)
        server.send(PING)
        fleet.receive(WINDOW_S, WINDOW_S, lambda: None)
        assert server.clients[0].recv(100) == b"\x8a\x82\0\0\0\0hi"


def test_a_client_that_the_server_leaves_is_counted(program: Path) -> None:
    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(2, 2)
        received = fleet.receive(WINDOW_S, WINDOW_S, server.clients[0].close)
    assert received.lost == 1


def test_slow_clients_never_read_and_can_be_cut(program: Path) -> None:
    with scripted_server() as server, launched(program, server.address, [SUBSCRIPTION]) as fleet:
        fleet.connect_slow(1)
        [slow] = server.clients
        assert b"00000-1" in slow.recv(4096)
        slow.settimeout(0.2)
        with pytest.raises(TimeoutError):
            slow.sendall(bytes(64_000_000))
        fleet.cut_slow()
        slow.settimeout(10)
        with pytest.raises(ConnectionError):
            slow.recv(1)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (market_data("1", 7)[:-5] + market_data("1", 8) * 2, "where a frame must begin"),
        (b"\xc1\x00", "bytes c1 00 where a frame must begin"),
        (HEARTBEAT[:1] + b"\x85", "bytes 81 85 where"),
        (b'\x81\x1d{"type":"Error","code":"404"}', 'the server answered {"type":"Error","code":"404"}'),
    ],
    ids=["torn frame", "reserved bit", "masked", "error"],
)
def test_what_no_server_of_ours_may_send_ends_the_measurement(
    program: Path, data: bytes, problem: str
) -> None:
    with scripted_server() as server, launched(program, server.address, []) as fleet:
        fleet.connect(1, 1)
        with pytest.raises(BenchError, match=problem):
            fleet.receive(WINDOW_S, WINDOW_S, lambda: server.send(data))


def test_a_refused_handshake_is_told(program: Path) -> None:
    with (
        scripted_server(b"HTTP/1.1 403 Forbidden\r\n\r\n") as server,
        launched(program, server.address, []) as fleet,
        pytest.raises(BenchError, match=r"the handshake was answered HTTP/1\.1 403 Forbidden"),
    ):
        fleet.connect(1, 1)


def test_without_a_compiler_there_is_no_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="needs a C compiler"), compiled("fleet"):
        pass
