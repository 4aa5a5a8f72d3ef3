import gc
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncGenerator
from io import StringIO
from itertools import pairwise

import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from market_depth.client.connection import ConnectionLost, Live, websocket_url
from market_depth.client.replay_remote import RemoteError, ReplayStatus
from market_depth.client.view import MarketView
from market_depth.client.watcher import Keys, run_watch, watch, watch_once
from protocol.messages import DataType, Error, Subscribe
from protocol.timestamp import timestamp_ns, timestamp_text
from tests.depth_server import DepthServer
from tests.market_depth.client.conftest import WALL_NS
from tests.market_depth.client.fake_server import fake_depth_server
from tests.market_depth.client.test_connection import FRAME, FakeSocket, connect_to

ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"


def new_view(symbol: str = "BTCUSD", data_type: DataType = "MBP", levels: int = 3) -> MarketView:
    subscription = Subscribe(stream_id="a", symbol=symbol, data_type=data_type, max_levels=levels)
    return MarketView(subscription, "127.0.0.1:8080")


def terminal() -> Console:
    return Console(file=StringIO(), width=80, height=24, force_terminal=True, _environ={"TERM": "xterm"})


def written(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@trio.as_safe_channel
async def q_after_20_s() -> AsyncGenerator[str, None]:
    await trio.sleep(10)
    yield "x"
    await trio.sleep(10)
    yield "q"


@pytest.mark.parametrize("data_type", ["MBP", "MBO"])
async def test_once_prints_one_frame_as_plain_text(data_type: DataType) -> None:
    console = Console(file=StringIO(), width=80)
    async with fake_depth_server() as addr:
        await watch_once(websocket_url(addr), new_view(data_type=data_type), console)
    text = written(console)
    assert "\x1b" not in text
    assert text.startswith(f" BTCUSD  {data_type}")
    assert "spread 1.0 (2 ticks)   mid 65,00" in text
    assert len(text.splitlines()) == 4 + 3 + 1 + 3


async def test_once_with_an_unknown_symbol_leaves_the_refusal() -> None:
    console, view = Console(file=StringIO()), new_view("DOGE")
    async with fake_depth_server() as addr:
        await watch_once(websocket_url(addr), view, console)
    assert written(console) == ""
    assert view.refusal is not None
    assert view.refusal.message == "symbol: 'DOGE' is not served (served: ADAUSD, BTCUSD)"


@pytest.mark.parametrize(
    ("attempts", "reason", "seconds"),
    [
        ([], "nobody listens", 5),
        ([FakeSocket([], then_silent=True)], "the server sent no book", 30),
    ],
)
async def test_once_gives_up_in_time(
    attempts: list[FakeSocket], reason: str, seconds: float, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    with pytest.raises(ConnectionLost, match=reason):
        await watch_once("ws://fake/", new_view(), Console(file=StringIO()), connect=connect_to(*attempts))
    assert trio.current_time() - start == seconds


async def test_a_lost_server_is_counted_down_to_and_found_again(autojump_clock: MockClock) -> None:
    console, view = terminal(), new_view()
    connect = connect_to(FakeSocket([FRAME]), None, None, None, FakeSocket([FRAME], then_silent=True))
    await watch("ws://fake/", view, console, q_after_20_s, connect=connect, wall_ns=lambda: WALL_NS)
    countdown = [float(seconds) for seconds in re.findall(r"again in ([0-9.]+) s", written(console))]
    assert len(countdown) > 10
    restarts = sum(after > before for before, after in pairwise(countdown))
    assert restarts == 3, countdown
    assert isinstance(view.connection, Live)


async def test_q_leaves_and_restores_the_screen(autojump_clock: MockClock) -> None:
    console = terminal()
    start = trio.current_time()
    await watch("ws://fake/", new_view(), console, q_after_20_s, connect=connect_to())
    assert trio.current_time() - start == 20
    assert written(console).startswith(ENTER_SCREEN)
    assert written(console).endswith(LEAVE_SCREEN)


async def test_a_refusal_ends_the_watch(autojump_clock: MockClock) -> None:
    refusal = Error(code=404, message="symbol: unknown", stream_id="a")
    socket = FakeSocket([refusal.model_dump_json()], then_silent=True)
    console, view = terminal(), new_view()
    await watch("ws://fake/", view, console, connect=connect_to(socket))
    assert view.refusal == refusal
    assert written(console).endswith(LEAVE_SCREEN)


async def test_a_resized_terminal_gets_its_layout_with_the_next_frame(autojump_clock: MockClock) -> None:
    console = terminal()

    @trio.as_safe_channel
    async def resize_then_q() -> AsyncGenerator[str, None]:
        await trio.sleep(1)
        console.file = StringIO()
        console.width, console.height = 60, 12
        await trio.sleep(0.05)
        await trio.sleep(0.2)
        yield "q"

    await watch("ws://fake/", new_view(), console, resize_then_q, connect=connect_to())
    last_screen = written(console).split("\x1b[H")[-1].removesuffix(LEAVE_SCREEN)
    assert last_screen.count("\n") == 11


LATENCY_S = 0.05


class FakeRemote:
    """A replay that does what it is told; None where the server has none."""

    def __init__(self, status: ReplayStatus | None) -> None:
        self.replay = status
        self.told: list[tuple[str, dict[str, object]]] = []
        self.asked: list[float] = []
        self.failure: RemoteError | None = None

    async def status(self) -> ReplayStatus | None:
        self.asked.append(trio.current_time())
        await trio.sleep(LATENCY_S)
        if self.failure is not None:
            raise self.failure
        return self.replay

    async def tell(self, control: str, content: dict[str, object]) -> ReplayStatus:
        self.told.append((control, content))
        assert self.replay is not None
        if control == "step":
            raise RemoteError("day.dbn is DONE: start it first")
        states = {"pause": "PAUSED", "resume": "RUNNING", "start": "RUNNING"}
        changes: dict[str, object] = {"state": states.get(control, self.replay.state)}
        changes |= {"position_ns": timestamp_ns(str(content["to"]))} if control == "seek" else {}
        self.replay = self.replay.model_copy(update=changes)
        return self.replay


REPLAY = ReplayStatus(file="day.dbn", state="RUNNING", position_ns=WALL_NS, speed=2.0, percent=12.34)


def keys_at(*pressed: tuple[float, str]) -> Keys:
    """Keys, each after so many seconds; at last q."""

    @trio.as_safe_channel
    async def keys() -> AsyncGenerator[str, None]:
        for second, key in (*pressed, (60, "q")):
            await trio.sleep_until(second)
            yield key

    return keys


async def test_keys_control_the_replay_and_its_status_stands_at_the_foot(autojump_clock: MockClock) -> None:
    console, view, remote = terminal(), new_view(), FakeRemote(REPLAY)
    keys = keys_at((1.2, " "), (2, "left"), (2, "left"), (2, "left"), (2, "+"), (3, "."), (4, "x"), (5, " "))
    await watch(
        "ws://fake/", view, console, keys, remote, connect=connect_to(FakeSocket([FRAME], then_silent=True))
    )
    ten_s = 10 * 10**9
    assert remote.told == [
        ("pause", {"file": "day.dbn"}),
        ("seek", {"file": "day.dbn", "to": timestamp_text(WALL_NS - ten_s)}),
        # Pressed while the server was busy with the first.
        ("seek", {"file": "day.dbn", "to": timestamp_text(WALL_NS - 3 * ten_s)}),
        ("speed", {"file": "day.dbn", "speed": 4.0}),
        ("step", {"file": "day.dbn"}),
        ("resume", {"file": "day.dbn"}),
    ]
    text = written(console)
    assert "▶ 2026-11-18 11:06:40.0   ×2   12.3 %   q quit   space pause" in plain(text)
    assert "‖ 2026-11-18 11:06:10.0   ×2   12.3 %   day.dbn is DONE: start it first" in plain(text)


def plain(text: str) -> str:
    """Text without the terminal's escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


async def test_a_simulated_server_is_asked_seldom_and_shows_nothing_of_a_replay(
    autojump_clock: MockClock,
) -> None:
    console, remote = terminal(), FakeRemote(None)
    await watch(
        "ws://fake/",
        new_view(),
        console,
        keys_at((11, " ")),
        remote,
        connect=connect_to(FakeSocket([FRAME], then_silent=True)),
    )
    assert remote.told == []
    assert len(remote.asked) <= 15
    assert "q quit   3 of 3 levels" in plain(written(console))
    assert "space" not in plain(written(console))


async def test_a_replay_that_is_lost_is_found_again(autojump_clock: MockClock) -> None:
    view, remote = new_view(), FakeRemote(REPLAY)
    seen = []

    async def lose() -> None:
        for failure in (None, RemoteError("connection refused"), None):
            remote.failure = failure
            await trio.sleep(6)
            seen.append(view.replay)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose)
        await watch("ws://fake/", view, terminal(), keys_at(), remote, connect=connect_to())
    assert seen == [REPLAY, None, REPLAY]


@pytest.mark.parametrize(
    ("addr", "symbol", "data_type", "levels", "message"),
    [
        ("127.0.0.1", None, "MBP", 20, "'127.0.0.1' is no address of a server (for example 127.0.0.1:8080)"),
        ("127.0.0.1:1", "X" * 65, "MBP", 20, "SYMBOL: must be a string of 1 to 64 characters"),
        ("127.0.0.1:1", None, "MBP", 0, "--levels: must be an integer between 1 and 1000"),
        ("127.0.0.1:1", None, "MBP", 20, "watch draws on a terminal; add --once for one frame as text"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    addr: str,
    symbol: str | None,
    data_type: DataType,
    levels: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_watch(addr, symbol, data_type, levels, once=False) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"market-depth: {message}\n"


def test_a_token_that_fits_into_no_header_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_watch("127.0.0.1:1", once=True, token="a\r\nb") == 2
    assert capsys.readouterr().err == (
        "market-depth: a token has 1 to 512 letters, digits and signs of ASCII, and no blanks\n"
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_asks_for_a_token_is_shown_the_right_one_and_none_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = DepthServer("--symbols", "BTCUSD", "--token", "right")
    try:
        codes = [run_watch(server.addr, once=True, token=token) for token in ("right", "wrong", None)]
    finally:
        server.stop()
    gc.collect()  # trio-websocket leaves a refused socket to it, with a warning: here, not in another test
    assert codes == [0, 1, 1]
    captured = capsys.readouterr()
    assert captured.out.startswith(" BTCUSD  MBP")
    refusal = "the server requires a valid token: give it with --token or as MARKET_DEPTH_TOKEN"
    assert captured.err == f"market-depth: {refusal}\n" * 2


def test_nobody_there_is_one_line_and_exit_code_1(
    unused_port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market_depth.client.watcher.CONNECT_LIMIT_S", 0.3)
    addr = f"127.0.0.1:{unused_port}"
    assert run_watch(addr, once=True) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"market-depth: cannot watch BTCUSD at {addr}: connection refused\n"


@pytest.mark.parametrize("data_type", ["MBP", "MBO"])
def test_one_frame_of_a_real_server_from_the_command_line(
    data_type: DataType, depth_server: DepthServer
) -> None:
    options = ["--addr", depth_server.addr, "--data-type", data_type, "--levels", "4", "--once"]
    command = [sys.executable, "-m", "market_depth", "watch", "ETHUSD", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f" ETHUSD  {data_type}")
    assert len(lines) == 4 + 4 + 1 + 4
    assert "spread 0." in lines[8]


class PseudoTerminal:
    """The watcher in a process with a terminal of its own."""

    def __init__(self, addr: str) -> None:
        self._master, slave = pty.openpty()
        self._slave = slave
        self.settings_before = termios.tcgetattr(slave)
        # A Ctrl-C reaches only processes whose controlling terminal this is.
        command = (
            "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            f"from market_depth.client.watcher import run_watch; sys.exit(run_watch({addr!r}))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        while text not in self.output:
            ready, _, _ = select.select([self._master], [], [], 10)
            assert ready, f"no {text!r} in {self.output!r}"
            self.output += os.read(self._master, 65536).decode(errors="replace")

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    @property
    def settings(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.mark.parametrize("way", ["q", "\x03", signal.SIGTERM], ids=["q", "Ctrl-C", "SIGTERM"])
async def test_leaving_restores_the_terminal(way: str | signal.Signals) -> None:
    async with fake_depth_server() as addr:
        screen = PseudoTerminal(addr)
        try:
            await trio.to_thread.run_sync(screen.read_until, "spread")
            assert screen.settings != screen.settings_before
            if isinstance(way, str):
                screen.press(way)
            else:
                screen.process.send_signal(way)
            await trio.to_thread.run_sync(screen.read_until, LEAVE_SCREEN)
            assert await trio.to_thread.run_sync(screen.process.wait) == 0
            assert screen.settings == screen.settings_before
            assert "Traceback" not in screen.output
        finally:
            screen.close()
