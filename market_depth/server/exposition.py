"""What Prometheus reads at `/metrics`: the server's counts, and what is there at the moment."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from market_depth.metrics import Cut, Refusal
from market_depth.store.schema import TABLES_IN_TIME
from protocol.errors import WIRE_ERRORS
from protocol.messages import DATA_TYPES, DataType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from market_depth.metrics import ServerCounts
    from market_depth.server.broadcaster import Broadcaster
    from market_depth.server.loop_lag import LoopLag
    from market_depth.server.websocket import WebSocketServer
    from market_depth.store.base import Store
    from market_depth.store.writer import StoreCounts

PREFIX = "market_depth_"


class ServedStore(Protocol):
    """The server's store, if it has one."""

    @property
    def store(self) -> Store | None:
        """To read from."""

    @property
    def is_ok(self) -> bool:
        """Whether what is to be stored is stored."""

    @property
    def counts(self) -> StoreCounts:
        """What was written."""

    def status(self) -> dict[str, Any]:
        """What `StoreStatus` says."""


class Measured(NamedTuple):
    """The parts of a server that have figures."""

    counts: ServerCounts
    websocket: WebSocketServer
    broadcaster: Broadcaster
    loop_lag: LoopLag
    store: ServedStore


class Exposition:
    """The metrics of one server, in a registry of their own."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, measured: Measured) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ServerCollector(measured))

    def text(self) -> bytes:
        """The metrics now, in Prometheus' text format."""
        return generate_latest(self._registry)


class _ServerCollector(Collector):
    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._version = version("market-depth")  # looked up in files each time

    def collect(self) -> Iterable[Metric]:
        measured, counts = self._measured, self._measured.counts
        yield _of(GaugeMetricFamily, "build_info", "What runs here.", "version", {self._version: 1})
        yield _one(
            GaugeMetricFamily, "connections", "WebSocket clients now.", measured.websocket.client_count
        )
        yield _of(
            GaugeMetricFamily,
            "subscriptions",
            "Streams now.",
            "data_type",
            subscriptions(measured.broadcaster),
        )
        yield _one(
            GaugeMetricFamily,
            "event_loop_lag_seconds",
            "The longest that a task was woken too late in the last fifteen seconds.",
            measured.loop_lag.worst_s,
        )
        opened = "WebSocket clients that completed the handshake."
        yield _one(CounterMetricFamily, "connections_opened", opened, counts.connections_opened)
        refused = dict.fromkeys(Refusal, 0) | counts.connections_refused
        yield _of(CounterMetricFamily, "connections_refused", "Not let in.", "reason", refused)
        cut = dict.fromkeys(Cut, 0) | counts.connections_cut
        yield _of(CounterMetricFamily, "connections_cut", "Ended by the server.", "reason", cut)
        yield _one(CounterMetricFamily, "frames_sent", "Market data frames.", counts.frames_sent)
        yield _one(CounterMetricFamily, "bytes_sent", "Bytes of WebSocket frames.", counts.bytes_sent)
        skipped = "Market data frames left out for clients that read slowly."
        yield _one(CounterMetricFamily, "frames_skipped", skipped, counts.frames_skipped)
        errors = dict.fromkeys(WIRE_ERRORS, 0) | counts.errors
        yield _of(CounterMetricFamily, "errors", "Error frames.", "code", errors)
        answers = "Answers to HTTP requests."
        yield _of(CounterMetricFamily, "http_requests", answers, "status", counts.http_requests)
        stored = measured.store.counts
        rows = dict.fromkeys(TABLES_IN_TIME, 0) | stored.rows
        yield _of(CounterMetricFamily, "store_rows", "Rows committed.", "table", rows)
        dropped = "Rows left out because the store's queue was full."
        yield _one(CounterMetricFamily, "store_rows_dropped", dropped, stored.dropped_rows)
        yield _one(CounterMetricFamily, "store_commits", "Commits.", stored.commits)
        spent = "Time that commits took."
        yield _one(CounterMetricFamily, "store_commit_seconds", spent, stored.commit_seconds)


def subscriptions(broadcaster: Broadcaster) -> Mapping[DataType, int]:
    """How many streams all clients have together, of each data type."""
    found = dict.fromkeys(DATA_TYPES, 0)
    for topic, streams in broadcaster.topics.items():
        found[topic.data_type] += streams
    return found


Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


def _one(family: Family, name: str, text: str, value: float) -> Metric:
    return family(PREFIX + name, text, value=value)


def _of(family: Family, name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
    metric = family(PREFIX + name, text, labels=[label])
    for of, value in values.items():
        metric.add_metric([str(of)], value)
    return metric
