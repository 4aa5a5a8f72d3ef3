import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from market_depth.bench import fanout_peers
from market_depth.bench.broadcasts.rounds import Messages
from market_depth.bench.compiler import compiled
from market_depth.bench.fanout_peers import installed_peers
from market_depth.bench.load import Load
from market_depth.bench.processes import running
from protocol.timestamp import timestamp_ns
from tests.market_depth.bench.scripted_server import market_data

MESSAGES = [market_data("1", 7, padding=10)[2:], market_data("2", 8, padding=1000)[4:]]


def test_a_round_has_its_own_time_in_every_message(tmp_path: Path) -> None:
    (tmp_path / "messages").write_bytes(b"\n".join([*MESSAGES, b"{}"]))

    stamped = Messages(tmp_path / "messages").stamped(datetime(2026, 11, 20, 16, 41, 3, 5, tzinfo=UTC))

    assert stamped == [
        *(
            message.replace(b"2020-01-01T00:00:00.000000Z", b"2026-11-20T16:41:03.000005Z")
            for message in MESSAGES
        ),
        b"{}",
    ]


@pytest.mark.parametrize("name", ["C", "websockets", "picows", "Node ws"])
def test_every_program_sends_the_messages_with_the_time_of_the_round(name: str, tmp_path: Path) -> None:
    commands, environment = installed_peers()
    if name != "C" and name not in commands:
        pytest.skip(f"{name} is not installed")
    if name == "C" and not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("needs a C compiler")
    messages = tmp_path / "messages"
    messages.write_bytes(b"\n".join(MESSAGES))
    with compiled("send_loop") as send_loop:
        command = [*commands.get(name, [str(send_loop)]), str(messages), "10"]
        before = datetime.now(UTC).timestamp()
        with running(command, environment) as server, Load(server.address, []) as load:
            load.connect(2, 10)
            while load.frames < 8:
                load.receive(10)
            client = next(iter(load._clients.values()))
            newest = list(client.newest.values())
        after = datetime.now(UTC).timestamp()
    texts = [message.decode() for message in newest]
    stamps = [text.split('"timestamp":"')[1].split('"')[0] for text in texts]
    assert all(before <= timestamp_ns(stamp) / 1e9 <= after for stamp in stamps)
    assert [
        text.replace(stamp, "2020-01-01T00:00:00.000000Z").encode()
        for text, stamp in zip(texts, stamps, strict=True)
    ] == MESSAGES


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_peers, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    assert installed_peers() == ({}, {})
