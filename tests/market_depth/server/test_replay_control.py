from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from market_depth.feeds.dbn import DamagedFileError
from market_depth.feeds.pacing import choose_pacing
from market_depth.feeds.replay import ReplayFeed
from market_depth.server.http import make_application
from market_depth.server.replay_control import PATH
from market_depth.stream.publisher import Publisher
from protocol.instrument import SCALE, Instrument
from tests.market_depth.feeds.dbn_files import START_NS
from tests.market_depth.feeds.memory_recording import MemoryRecording
from tests.market_depth.feeds.test_replay_control import at
from tests.market_depth.server.applications import ask
from tests.market_depth.server.local_server import measured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

S = 1_000_000_000

Called = tuple[int, dict[str, Any]]


class Caller:
    """Calls the routes of some replays."""

    def __init__(self, *replays: ReplayFeed) -> None:
        self._application = make_application([], replays, Publisher([]), measured(), trio.current_time)

    async def get(self, **query: str) -> Called:
        return await self._call("GET", f"status?{urlencode(query)}", b"")

    async def post(self, name: str, content: object = None, *, body: bytes | None = None) -> Called:
        text = b"" if content is None else json.dumps(content).encode()
        return await self._call("POST", name, text if body is None else body)

    async def _call(self, method: str, name: str, body: bytes) -> Called:
        got = await ask(self._application, method, f"{PATH}/{name}", body)
        return got.status, got.content


def replay_of(name: str, symbol: str) -> ReplayFeed:
    recording = MemoryRecording(*np.split(at(0, 10, 20, 30), 2))
    recording.name = name
    recording.instruments = [Instrument(symbol, "TEST.MBO", 7, SCALE // 100)]
    return ReplayFeed(recording, choose_pacing(1), is_controlled=True)


async def follow(feed: ReplayFeed) -> None:
    async for _ in feed:
        pass


@asynccontextmanager
async def controlled() -> AsyncIterator[Caller]:
    feed = replay_of("day.dbn", "ACME")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, feed)
        await wait_all_tasks_blocked()
        yield Caller(feed)
        await feed.aclose()


async def test_the_status_tells_what_is_played_and_how_far(autojump_clock: MockClock) -> None:
    async with controlled() as caller:
        await trio.sleep(12.5)
        assert await caller.get() == (
            200,
            {
                "file": "day.dbn",
                "symbols": ["ACME"],
                "state": "RUNNING",
                "position": "2023-11-14T22:13:32.500000Z",
                "position_ns": START_NS + 12 * S + S // 2,
                "speed": 1.0,
                "rate": None,
                "loop": False,
                "start": None,
                "end": None,
                "records": 2,
                "percent": 50.0,
                "error": None,
            },
        )


async def test_every_control_answers_with_where_the_replay_then_stands(autojump_clock: MockClock) -> None:
    async with controlled() as caller:
        calls: list[tuple[str, object, dict[str, object]]] = [
            ("pause", None, {"state": "PAUSED", "records": 1}),
            ("pause", {}, {"state": "PAUSED"}),
            ("seek", {"to": "2023-11-14T22:13:45Z"}, {"state": "PAUSED", "records": 3, "percent": 75.0}),
            ("seek", {"to": START_NS + 15 * S}, {"records": 2, "position": "2023-11-14T22:13:35.000000Z"}),
            ("seek", {"to": START_NS // 1_000_000}, {"records": 1, "position_ns": START_NS}),
            ("step", {}, {"records": 2, "position_ns": START_NS + 10 * S}),
            ("step", {"events": 1}, {"records": 3}),
            ("speed", {"speed": 2.5}, {"speed": 2.5, "rate": None}),
            ("speed", {"rate": 200}, {"speed": None, "rate": 200.0}),
            ("speed", {"speed": "max"}, {"speed": "max", "state": "PAUSED"}),
            ("resume", {}, {"state": "RUNNING"}),
            ("stop", {"file": "day.dbn"}, {"state": "IDLE"}),
            (
                "start",
                {"start": "2023-11-14T22:13:45+00:00", "end": START_NS + 60 * S, "loop": True, "speed": 3},
                {
                    "state": "RUNNING",
                    "speed": 3.0,
                    "loop": True,
                    "records": 3,
                    "end": "2023-11-14T22:14:20.000000Z",
                },
            ),
            ("start", {"speed": 9, "loop": False}, {"state": "RUNNING", "speed": 3.0, "loop": True}),
        ]
        for name, content, expected in calls:
            status, got = await caller.post(name, content)
            assert (status, {key: got.get(key) for key in expected}) == (200, expected), (name, content)


@pytest.mark.parametrize(
    ("name", "content", "status", "detail"),
    [
        ("seek", {}, 422, "to: Field required"),
        ("seek", {"to": "tomorrow"}, 422, "to: an instant is expected: a date-time such as"),
        ("seek", {"to": -5}, 422, "to: an instant is expected"),
        ("seek", {"to": True}, 422, "to: an instant is expected"),
        ("seek", {"to": None}, 422, "to: an instant is expected"),
        ("seek", {"to": 0, "form": 1}, 422, "form: Extra inputs are not permitted"),
        ("step", {"events": 0}, 422, "events: Input should be greater than or equal to 1"),
        ("step", {"events": 1.5}, 422, "events: "),
        ("speed", {}, 422, "give speed or rate"),
        ("speed", {"speed": 1, "rate": 1}, 422, "give speed or rate, not both"),
        ("speed", {"speed": 0}, 422, "a speed of 0 is not possible; give a factor"),
        ("speed", {"speed": "fast"}, 422, "speed: "),
        ("speed", {"rate": -1}, 422, "a rate of -1 is not possible; give records a second"),
        ("start", {"start": 2_000_000, "end": 1_000_000}, 422, "end lies before start"),
        ("start", {"session_id": "x"}, 422, "session_id: Extra inputs are not permitted"),
        ("pause", [], 422, "Input should be an object"),
        ("pause", {"file": "/etc/passwd"}, 404, "not replayed here; replayed are: day.dbn"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    name: str, content: object, status: int, detail: str, autojump_clock: MockClock
) -> None:
    async with controlled() as caller:
        got, answer = await caller.post(name, content)
        assert (got, list(answer)) == (status, ["detail"])
        assert answer["detail"].startswith(detail)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"pause"])
async def test_what_is_no_json_is_a_400(body: bytes, autojump_clock: MockClock) -> None:
    async with controlled() as caller:
        assert await caller.post("seek", body=body) == (400, {"detail": "the body is not JSON"})


async def test_what_makes_no_sense_in_a_state_is_a_409(autojump_clock: MockClock) -> None:
    async with controlled() as caller:
        await caller.post("stop")
        assert await caller.post("resume") == (409, {"detail": "day.dbn is IDLE: start it first"})
    assert (await caller.post("start"))[1] == {"detail": "day.dbn is CLOSED: it plays no more"}


async def test_a_replay_that_failed_says_why(autojump_clock: MockClock) -> None:
    recording = MemoryRecording(at(0), damage=DamagedFileError("day.dbn", "breaks off", "fetch it again"))
    feed = ReplayFeed(recording, choose_pacing(1))
    with pytest.raises(DamagedFileError):
        await follow(feed)
    status, content = await Caller(feed).get()
    assert (status, content["state"]) == (200, "FAILED")
    assert content["error"] == "day.dbn: breaks off; fetch it again"
    assert (await Caller(feed).post("start"))[0] == 409


async def test_of_several_replays_one_is_named() -> None:
    caller = Caller(replay_of("one.dbn", "ACME"), replay_of("two.dbn", "EVIL"))
    several = (409, {"detail": "several files are replayed, give one as file: one.dbn, two.dbn"})
    assert await caller.get() == several
    assert await caller.post("pause") == several
    assert (await caller.get(file="two.dbn"))[1]["file"] == "two.dbn"
    assert (await caller.get(symbol="ACME"))[1]["file"] == "one.dbn"
    assert (await caller.get(symbol="BTCUSD"))[0] == 404
    assert (await caller.post("pause", {"file": "two.dbn"}))[1]["file"] == "two.dbn"


async def test_without_a_replay_there_is_nothing_to_control() -> None:
    nothing = (404, {"detail": "this server replays no file"})
    assert await Caller().get() == nothing
    assert await Caller().post("pause") == nothing
