"""Databento's own client understands what `publish` says. It is an extra of its own: `pip install '.[databento]'`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from databento_dbn import DBNDecoder, MBOMsg, SymbolMappingMsg

from protocol.events import ORDER_EVENT, OrderEvents
from tests.market_depth.feeds.dbn_files import DAY, NEXT_DAY, adds, encoded, metadata, write
from tests.market_depth.publish.publish_process import PublishProcess

KEY = "db-0123456789abcdefghijklmnopqrs"
PROGRAM = Path(__file__).with_name("databento_client.py")

pytestmark = pytest.mark.databento


@pytest.fixture(scope="module", autouse=True)
def _client_is_installed() -> None:
    """Skips where there is no client, or fails where MARKET_DEPTH_REQUIRE has the word `databento`."""
    if importlib.util.find_spec("databento") is None:
        reason = "Databento's client is not installed: pip install '.[databento]'"
        if "databento" in os.environ.get("MARKET_DEPTH_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def events() -> OrderEvents:
    return adds(40_000, instrument_ids=(7, 8))


@pytest.fixture
def recording(tmp_path: Path, events: OrderEvents) -> Path:
    mappings = {"ACME": [(DAY, NEXT_DAY, "7")], "EMCA": [(DAY, NEXT_DAY, "8")]}
    return write(tmp_path, encoded(events, metadata(mappings=mappings)))


def run_client(
    published: PublishProcess, *arguments: str, key: str = KEY
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(published.port), key, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("options", [[], ["--ts-out"]])
def test_it_receives_every_record(
    recording: Path, events: OrderEvents, tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "received.dbn"
    with PublishProcess(recording, "--speed", "max", key=KEY) as published:
        ended = run_client(published, str(path), *options)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"7": "ACME", "8": "EMCA"}
    decoder = DBNDecoder()
    decoder.write(path.read_bytes())
    records = decoder.decode()
    received = b"".join(
        bytes(record)[: ORDER_EVENT.itemsize] for record in records if isinstance(record, MBOMsg)
    )
    rows = np.frombuffer(received, ORDER_EVENT).copy()
    if options:
        assert set(rows["length"]) == {16}
        rows["length"] = 14
    np.testing.assert_array_equal(rows, events)
    assert sum(isinstance(record, SymbolMappingMsg) for record in records) == 2


def test_it_is_refused_with_another_key(recording: Path, tmp_path: Path) -> None:
    with PublishProcess(recording, key=KEY) as published:
        ended = run_client(published, str(tmp_path / "none.dbn"), key="db-another0123456789abcdefghijklm")
    assert ended.returncode != 0
    assert "Authentication failed" in ended.stderr
