import json
import logging
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h11
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from market_depth.server import http as http_module
from market_depth.server import listener as listener_module
from market_depth.server.http import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Page,
    RefusedError,
    Request,
    Route,
    Routes,
    json_page,
    send_page,
)
from market_depth.server.linger import LINGER_BYTES
from tests.market_depth.server.local_server import local_server, reset

HOST = b"Host: localhost\r\n"


def status_of(answer: bytes) -> int:
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "localhost")]))
    parser.receive_data(answer)
    response = parser.next_event()
    assert isinstance(response, h11.Response), answer
    return response.status_code


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (b"GET /?a=b HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET /%00 HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 405),
        (b"DELETE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01 not HTTP at all\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: \x00\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"\r\n\r\nupgrade: websocket\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2 * MAX_HEAD_BYTES, 431),
        (b"y" * 2 * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    ],
)
async def test_each_request_gets_its_status_and_the_end_of_the_connection(
    request_bytes: bytes, status: int
) -> None:
    async with local_server() as server:
        answer = await server.exchange(request_bytes)
    assert status_of(answer) == status
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nconnection: close\r\n" in answer


async def test_a_page_comes_with_type_and_length_and_head_leaves_the_body_out() -> None:
    body = b'{"hello": "world"}'
    async with local_server() as server:
        got = await server.exchange(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        head = await server.exchange(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert head == got.removesuffix(body)
    assert b"\r\ncontent-type: application/json\r\ncontent-length: 18\r\n" in head


async def test_a_wrong_method_is_told_the_right_ones() -> None:
    async with local_server() as server:
        answer = await server.exchange(b"POST / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"\r\nallow: GET, HEAD\r\n" in answer


async def test_an_error_says_in_json_what_is_wrong() -> None:
    async with local_server() as server:
        answer = await server.exchange(b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.endswith(b'{"detail": "Not Found"}')


async def test_a_page_that_fails_is_a_500_and_a_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Page:
        raise RuntimeError("secret")

    async with local_server(routes={"/": fail}) as server:
        answer = await server.exchange(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert status_of(answer) == 500
    assert b"secret" not in answer
    assert [(record.levelname, record.exc_info is not None) for record in caplog.records] == [("ERROR", True)]


async def test_a_client_that_says_nothing_is_told_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "HEAD_TIMEOUT_S", 0.01)
    async with local_server() as server:
        assert status_of(await server.exchange(b"GET / HTTP/1.1\r\n")) == 408


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with local_server() as server, await server.connect() as stream:
        await stream.send_all(b"GET / HT")
        await stream.send_eof()
        assert await stream.receive_some() == b""
    assert not caplog.records


async def test_an_answer_goes_out_whole_while_the_client_still_sends() -> None:
    ours, theirs = memory_stream_pair()
    body = b"x" * 1_000_000
    received = b""

    async def upload() -> None:
        await theirs.send_all(b"y" * 100_000)
        await theirs.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_page, ours, Page(HTTPStatus.OK, "text/plain", body))
        nursery.start_soon(upload)
        while data := await theirs.receive_some():
            received += data
    assert received.endswith(body)
    assert b"content-length: 1000000\r\n" in received


async def test_a_client_that_never_stops_sending_is_not_heard_for_ever() -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def flood() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await theirs.send_all(b"y" * (LINGER_BYTES // 8))

        nursery.start_soon(flood)
        await send_page(ours, json_page({}))
        await ours.aclose()


async def test_a_client_that_waits_for_more_is_closed_after_a_while(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = memory_stream_pair()
    await send_page(ours, json_page({}))
    await ours.aclose()
    await theirs.aclose()


# POST

JSON = b"Content-Type: application/json\r\n"


async def echo(request: Request) -> Page:
    """Answers with what it was asked."""
    await trio.lowlevel.checkpoint()
    return json_page({"query": request.query, "body": request.body.decode()})


async def refuse(_: Request) -> Page:
    raise RefusedError(HTTPStatus.CONFLICT, "not now")


async def fail(_: Request) -> Page:
    raise RuntimeError("secret")


async def wait(_: Request) -> Page:
    await trio.sleep_forever()
    raise AssertionError


ROUTES: Routes = {
    "/echo": Route("POST", echo),
    "/get": Route("GET", echo),
    "/refuse": Route("POST", refuse),
    "/fail": Route("POST", fail),
    "/wait": Route("POST", wait),
}


def content_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def post(path: bytes, body: bytes = b"{}", *headers: bytes) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + JSON + length + b"".join(headers) + b"\r\n" + body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post(b"/echo"), 200),
        (post(b"/echo", b""), 200),
        (b"POST /echo HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (
            b"POST /echo HTTP/1.1\r\n"
            + HOST
            + JSON
            + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            200,
        ),
        (
            b"POST /echo HTTP/1.1\r\n"
            + HOST
            + b"Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}",
            200,
        ),
        (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}", 415),
        (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
        (post(b"/echo", b"x" * MAX_BODY_BYTES), 200),
        (post(b"/echo", b"x" * (MAX_BODY_BYTES + 1)), 413),
        (b"POST /echo HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 99999999999\r\n\r\n", 413),
        (
            b"POST /echo HTTP/1.1\r\n"
            + HOST
            + JSON
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n"
            + b"x" * 0x8000
            + b"\r\n"
            + b"8001\r\n"
            + b"x" * 0x8001,
            413,
        ),
        (b"POST /echo HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (post(b"/nowhere"), 404),
        (post(b"/get"), 405),
        (b"GET /echo HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"OPTIONS /echo HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", 405),
        (b"GET /get HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (post(b"/refuse"), 409),
        (post(b"/fail"), 500),
    ],
)
async def test_each_post_gets_its_status(request_bytes: bytes, status: int) -> None:
    async with local_server(routes=ROUTES) as server:
        answer = await server.exchange(request_bytes)
    assert status_of(answer) == status
    assert b"\r\nconnection: close\r\n" in answer
    assert b"secret" not in answer


async def test_a_route_is_handed_query_and_body() -> None:
    async with local_server(routes=ROUTES) as server:
        answer = await server.exchange(post(b"/echo?a=1&b=%20x&c=&a=2", b'{"d": 3}'))
        assert content_of(answer) == {"query": {"a": "2", "b": " x", "c": ""}, "body": '{"d": 3}'}
        answer = await server.exchange(b"GET /echo HTTP/1.1\r\n" + HOST + b"\r\n")
        assert b"\r\nallow: POST\r\n" in answer


async def test_a_client_that_asks_whether_to_go_on_is_told_to_once_it_may() -> None:
    async with local_server(routes=ROUTES) as server, await server.connect() as stream:
        head, body = post(b"/echo", b"{}", b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(body)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
    async with local_server(routes=ROUTES) as server, await server.connect() as stream:
        large = b"POST /echo HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n"
        await stream.send_all(large)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (b"127.0.0.1:8080", b"http://127.0.0.1:8080", 200),
        (b"localhost:8080", b"http://localhost:8080", 200),
        (b"[::1]:8080", b"https://[::1]:8080", 200),
        (b"127.0.0.1:8080", b"http://evil.example", 403),
        (b"127.0.0.1:8080", b"http://127.0.0.1:9090", 403),
        (b"127.0.0.1:8080", b"null", 403),
        (b"127.0.0.1:8080", b"http://127.0.0.1:8080.evil.example", 403),
        (b"evil.example:8080", b"http://evil.example:8080", 403),
        (b"[::", b"http://[::", 403),
    ],
)
async def test_only_a_page_from_here_may_post(host: bytes, origin: bytes, status: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: " + host + b"\r\nOrigin: " + origin + b"\r\n"
    async with local_server(routes=ROUTES) as server:
        answer = await server.exchange(head + JSON + b"Content-Length: 2\r\n\r\n{}")
    assert status_of(answer) == status


async def test_a_body_that_does_not_come_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "BODY_TIMEOUT_S", 0.01)
    async with local_server(routes=ROUTES) as server:
        assert status_of(await server.exchange(post(b"/echo", b"{}")[:-1])) == 408


async def test_a_body_that_breaks_off_is_a_400_and_a_client_that_resets_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with local_server(routes=ROUTES) as server:
        async with await server.connect() as stream:
            await stream.send_all(post(b"/echo", b"{}")[:-1])
            await stream.send_eof()
            assert status_of(await stream.receive_some()) == 400
        stream = await server.connect()
        await stream.send_all(post(b"/echo", b"{}")[:-1])
        reset(stream)
        assert status_of(await server.exchange(post(b"/echo"))) == 200
    assert not caplog.records


async def test_a_route_that_takes_too_long_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "ANSWER_TIMEOUT_S", 0.01)
    async with local_server(routes=ROUTES) as server:
        assert status_of(await server.exchange(post(b"/wait"))) == 503
