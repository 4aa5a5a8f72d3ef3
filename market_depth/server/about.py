"""What the server says of itself over HTTP: health, status, metrics."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from market_depth.metrics import Cut, Refusal
from market_depth.server.exposition import Exposition
from protocol.messages import DataType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from market_depth.server.exposition import Measured
    from market_depth.stream.market import Market


class ServedFeed(Protocol):
    """A feed at work, with its books."""

    @property
    def market(self) -> Market:
        """Its books."""

    @property
    def is_ok(self) -> bool:
        """Whether nothing went wrong."""

    def status(self) -> dict[str, Any]:
        """What `FeedStatus` says."""


class RecordingStatus(BaseModel):
    """A feed's recording into a file."""

    file: str
    state: str
    records: int
    error: str | None


class FeedStatus(BaseModel):
    """How a feed is."""

    name: str
    source: str
    state: str
    symbols: list[str]
    error: str | None
    recording: RecordingStatus | None


class StoreStatus(BaseModel):
    """How the store is, and what was written since the start."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    state: str
    """`none`, `opening`, `up`, `down` (what is to be written waits), `failed` or `closed`."""
    name: str | None
    error: str | None
    rows: dict[str, int]
    """Committed, by table."""
    queued_rows: int
    dropped_rows: int
    """Not taken, because the queue was full."""


class Health(BaseModel):
    """Whether all parts are up."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    ok: bool
    state: Literal["warming", "serving"]
    """Warming: the book kernels are not loaded yet, clients may connect already."""


class FullHealth(Health):
    """Whether all parts are up, and each of them."""

    version: str
    uptime_s: float
    clients: int
    streams: int
    feeds: list[FeedStatus]
    store: StoreStatus


class StreamStatus(BaseModel):
    """How many streams have the same content."""

    symbol: str
    data_type: DataType
    max_levels: int
    streams: int


class Sent(BaseModel):
    """What went to WebSocket clients since the start."""

    frames: int
    bytes: int
    skipped_frames: int


class Connections(BaseModel):
    """WebSocket clients since the start; the reasons are those of the metrics."""

    opened: int
    refused: dict[Refusal, int]
    cut: dict[Cut, int]


class Status(FullHealth):
    """Every part of the server, and its state."""

    topics: list[StreamStatus]
    sent: Sent
    connections: Connections
    errors: dict[int, int]
    """`Error` frames by code."""
    http_requests: dict[int, int]
    """Answers to HTTP requests by status."""
    event_loop_lag_s: float
    """The longest that a task was woken too late in the last fifteen seconds."""


class About:
    """The server, as its parts tell it."""

    def __init__(
        self, feeds: Sequence[ServedFeed], measured: Measured, uptime_s: Callable[[], float]
    ) -> None:
        self._feeds = feeds
        self._measured = measured
        self._uptime_s = uptime_s
        self._version = version("market-depth")  # looked up in files each time

    def health(self) -> FullHealth:
        """How the server is."""
        return FullHealth(
            ok=all(feed.is_ok for feed in self._feeds) and self._measured.store.is_ok,
            state="serving" if all(feed.market.is_warm for feed in self._feeds) else "warming",
            version=self._version,
            uptime_s=round(self._uptime_s(), 3),
            clients=self._measured.websocket.client_count,
            streams=self._measured.broadcaster.stream_count,
            feeds=[FeedStatus.model_validate(feed.status()) for feed in self._feeds],
            store=StoreStatus.model_validate(self._measured.store.status()),
        )

    def status(self) -> Status:
        """All that is known of the server."""
        counts = self._measured.counts
        return Status(
            **dict(self.health()),
            topics=[
                StreamStatus(**topic._asdict(), streams=streams)
                for topic, streams in self._measured.broadcaster.topics.items()
            ],
            sent=Sent(
                frames=counts.frames_sent, bytes=counts.bytes_sent, skipped_frames=counts.frames_skipped
            ),
            connections=Connections(
                opened=counts.connections_opened,
                refused=counts.connections_refused,
                cut=counts.connections_cut,
            ),
            errors=counts.errors,
            http_requests=counts.http_requests,
            event_loop_lag_s=round(self._measured.loop_lag.worst_s, 6),
        )

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["server"])
        exposition = Exposition(self._measured)

        @router.get(
            "/api/health",
            summary="Whether all parts are up",
            responses={503: {"model": FullHealth, "description": "A part is down"}},
        )
        async def health(response: Response) -> FullHealth:
            found = self.health()
            if not found.ok:
                response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
            return found

        @router.get("/api/status", summary="Every part and its state")
        async def status() -> Status:
            return self.status()

        @router.get(
            "/metrics",
            summary="The metrics, for Prometheus",
            response_class=Response,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        )
        async def metrics() -> Response:
            return Response(exposition.text(), media_type=Exposition.CONTENT_TYPE)

        @router.get(
            "/healthz",
            summary="Whether all parts are up, for load balancers: no token is asked for, and no more told",
            responses={503: {"model": Health, "description": "A part is down"}},
        )
        async def healthz(response: Response) -> Health:
            found = self.health()
            if not found.ok:
                response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
            return Health(ok=found.ok, state=found.state)

        return router
