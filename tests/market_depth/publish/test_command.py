import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import trio
import typer
from typer.testing import CliRunner

from market_depth.config import Address
from market_depth.feeds.base import FeedError, FeedState
from market_depth.feeds.gateway_url import parse_gateway_url
from market_depth.feeds.tcp import TcpFeed
from market_depth.publish.command import publish
from protocol.events import Action
from tests.market_depth.feeds.dbn_files import adds, encoded, write
from tests.market_depth.publish.publish_process import PublishProcess

KEY = "db-0123456789abcdefghijklmnopqrs"


@pytest.fixture
def log() -> Iterator[IO[bytes]]:
    """Takes what a publisher writes to standard error."""
    with tempfile.TemporaryFile() as file:
        yield file


async def open_feed(published: PublishProcess, key: str = KEY) -> TcpFeed:
    return await TcpFeed.open(parse_gateway_url(f"tcp://127.0.0.1:{published.port}"), key)


@pytest.mark.parametrize("key", [None, KEY])
async def test_a_feed_gets_the_whole_file_and_completes(tmp_path: Path, key: str | None) -> None:
    events = adds(40_000)
    with PublishProcess(write(tmp_path, encoded(events)), "--speed", "max", key=key) as published:
        feed = await open_feed(published)
        assert [i.symbol for i in feed.instruments] == ["ACME"]
        received = np.concatenate([batch async for batch in feed])
    np.testing.assert_array_equal(received, events)
    assert feed.state is FeedState.COMPLETED


async def test_another_key_is_refused(tmp_path: Path) -> None:
    with (
        PublishProcess(write(tmp_path, encoded(adds(3))), key=KEY) as published,
        pytest.raises(FeedError, match="the gateway refused: Authentication failed"),
    ):
        await open_feed(published, "another key of enough characters")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_its_clients_reconnect(
    tmp_path: Path, number: signal.Signals, log: IO[bytes]
) -> None:
    events = adds(3)
    published = PublishProcess(write(tmp_path, encoded(events)), "--rate", "1000", "--loop", log=log)
    feed = await open_feed(published)
    await anext(feed)
    published.process.send_signal(number)
    await trio.to_thread.run_sync(published.process.wait)
    assert published.stop() == 0
    published.start()
    actions: list[int] = []
    while Action.CLEAR not in actions:
        actions += (await anext(feed))["action"].tolist()
    assert feed.state is FeedState.RUNNING
    await feed.aclose()
    published.stop()
    log.seek(0)
    text = log.read().decode()
    assert f"shutting down signal={number.name}" in text
    assert "stopped" in text
    assert "Traceback" not in text


def told(*arguments: str, key: str | None = None) -> tuple[int, str]:
    """What a call that fails ends with, and the line that it tells."""
    app = typer.Typer()
    app.command()(publish)
    result = CliRunner().invoke(app, list(arguments), env={"MARKET_DEPTH_PUBLISH_KEY": key})
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("options", "key", "problem"),
    [
        (["--addr", "0.0.0.0:0"], None, "can be reached from elsewhere: set MARKET_DEPTH_PUBLISH_KEY"),
        (["--addr", "nonsense"], None, "'nonsense' is not an address"),
        ([], "short", "needs 16 characters or more"),
        (["--speed", "fast"], None, "a speed of fast is not possible"),
        (["--rate", "0"], None, "a rate of 0 is not possible"),
        (["--rate", "5", "--speed", "1"], None, "--speed and --rate exclude each other"),
    ],
)
@pytest.mark.usefixtures("own_logging")
def test_a_wrong_call_is_one_line(options: list[str], key: str | None, problem: str) -> None:
    code, line = told("test.dbn", *options, key=key)
    assert code == 2
    assert problem in line


@pytest.mark.usefixtures("own_logging")
def test_what_cannot_be_published_is_one_line(tmp_path: Path) -> None:
    good = str(write(tmp_path, encoded(adds(1))))
    text = str(write(tmp_path, b"hello", "notes.txt"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addr = f"127.0.0.1:{taken.getsockname()[1]}"
        for arguments, problem in [
            ([str(tmp_path / "none.dbn")], "no such file"),
            ([text], "is not a DBN file"),
            ([good, "--addr", addr], f"cannot listen on {addr}: Address already in use"),
        ]:
            code, line = told(*arguments)
            assert code == 1
            assert problem in line


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - that it is recognised is the point
        ("::", False),
        ("192.168.1.7", False),
        ("localhost.example.org", False),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(host: str, is_ours: bool) -> None:
    assert Address(host, 1).is_loopback is is_ours
