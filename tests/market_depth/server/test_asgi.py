"""The bridge between HTTP/1.1 and ASGI, on streams in memory: what goes in as bytes, what comes out as bytes."""

from __future__ import annotations

import functools
import json
import logging
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import pytest
import trio
from fastapi import BackgroundTasks, FastAPI
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from market_depth.clock import ManualClock
from market_depth.metrics import Refusal, ServerCounts
from market_depth.server.asgi import AsgiServer, Ends, WebSocketRequest
from market_depth.server.gate import Gate, Welcome
from market_depth.server.http_connection import (
    MAX_AHEAD_BYTES,
    MAX_HEAD_BYTES,
    SEND_BYTES,
    USUAL_TIMEOUTS,
)
from market_depth.server.linger import LINGER_BYTES, LINGER_S
from tests.market_depth.server.applications import answer, echo, hello, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.requests import Request
    from trio.testing import MockClock

    from market_depth.server.asgi import Application, Message, Receive, Scope, Send

ENDS = Ends(("192.0.2.1", 50_000), ("127.0.0.1", 8080))
HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + HOST + b"\r\n"
"""What is here for the WebSocket side to judge."""


def post(body: bytes, *headers: bytes) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST / HTTP/1.1\r\n" + HOST + length + b"".join(headers) + b"\r\n" + body


class Heard(NamedTuple):
    """An answer as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Talk:
    """A client's end of a connection, and the server at the other."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, server: AsgiServer, counts: ServerCounts
    ) -> None:
        self.stream = stream
        self.server = server
        self.counts = counts
        self.upgrade: WebSocketRequest | None = None
        self.ended = trio.Event()
        """When the server has let go of the connection."""

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def end(self) -> bytes:
        """All that the server still says, up to its end."""
        received = b""
        with suppress(trio.BrokenResourceError):
            while data := await self.stream.receive_some():
                received += data
        return received

    async def hear(self, parser: h11.Connection | None = None, method: str = "GET") -> Heard:
        """The next answer."""
        parser = parser or h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "localhost")]))
        parser.send(h11.EndOfMessage())
        status, headers, body = 0, {}, b""
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            match event:
                case h11.Response():
                    status = event.status_code
                    headers = {name.decode(): value.decode() for name, value in event.headers}
                case h11.Data():
                    body += event.data
                case h11.ConnectionClosed():
                    raise EOFError
                case h11.NEED_DATA:
                    parser.receive_data(bytes(await self.stream.receive_some()))
        return Heard(status, headers, body)


Pair = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]


@asynccontextmanager
async def talk(
    application: Application, *, gate: Gate | None = None, pair: Callable[[], Any] = memory_stream_pair
) -> AsyncIterator[Talk]:
    """A connection with a server of the application. At the end nothing of either may be left."""
    counts = ServerCounts()
    server = AsgiServer(
        application, gate or Gate(), counts, ManualClock(1_790_000_000_000_000_000), USUAL_TIMEOUTS
    )
    client, ours = pair()
    talking = Talk(client, server, counts)

    async def serve(nursery: trio.Nursery) -> None:
        talking.upgrade = await server.serve(ours, nursery, ENDS)
        await trio.aclose_forcefully(ours)
        talking.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery)
        yield talking
        await trio.aclose_forcefully(client)


def statuses(received: bytes) -> list[int]:
    """Of all the answers in some bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


# One request


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (LAST_GET, 200),
        (b"GET /?a=b HTTP/1.0\r\n\r\n", 200),
        (b"OPTIONS * HTTP/1.0\r\n\r\n", 200),
        (b"GET http://localhost/a?b HTTP/1.0\r\n\r\n", 200),
        (b"GET http://[:: HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"GET /\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01 not HTTP at all", 400),
        (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2 * MAX_HEAD_BYTES, 431),
        (b"y" * 2 * MAX_HEAD_BYTES, 431),
        # What two parsers could read in two ways
        (
            b"POST / HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 6\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n", 400),
    ],
)
async def test_each_request_gets_its_status(request_bytes: bytes, status: int) -> None:
    async with talk(hello) as talking:
        await talking.say(request_bytes)
        await talking.stream.send_eof()
        received = await talking.end()
    assert statuses(received) == [status]
    assert b"\r\nx-content-type-options: nosniff\r\n" in received
    if status != 200:
        assert b"\r\nconnection: close\r\n" in received
        assert list(json.loads(received.partition(b"\r\n\r\n")[2])) == ["detail"]
    assert talking.counts.http_requests == {status: 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"Content-Length: 5\r\n\r\nhello", 200),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nTrailer: x\r\n\r\n", 200),
        (b"Content-Length: 6\r\n\r\nhello", 400),
        (b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 30 + b"\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"x" * 2 * MAX_HEAD_BYTES, 431),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", 400),
    ],
)
async def test_each_body_gets_its_status(body: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with talk(echo) as talking:
        await talking.say(b"POST / HTTP/1.1\r\n" + HOST + body)
        await talking.stream.send_eof()
        received = await talking.end()
    assert statuses(received) == [status]
    assert (b'"body": "hello"' in received) == (status == 200)
    assert not caplog.records


async def test_the_application_is_told_what_was_asked() -> None:
    scopes: list[Scope] = []

    async def note(scope: Scope, _: Receive, send: Send) -> None:
        scopes.append(scope)
        await answer(send, {})

    async with talk(note) as talking:
        await talking.say(b"GET /a%20b%C3%A4?x=%20 HTTP/1.1\r\n" + HOST + b"X-Thing: \xe9\r\n\r\n")
        await talking.hear()
    assert scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/a bä",
            "raw_path": b"/a%20b%C3%A4",
            "query_string": b"x=%20",
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"x-thing", b"\xe9")],
            "client": ENDS.client,
            "server": ENDS.server,
        }
    ]


async def test_an_answer_has_its_reason_its_date_and_no_body_to_head() -> None:
    async with talk(hello) as talking:
        await talking.say(GET.replace(b"GET", b"HEAD") + LAST_GET)
        received = await talking.end()
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"content-type: application/json",
        b"content-length: 18",
        b"date: Mon, 21 Sep 2026 14:13:20 GMT",
        b"x-content-type-options: nosniff",
    ]
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest.endswith(b'{"hello": "world"}')


async def test_an_answer_of_unknown_length_is_chunked_or_ends_with_the_connection() -> None:
    async def stream(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for part in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async with talk(stream) as talking:
        await talking.say(GET)
        assert (await talking.hear()).body == b"onetwo"
        await talking.say(GET.replace(b"1.1", b"1.0"))
        assert (await talking.end()).endswith(b"\r\nConnection: close\r\n\r\nonetwo")


# Many requests


async def test_requests_may_come_at_once_and_are_answered_in_turn() -> None:
    async with talk(echo) as talking:
        await talking.say(post(b"one") + post(b"two") + GET + LAST_GET)
        received = await talking.end()
    assert statuses(received) == [200] * 4
    assert received.index(b'"one"') < received.index(b'"two"')


async def test_where_the_bytes_are_cut_makes_no_difference() -> None:
    whole = post(b"hello") + b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n"
    whole += b"Connection: close\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    expected: bytes | None = None
    for cut in range(len(whole)):
        async with talk(echo) as talking:
            await talking.say(whole[:cut])
            await wait_all_tasks_blocked()
            await talking.say(whole[cut:])
            received = await talking.end()
        expected = expected or received
        assert received == expected, cut
    assert expected is not None
    assert expected.count(b'"body": "hello"') == 2


async def test_what_is_done_after_an_answer_delays_no_further_request() -> None:
    done = trio.Event()
    application = FastAPI()

    @application.post("/")
    async def work(tasks: BackgroundTasks) -> dict[str, bool]:
        tasks.add_task(done.wait)
        return {"done": done.is_set()}

    async with talk(application) as talking:
        for _ in range(3):
            await talking.say(post(b""))
            assert (await talking.hear()).body == b'{"done":false}'
        await talking.stream.aclose()
        await talking.ended.wait()
        done.set()


async def test_a_websocket_may_be_asked_for_later_with_all_that_matters_for_it() -> None:
    async with talk(hello) as talking:
        await talking.say(GET + UPGRADE[:-2] + b"Cookie: a=b\r\n\r\n" + b"first frame")
        await talking.hear()
        await talking.ended.wait()
    assert talking.upgrade is not None
    head, frames = talking.upgrade.heard.split(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert (line, frames) == (b"GET /ws HTTP/1.1", b"first frame")
    # Of the host not even the name: it has been judged, and is long to decode where a client wants that.
    assert sorted(headers) == [b"connection: Upgrade", b"host: -", b"upgrade: websocket"]
    assert talking.upgrade.welcome == Welcome(is_authorised=True, subprotocol=None)


@pytest.mark.parametrize("framing", [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_websocket_is_not_asked_for_with_a_body(framing: bytes) -> None:
    async with talk(hello) as talking:
        await talking.say(UPGRADE[:-2] + framing + b"\r\nabc")
        assert statuses(await talking.end()) == [400]
    assert talking.upgrade is None


async def test_another_protocol_than_websocket_is_not_taken_up() -> None:
    async with talk(hello) as talking:
        await talking.say(GET[:-2] + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + LAST_GET)
        assert statuses(await talking.end()) == [200, 200]


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
async def test_who_answers_before_the_body_is_read_ends_the_connection(method: bytes) -> None:
    async with talk(hello) as talking:
        await talking.say(post(b"x" * 100_000).replace(b"POST", method) + GET)
        received = await talking.end()
    assert statuses(received) == [200]
    assert b"\r\nconnection: close\r\n" in received


async def test_an_empty_body_need_not_be_read() -> None:
    async with talk(hello) as talking:
        await talking.say(post(b"") + LAST_GET)
        assert statuses(await talking.end()) == [200, 200]


# Expect: 100-continue

EXPECT = b"Expect: 100-continue\r\n"


async def test_a_client_that_asks_whether_to_go_on_is_told_to_when_its_body_is_wanted() -> None:
    async with talk(echo) as talking:
        head, body = post(b"hello", EXPECT).split(b"\r\n\r\n")
        await talking.say(head + b"\r\n\r\n")
        assert await talking.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await talking.say(body)
        assert b'"hello"' in (await talking.hear()).body


async def test_a_client_that_asks_whether_to_go_on_is_spared_it_when_nobody_wants_its_body() -> None:
    async with talk(hello) as talking:
        await talking.say(post(b"hello", EXPECT)[:-5])
        received = await talking.end()
    assert statuses(received) == [200]
    assert b"\r\nconnection: close\r\n" in received


# Time


@pytest.mark.parametrize(
    ("said", "every_s", "status", "after_s"),
    [
        (b"", 1, 408, 10),
        (b"GET / HTTP/1.1\r\nX: drips in, byte by byte", 1, 408, 10),
        (post(b"x" * 100)[:-100], 100, 408, 10),
        (post(b"x" * 100)[:-99], 100, 408, 10),
    ],
    ids=["nothing", "slowloris", "no body", "a body that stops"],
)
async def test_who_is_too_slow_is_told_so(
    said: bytes, every_s: float, status: int, after_s: float, autojump_clock: MockClock
) -> None:
    async with talk(echo) as talking, trio.open_nursery() as nursery:

        async def drip() -> None:
            if every_s == 100:
                await talking.say(said)
                return
            with suppress(trio.BrokenResourceError):
                for byte in said:
                    await talking.say(bytes([byte]))
                    await trio.sleep(every_s)

        start = trio.current_time()
        nursery.start_soon(drip)
        received = await talking.end()
        assert trio.current_time() - start == pytest.approx(after_s, abs=LINGER_S)
        assert statuses(received) == [status]
        nursery.cancel_scope.cancel()
    assert talking.counts.connections_refused[Refusal.HEAD_TIMEOUT] == (0 if said.startswith(b"POST") else 1)


async def test_a_body_may_take_as_long_as_it_keeps_coming(autojump_clock: MockClock) -> None:
    async with talk(echo) as talking:
        request = post(b"x" * 60)
        await talking.say(request[:-60])
        for _ in range(60):
            await trio.sleep(9)
            await talking.say(b"x")
        assert (await talking.hear()).status == 200


async def test_an_idle_connection_is_closed_without_a_word(autojump_clock: MockClock) -> None:
    async with talk(hello) as talking:
        await talking.say(GET)
        await talking.hear()
        start = trio.current_time()
        assert await talking.end() == b""
        assert trio.current_time() - start == USUAL_TIMEOUTS.idle_s


async def test_who_takes_no_bytes_is_let_go(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def large(_: Scope, __: Receive, send: Send) -> None:
        await answer(send, "x" * 10 * SEND_BYTES)

    async with talk(large, pair=lockstep_stream_pair) as talking:
        await talking.say(GET)
        await talking.stream.receive_some(1)
        await talking.ended.wait()
    assert trio.current_time() - USUAL_TIMEOUTS.write_s <= LINGER_S
    assert not caplog.records


async def test_an_answer_goes_out_whole_while_the_client_still_sends() -> None:
    async def large(_: Scope, __: Receive, send: Send) -> None:
        await answer(send, "y" * 1_000_000)

    async with talk(large) as talking, trio.open_nursery() as nursery:
        nursery.start_soon(talking.say, post(b"x" * 1_000_000)[:-1])
        assert len((await talking.hear()).body) == 1_000_002


async def test_a_client_that_never_stops_sending_is_not_heard_for_ever() -> None:
    async with talk(hello) as talking, trio.open_nursery() as nursery:

        async def flood() -> None:
            with suppress(trio.BrokenResourceError):
                await talking.say(post(b"")[:-2].replace(b"Length: 0", b"Length: 999999999") + b"\r\n")
                while True:
                    await talking.say(b"y" * (LINGER_BYTES // 8))

        nursery.start_soon(flood)
        await talking.hear()
        await talking.ended.wait()


# Clients that leave


async def test_a_client_that_leaves_in_the_middle_of_a_request_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for said in (b"", b"GET / HT", post(b"hello")[:-1], GET + b"GET"):
        async with talk(echo) as talking:
            await talking.say(said)
            await wait_all_tasks_blocked()
            await talking.stream.aclose()
            await talking.ended.wait()
    assert not caplog.records


async def test_an_application_can_wait_for_its_client_to_leave() -> None:
    told: list[Message] = []

    async def wait(_: Scope, receive: Receive, __: Send) -> None:
        told.extend([await receive() for _ in range(3)])

    async with talk(wait) as talking:
        await talking.say(GET)
        await wait_all_tasks_blocked()
        assert [message["type"] for message in told] == []
        await talking.stream.aclose()
        await talking.ended.wait()
    assert [message["type"] for message in told] == ["http.request", "http.disconnect", "http.disconnect"]


async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async def patient(_: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        assert await receive() == {"type": "http.disconnect"}
        await answer(send, "late")

    async with talk(patient) as talking:
        await talking.say(GET)
        await talking.stream.send_eof()
        assert (await talking.hear()).body == b'"late"'


async def test_what_a_client_sends_ahead_is_kept_within_bounds() -> None:
    go_on = trio.Event()

    async def patient(_: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await go_on.wait()
                scope.cancel()
        await answer(send, {})

    async with talk(patient, pair=lockstep_stream_pair) as talking, trio.open_nursery() as nursery:
        sent = 0

        async def send_ahead() -> None:
            nonlocal sent
            with suppress(trio.BrokenResourceError):
                while True:
                    await talking.say(GET)
                    sent += len(GET)

        nursery.start_soon(send_ahead)
        await wait_all_tasks_blocked()
        assert MAX_AHEAD_BYTES <= sent <= MAX_AHEAD_BYTES + 2 * len(GET)
        go_on.set()
        parser = h11.Connection(h11.CLIENT)
        for _ in range(3):
            assert (await talking.hear(parser)).status == 200
            parser.start_next_cycle()
        nursery.cancel_scope.cancel()


async def test_a_stream_to_a_client_that_leaves_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Endless:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            return b"x" * 1000

    async def endless(_: Request) -> StreamingResponse:
        return StreamingResponse(Endless())

    async with talk(Starlette(routes=[Route("/", endless)]), pair=lockstep_stream_pair) as talking:
        await talking.say(GET)
        await talking.stream.receive_some()
        await talking.stream.aclose()
        await talking.ended.wait()
    assert not caplog.records


async def test_two_tasks_of_an_application_may_wait_for_its_client() -> None:
    async def ask_twice(_: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            for _turn in range(3):
                nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await answer(send, {})

    async with talk(ask_twice) as talking:
        for _ in range(2):
            await talking.say(GET)
            assert (await talking.hear()).status == 200


# Backpressure


async def test_an_application_sends_no_faster_than_its_client_reads() -> None:
    sent = 0

    async def endless(_: Scope, __: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            sent += 1000

    async with talk(endless, pair=lockstep_stream_pair) as talking:
        await talking.say(GET)
        received = 0
        for _ in range(20):
            received += len(await talking.stream.receive_some(1000))
            await wait_all_tasks_blocked()
            assert sent <= received + 1000


async def test_a_client_sends_no_faster_than_the_application_reads() -> None:
    wanted, wants = trio.open_memory_channel[None](0)

    async def slow(_: Scope, receive: Receive, send: Send) -> None:
        async for _turn in wants:
            if not (await receive())["more_body"]:
                break
        await answer(send, {})

    async with talk(slow, pair=lockstep_stream_pair) as talking, trio.open_nursery() as nursery:
        sent = 0

        async def upload() -> None:
            nonlocal sent
            await talking.say(post(b"x" * 20_000)[:-20_000])
            for _ in range(20):
                await talking.say(b"x" * 1000)
                sent += 1000

        nursery.start_soon(upload)
        for read_pieces in range(21):
            await wait_all_tasks_blocked()
            assert sent <= 1000 * read_pieces
            await wanted.send(None)
        assert (await talking.hear()).status == 200


# Applications that fail


async def fail_before(_: Scope, __: Receive, ___: Send) -> None:
    raise RuntimeError("secret")


async def fail_after(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("secret")


async def fail_when_done(_: Scope, __: Receive, send: Send) -> None:
    await answer(send, {})
    raise RuntimeError("secret")


async def fail_in_a_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail_before, scope, receive, send)


async def say_nothing(_: Scope, __: Receive, ___: Send) -> None:
    pass


async def say_half(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def say_less_than_promised(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"half"})


async def say_the_body_first(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"half"})


async def say_it_twice(_: Scope, __: Receive, send: Send) -> None:
    await answer(send, {})
    await answer(send, {})


async def say_something_else(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})


async def say_a_wrong_header(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nb: c")]})


@pytest.mark.parametrize(
    ("application", "expected"),
    [
        (fail_before, [500]),
        (fail_after, [200]),
        (fail_when_done, [200, 200]),
        (fail_in_a_group, [500]),
        (say_nothing, [500]),
        (say_half, [200]),
        (say_less_than_promised, [500]),
        (say_the_body_first, [500]),
        (say_it_twice, [200, 200]),
        (say_something_else, [500]),
        (say_a_wrong_header, [500]),
    ],
)
async def test_a_failure_is_seen_in_the_log_and_by_the_client_without_its_secrets(
    application: Application, expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with talk(application) as talking:
        await talking.say(GET + LAST_GET)
        received = await talking.end()
    assert statuses(received) == expected
    assert b"secret" not in received
    assert not received.endswith(b"0\r\n\r\n")
    assert {(record.levelname, record.name) for record in caplog.records} == {
        ("ERROR", "market_depth.server.asgi")
    }
    assert len(caplog.records) == len(expected)


async def test_a_request_cannot_write_lines_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with talk(fail_before) as talking:
        await talking.say(b"GET /%0AERROR%20all%20is%20lost HTTP/1.1\r\n" + HOST + b"\r\n")
        await talking.hear()
    assert [record.getMessage() for record in caplog.records] == [
        "request failed path='/\\nERROR all is lost'"
    ]


# Frameworks


async def test_a_file_comes_whole_or_in_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * 1000
    path.write_bytes(content)

    async def send_file(_: Request) -> FileResponse:
        return FileResponse(path)

    async with talk(Starlette(routes=[Route("/", send_file)])) as talking:
        await talking.say(GET)
        assert (await talking.hear()).body == content
        await talking.say(GET[:-2] + b"Range: bytes=1000-1099\r\n\r\n")
        part = await talking.hear()
        assert (part.status, part.body) == (206, content[1000:1100])
        await talking.say(GET.replace(b"GET", b"HEAD"))
        head = await talking.hear(method="HEAD")
        assert (head.headers["content-length"], head.body) == (str(len(content)), b"")


async def test_handlers_that_block_go_to_a_thread() -> None:
    application = FastAPI()

    @application.get("/")
    def block() -> int:
        return trio.from_thread.run_sync(functools.partial(len, "from a thread"))

    async with talk(application) as talking:
        await talking.say(GET)
        assert (await talking.hear()).body == b"13"


async def test_a_framework_that_answers_for_its_failures_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: Request) -> JSONResponse:
        raise RuntimeError("secret")

    async with talk(Starlette(routes=[Route("/", fail)])) as talking:
        await talking.say(GET + LAST_GET)
        assert statuses(await talking.end()) == [500, 500]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


# The door, and the end


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Authorization: Bearer token\r\n", 200),
        (b"", 401),
        (b"Authorization: Bearer wrong\r\n", 401),
        (b"Authorization: Bearer token\r\nOrigin: http://evil.example\r\n", 403),
    ],
)
async def test_the_gate_is_asked_for_every_request(headers: bytes, status: int) -> None:
    async with talk(hello, gate=Gate(token="token")) as talking:
        authorised = GET[:-2] + b"Authorization: Bearer token\r\n\r\n"
        await talking.say(authorised + LAST_GET[:-2] + headers + b"\r\n")
        received = await talking.end()
    assert statuses(received) == [200, status]
    assert (b"\r\nwww-authenticate: Bearer\r\n" in received) == (status == 401)
    assert talking.counts.connections_refused.total() == (status != 200)


async def test_at_the_end_what_is_idle_is_closed_and_what_is_asked_is_answered(
    autojump_clock: MockClock,
) -> None:
    go_on = trio.Event()

    async def slow(_: Scope, __: Receive, send: Send) -> None:
        await go_on.wait()
        await answer(send, {})

    async with talk(slow) as asked, talk(slow) as idle, talk(slow) as half, trio.open_nursery() as nursery:
        await asked.say(GET + GET)
        await half.say(GET[:10])
        await wait_all_tasks_blocked()
        for talking in (asked, idle, half):
            nursery.start_soon(talking.server.shut_down)
        assert (await idle.end(), await half.end()) == (b"", b"")
        await wait_all_tasks_blocked()
        assert not asked.ended.is_set()
        go_on.set()
        received = await asked.end()
    assert statuses(received) == [200]
    assert b"\r\nconnection: close\r\n" in received


async def test_the_end_waits_for_what_is_done_after_an_answer(autojump_clock: MockClock) -> None:
    done = trio.Event()

    async def work(_: Scope, __: Receive, send: Send) -> None:
        await answer(send, {})
        await done.wait()

    async with talk(work) as talking, trio.open_nursery() as nursery:
        await talking.say(LAST_GET)
        await talking.end()
        nursery.start_soon(talking.server.shut_down)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        done.set()
