"""Servers recorded for real: what is in the file gives the books that they showed."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trio

from market_depth.book.engine import BookEngine
from market_depth.client import websocket_url
from market_depth.feeds.base import FeedError
from market_depth.feeds.dbn import DbnFile
from market_depth.record.errors import RecordingExistsError
from market_depth.record.server_feed import subscriptions
from market_depth.record.server_recording import record_server
from protocol.codecs import resting_orders_text
from protocol.events import Side
from protocol.instrument import Instrument
from protocol.session import Subscription
from tests.depth_server import DepthServer
from tests.market_depth.client.fake_server import START_NS, fake_depth_server, frame
from tests.market_depth.client.test_connection import FakeSocket, connect_to
from tests.market_depth.feeds.dbn_files import adds, encoded, write
from tests.market_depth.record.frames import Resting, frame_text
from tests.market_depth.record.recordings import databento_reads, delivered, names_in

STEP_NS = 300_000_000
MARKET_DEPTH = [sys.executable, "-m", "market_depth"]


def shown_text(engine: BookEngine, instrument: Instrument, now_ns: int) -> str:
    """The data of the frame that a server would send of a rebuilt book."""
    # Imported late: so does every reader of a book that wants to start fast.
    from market_depth.book.views import resting_orders

    number = instrument.instrument_id
    bids, asks = (resting_orders(engine, number, side, 10_000) for side in (Side.BID, Side.ASK))
    return resting_orders_text(instrument, bids, asks, now_ns)


@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst"])
async def test_a_recording_gives_the_book_of_every_frame_at_its_time(tmp_path: Path, name: str) -> None:
    symbols = ["BTCUSD", "ADAUSD"]
    async with fake_depth_server() as addr:
        writer = await record_server(
            tmp_path / name,
            websocket_url(addr),
            addr,
            subscriptions(symbols, 30),
            max_records=4000,
        )
    with DbnFile(tmp_path / name) as file:
        instruments = {instrument.instrument_id: instrument for instrument in file.instruments}
        events = file.read()
    assert len(events) == writer.records >= 4000
    engine = BookEngine()
    frames = 0
    for batch in np.split(events, np.flatnonzero(events["flags"] & 128)[:-1] + 1):
        engine.apply(batch)
        now_ns = int(batch["ts_recv"][0])
        instrument = instruments[int(batch["instrument_id"][0])]
        sent = frame(Subscription("0", instrument.symbol, "MBO", 30), (now_ns - START_NS) // STEP_NS)
        assert shown_text(engine, instrument, now_ns) in sent
        frames += 1
    assert frames > 8


def test_the_file_of_a_server_is_complete_and_its_book_is_that_of_the_server(tmp_path: Path) -> None:
    events = adds(300)
    events["ts_event"] += np.uint64(7)  # frames tell microseconds
    original = write(tmp_path, encoded(events), "original.dbn")
    path = tmp_path / "a.dbn.zst"
    server = DepthServer("--replay", str(original), "--speed", "max", "--interval-ms", "10")
    try:
        result = subprocess.run(
            [*MARKET_DEPTH, "record", str(path), "--addr", server.addr, "--symbols", "ACME", "--events", "1"],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.stop()
    assert (result.returncode, result.stderr) == (0, "")
    header, records = databento_reads(path)
    assert (header.dataset, header.symbols) == ("SERVER", ["ACME"])
    assert header.end == events["ts_recv"][-1] + 1
    assert result.stdout == (
        f"Recorded {len(records) // 56:,} order events in {path} ({path.stat().st_size:,} bytes)\n"
    )
    rebuilt, expected = BookEngine(), BookEngine()
    rebuilt.apply(delivered(path)[0])
    expected.apply(events)
    with DbnFile(original) as one, DbnFile(path) as other:
        texts = [
            shown_text(engine, file.instruments[0], int(events["ts_recv"][-1]))
            for engine, file in ((expected, one), (rebuilt, other))
        ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupting_keeps_a_complete_file(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "a.dbn"
    command = [*MARKET_DEPTH, "record", str(path), "--symbols", "ADAUSD", "--levels", "5", "--addr"]
    async with fake_depth_server() as addr:
        process = await trio.lowlevel.open_process(
            [*command, addr], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None and not (path.exists() and path.stat().st_size > 10_000):
            await trio.lowlevel.checkpoint()
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stderr is not None
        out = b"".join([chunk async for chunk in process.stdout])
        err = b"".join([chunk async for chunk in process.stderr])
        assert (await process.wait(), err) == (0, b"")
    events, error = delivered(path)
    assert error is None
    assert out.decode().startswith(f"Recorded {len(events):,} order events in {path}")


A = Resting(1, -1, 10)


async def test_what_came_before_an_error_is_kept_and_the_error_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn"
    spoilt = frame_text("0", A).replace("0.010", "0.0101")
    connect = connect_to(FakeSocket([frame_text("0", A), frame_text("0", A, A._replace(number=2)), spoilt]))
    with pytest.raises(FeedError) as raised:
        await record_server(path, "ws://fake/", "there:1", subscriptions(["ACME"]), connect=connect)
    assert str(raised.value).endswith(f"; 3 order events before that are kept in {path}")
    assert len(delivered(path)[0]) == 3
    assert delivered(path)[1] is None


async def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.dbn").touch()
    with pytest.raises(RecordingExistsError):
        await record_server(
            tmp_path / "a.dbn",
            "ws://fake/",
            "there:1",
            subscriptions(["ACME"]),
            connect=connect_to(FakeSocket([frame_text("0", A)])),
        )
    assert names_in(tmp_path) == ["a.dbn"]
