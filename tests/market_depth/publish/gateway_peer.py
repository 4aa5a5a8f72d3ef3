"""A client of a publisher for tests, on the client's own side of the protocol."""

import numpy as np
import trio

from market_depth.feeds.dbn_decoding import Decoded, Notice
from market_depth.feeds.dbn_stream import DbnStream
from market_depth.feeds.gateway_client import GatewayClient
from market_depth.feeds.gateway_text import Subscription
from protocol.events import ORDER_EVENT, OrderEvents

KEY = "db-0123456789abcdefghijklmnopqrs"


class Peer:
    """Receives a session and keeps what came of it."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        key: str = KEY,
        subscription: Subscription | None = None,
        heartbeat_s: int = 30,
    ) -> None:
        self.stream = stream
        self.notices: list[Notice] = []
        self.mappings: list[tuple[int, str]] = []
        self.arrivals: list[tuple[float, int]] = []
        """When how many order events came, on trio's clock."""
        self._events = [np.empty(0, ORDER_EVENT)]
        self._dbn = DbnStream()
        self._client = GatewayClient(
            subscription or Subscription(), key=key, dataset=None, heartbeat_interval_s=heartbeat_s
        )

    @property
    def events(self) -> OrderEvents:
        """All order events so far."""
        return np.concatenate(self._events)

    @property
    def has_torn_record(self) -> bool:
        """Whether what came last is the beginning of a record."""
        return bool(self._dbn._carry)

    async def shake_hands(self) -> None:
        """Start the session. Raises: GatewayError; trio.EndOfChannel when the publisher closes."""
        while not self._client.is_streaming:
            data = await self.stream.receive_some()
            if not data:
                raise trio.EndOfChannel
            await self.stream.send_all(self._client.receive(bytes(data)))
        self._note(self._dbn.receive(self._client.rest()))

    async def receive(self) -> bool:
        """Take in what comes next; whether there was something."""
        data = await self.stream.receive_some()
        self._note(self._dbn.receive(bytes(data)))
        return bool(data)

    async def run(self) -> None:
        """Take in a session from its beginning to its end."""
        await self.shake_hands()
        while await self.receive():
            pass
        await self.stream.aclose()

    def _note(self, received: Decoded) -> None:
        self.notices += received.notices
        self.mappings += received.mappings
        self._events.append(received.events)
        if len(received.events):
            self.arrivals.append((trio.current_time(), len(received.events)))
