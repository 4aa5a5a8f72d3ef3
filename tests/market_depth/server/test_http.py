"""The HTTP application, asked without a server between."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
from pydantic import TypeAdapter

from market_depth.metrics import Cut, Refusal
from market_depth.server.about import FullHealth, Status
from market_depth.server.books import OrderBook, SymbolStatus
from market_depth.server.http import make_application
from market_depth.server.json_body import MAX_BODY_BYTES
from protocol.messages import DATA_TYPES, MarketData
from protocol.session import Limits
from tests.market_depth.server.applications import Answer, ask
from tests.market_depth.server.local_server import SYMBOLS, LocalServer, WrittenMarket, local_server

if TYPE_CHECKING:
    from fastapi import FastAPI
    from trio.testing import MockClock

    from market_depth.server.asgi import Message


class WrittenFeed:
    """A feed whose state is what a test says."""

    def __init__(self, market: WrittenMarket) -> None:
        self.market = market
        self.is_ok = True

    def status(self) -> dict[str, Any]:
        return {
            "name": "simulator",
            "source": "simulated",
            "state": "running",
            "symbols": list(self.market.instruments),
            "error": None if self.is_ok else "the line is dead",
            "recording": {"file": "a.dbn", "state": "recording", "records": 3, "error": None},
        }


class Site:
    """An application and the parts that it speaks of."""

    def __init__(self, market: WrittenMarket | None = None) -> None:
        self.market = market or WrittenMarket()
        self.server = LocalServer(self.market, Limits(), 1)
        self.feed = WrittenFeed(self.market)
        self.application: FastAPI = make_application(
            [self.feed], [], self.server.publisher, self.server.measured, lambda: 1.23456
        )

    async def get(self, target: str, method: str = "GET") -> Answer:
        return await ask(self.application, method, target)


# Manners


@pytest.mark.parametrize(
    ("method", "target", "status", "detail"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("GET", "/api/health/", 404, "Not Found"),
        ("POST", "/api/health", 405, "Method Not Allowed"),
        ("DELETE", "/", 405, "Method Not Allowed"),
        ("GET", "/api/order-book", 422, "symbol: Field required"),
        (
            "GET",
            "/api/order-book?symbol=BTCUSD&levels=0",
            422,
            "levels: Input should be greater than or equal to 1",
        ),
        (
            "GET",
            "/api/order-book?symbol=BTCUSD&levels=1001",
            422,
            "levels: Input should be less than or equal to 1000",
        ),
        ("GET", "/api/order-book?symbol=BTCUSD&levels=x", 422, "levels: Input should be a valid integer"),
        (
            "GET",
            "/api/order-book?symbol=BTCUSD&data_type=BBO",
            422,
            "data_type: Input should be 'MBO' or 'MBP'",
        ),
        ("GET", "/api/order-book?symbol=%00", 404, "symbol '\\x00' is not served"),
        ("GET", "/api/order-book?symbol=%ff", 404, "symbol '\ufffd' is not served"),
    ],
)
async def test_every_error_is_one_readable_text(method: str, target: str, status: int, detail: str) -> None:
    got = await Site().get(target, method)
    assert got.status == status
    assert list(got.content) == ["detail"]
    assert got.content["detail"].startswith(detail)
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [("POST", "/", "GET, HEAD"), ("GET", "/api/control/replay/pause", "POST")],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, target: str, allowed: str) -> None:
    assert (await Site().get(target, method)).headers["allow"] == allowed


@pytest.mark.parametrize(
    "target", ["/", "/docs", "/openapi.json", "/metrics", "/api/health", "/api/status", "/api/symbols"]
)
async def test_head_is_answered_wherever_get_is(target: str) -> None:
    site = Site()
    got, head = await site.get(target), await site.get(target, "HEAD")
    assert (head.status, head.headers) == (got.status, got.headers) == (200, got.headers)


async def test_a_failure_keeps_its_secrets() -> None:
    market = WrittenMarket()
    market.broken.add("BTCUSD")
    async with local_server(market=market, application=Site(market).application) as server:
        received = await server.exchange(
            b"GET /api/order-book?symbol=BTCUSD HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert received.startswith(b"HTTP/1.1 500 ")
    assert received.endswith(b'{"detail":"Internal Server Error"}')


# What is told


async def test_health_is_a_503_when_a_part_is_down() -> None:
    site = Site()
    got = await site.get("/api/health")
    health = FullHealth.model_validate_json(got.body)
    assert (got.status, health.ok, health.state, health.uptime_s) == (200, True, "warming", 1.235)
    assert health.feeds[0].symbols == list(SYMBOLS)
    site.feed.is_ok = False
    got = await site.get("/api/health")
    assert (got.status, got.content["ok"]) == (503, False)
    assert got.content["feeds"][0]["error"] == "the line is dead"


async def test_a_load_balancer_is_told_whether_all_is_well_and_no_more() -> None:
    site = Site()
    got = await site.get("/healthz")
    assert (got.status, got.content) == (200, {"ok": True, "state": "warming"})
    site.feed.is_ok = False
    got = await site.get("/healthz")
    assert (got.status, got.content) == (503, {"ok": False, "state": "warming"})


async def test_status_and_metrics_tell_what_was_counted() -> None:
    async with local_server() as server, server.client() as client:
        await client.subscribe("a")
        await client.subscribe("b", "ETHUSD", "MBO", 5)
        counts = server.counts
        counts.frames_sent, counts.bytes_sent, counts.frames_skipped = 7, 800, 2
        counts.connections_refused[Refusal.ORIGIN] = 3
        counts.connections_cut[Cut.STALLED] = 4
        counts.errors[429] = 5
        counts.http_requests[404] = 6
        application = make_application([], [], server.publisher, server.measured, lambda: 0)
        status = Status.model_validate_json((await ask(application, "GET", "/api/status")).body)
        text = (await ask(application, "GET", "/metrics")).body.decode()
    assert {(topic.symbol, topic.data_type, topic.max_levels, topic.streams) for topic in status.topics} == {
        ("BTCUSD", "MBP", 20, 1),
        ("ETHUSD", "MBO", 5, 1),
    }
    assert (status.clients, status.streams, status.connections.opened) == (1, 2, 1)
    assert (status.sent.frames, status.sent.bytes, status.sent.skipped_frames) == (7, 800, 2)
    assert status.connections.refused == {Refusal.ORIGIN: 3}
    assert status.errors == {429: 5}
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    expected = {
        "connections": 1,
        "connections_opened_total": 1,
        'subscriptions{data_type="MBP"}': 1,
        'subscriptions{data_type="MBO"}': 1,
        "frames_sent_total": 7,
        "bytes_sent_total": 800,
        "frames_skipped_total": 2,
        'connections_refused_total{reason="origin"}': 3,
        'connections_refused_total{reason="host_full"}': 0,
        'connections_cut_total{reason="stalled"}': 4,
        'errors_total{code="429"}': 5,
        'errors_total{code="400"}': 0,
        'http_requests_total{status="404"}': 6,
        "event_loop_lag_seconds": 0,
    }
    assert {name: float(samples["market_depth_" + name]) for name in expected} == expected
    assert any(name.startswith('market_depth_build_info{version="') for name in samples)


async def test_metrics_come_in_prometheus_text_format() -> None:
    got = await Site().get("/metrics")
    assert got.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    types = re.findall(r"^# TYPE (\S+) (\S+)$", got.body.decode(), re.MULTILINE)
    assert len(dict(types)) == len(types)
    assert all(name.startswith("market_depth_") for name, _ in types)
    assert all((kind == "counter") == name.endswith("_total") for name, kind in types)


async def test_symbols_are_told_with_their_steps() -> None:
    symbols = TypeAdapter(list[SymbolStatus]).validate_json((await Site().get("/api/symbols")).body)
    assert [symbol.symbol for symbol in symbols] == list(SYMBOLS)
    first = symbols[0]
    assert (first.venue, first.source, first.tick_size, first.lot_size) == ("SIM", "simulated", "0.01", "1")
    assert (first.price_precision, first.quantity_precision, first.mbo) == (2, 0, True)


@pytest.mark.parametrize("data_type", DATA_TYPES)
async def test_a_book_is_that_of_a_frame_byte_for_byte(data_type: str) -> None:
    site = Site()
    got = await site.get(f"/api/order-book?symbol=ETHUSD&levels=7&data_type={data_type}")
    assert got.status == 200
    book = OrderBook.model_validate_json(got.body)
    assert (book.symbol, book.data.format) == ("ETHUSD", data_type)
    assert site.market.encoded == [("ETHUSD", data_type, 7)]
    head = b'{"type":"MarketData","stream_id":"a",'
    assert MarketData.model_validate_json(head + got.body.removeprefix(b"{")).symbol == "ETHUSD"


async def test_a_book_that_was_asked_for_is_not_kept() -> None:
    site = Site()
    for levels in range(1, 100):
        await site.get(f"/api/order-book?symbol=ETHUSD&levels={levels}")
    assert not site.server.publisher._bodies


@pytest.mark.parametrize(("symbol", "is_open", "status"), [("XRPUSD", True, 404), ("BTCUSD", False, 503)])
async def test_a_book_that_there_is_not_says_why(symbol: str, is_open: bool, status: int) -> None:
    got = await Site(WrittenMarket(is_open=is_open)).get(f"/api/order-book?symbol={symbol}")
    assert got.status == status
    assert symbol in got.content["detail"]


# Bodies

PAUSE = "/api/control/replay/pause"
JSON = ("content-type", "application/json")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", [], 404),
        (b"{}", [JSON], 404),
        (b"{}", [("content-type", "Application/JSON; charset=utf-8")], 404),
        (b"{}", [], 415),
        (b"{}", [("content-type", "text/plain")], 415),
        (b"{", [JSON], 400),
        (b" " * MAX_BODY_BYTES, [JSON], 400),
        (b" " * (MAX_BODY_BYTES + 1), [JSON], 413),
        (b"", [JSON, ("content-length", str(10**19))], 413),
        (b"[]", [JSON], 422),
    ],
)
async def test_each_body_gets_its_status(body: bytes, headers: list[tuple[str, str]], status: int) -> None:
    got = await ask(Site().application, "POST", PAUSE, body, headers)
    assert got.status == status


async def test_a_body_that_drips_in_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        await trio.sleep(1)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PAUSE,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await Site().application(scope, receive, send)
    assert sent[0]["status"] == 408
    assert trio.current_time() == pytest.approx(10)


# What describes it


async def test_the_description_names_every_route_and_tells_no_lie_about_errors() -> None:
    document = (await Site().get("/openapi.json")).content
    assert document["openapi"].startswith("3.1")
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    controls = ("start", "pause", "resume", "step", "seek", "speed", "stop")
    assert routes == {
        *(
            ("get", path)
            for path in (
                "/api/health",
                "/api/status",
                "/api/symbols",
                "/api/order-book",
                "/api/latest",
                "/api/range",
                "/api/history",
                "/api/feed",
                "/api/sessions",
                "/api/sessions/{session_id}",
                "/download/json",
                "/metrics",
                "/healthz",
            )
        ),
        ("get", "/api/control/replay/status"),
        *(("post", f"/api/control/replay/{control}") for control in controls),
    }
    assert "HTTPValidationError" not in document["components"]["schemas"]
    seek = document["paths"]["/api/control/replay/seek"]["post"]["requestBody"]
    assert seek["required"]
    fields = seek["content"]["application/json"]["schema"]["properties"]
    assert set(fields) == {"file", "to"}
    assert [choice["type"] for choice in fields["to"]["anyOf"]] == ["string", "integer"]


async def test_the_page_of_the_description_needs_nothing_from_elsewhere() -> None:
    site = Site()
    got = await site.get("/docs")
    page = got.body.decode()
    assert got.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<style|<img|https?://", page)
    [stylesheet] = re.findall(r'<link[^>]*href="([^"]+)"', page)
    assert (await site.get(stylesheet)).headers["content-type"] == "text/css; charset=utf-8"
    document = json.loads((await site.get("/openapi.json")).body)
    for path in document["paths"]:
        assert f" {path}</code>" in page
    assert "integer ≥ 1 ≤ 1000000" in page
    for link in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{link}"' in page
