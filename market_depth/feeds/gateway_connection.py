"""One connection to a live gateway, from opening it until it is lost."""

from collections.abc import Awaitable, Callable
from typing import Self

import trio
from databento_dbn import Metadata

from market_depth.feeds.dbn_decoding import Decoded
from market_depth.feeds.dbn_stream import DbnStream
from market_depth.feeds.gateway_client import GatewayClient, RefusedError
from market_depth.feeds.gateway_text import GatewayError
from market_depth.feeds.gateway_url import GatewayUrl

HANDSHAKE_TIMEOUT_S = 10.0
"""From opening the connection to the gateway's `success`."""

HEARTBEAT_INTERVAL_S = 10
SILENCE_LIMIT_S = 20.0
"""With no heartbeat for as long again, nobody is there."""

RECEIVE_BYTES = 256 * 1024

OpenStream = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Takes host and port. Raises OSError."""


class GatewayLostError(Exception):
    """The connection cannot be opened or used on: try again. The text says why."""


class GatewayConnection:
    """A session that has started. Read it in one task."""

    def __init__(self, stream: trio.abc.Stream, early: bytes) -> None:
        """`early`: what came of the DBN stream with the handshake's end."""
        self._stream = stream
        self._early = early
        self._dbn = DbnStream()

    @classmethod
    async def open(cls, url: GatewayUrl, key: str, open_stream: OpenStream = trio.open_tcp_stream) -> Self:
        """A session with the gateway's subscription. Raises: GatewayLostError, RefusedError."""
        stream: trio.abc.Stream | None = None
        try:
            with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
                stream = await open_stream(url.host, url.port)
                connection = cls(stream, await _shake_hands(stream, url, key))
                stream = None
                return connection
        except OSError as error:
            raise GatewayLostError(f"cannot connect: {error}") from error
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)
        raise GatewayLostError(f"the gateway does not answer within {HANDSHAKE_TIMEOUT_S:g} s")

    @property
    def metadata(self) -> Metadata | None:
        """The stream's metadata, which come before any record."""
        return self._dbn.metadata

    async def receive(self) -> Decoded:
        """What the gateway says next; nothing if half a record came. Cancelled, nothing is lost.

        Raises: GatewayLostError, for which it may also be too silent; trio.ClosedResourceError.
        """
        data, self._early = self._early, b""
        if not data:
            with trio.move_on_after(SILENCE_LIMIT_S) as silence:
                try:
                    data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
                except trio.BrokenResourceError as error:
                    raise GatewayLostError("the connection broke") from error
            if silence.cancelled_caught:
                raise GatewayLostError(f"the gateway was silent for {SILENCE_LIMIT_S:g} s")
            if not data:
                raise GatewayLostError("the gateway closed the connection")
        try:
            return self._dbn.receive(data)
        except GatewayError as error:
            raise GatewayLostError(str(error)) from error

    async def aclose(self) -> None:
        """Close it at once. Closing again does nothing."""
        await trio.aclose_forcefully(self._stream)


async def _shake_hands(stream: trio.abc.Stream, url: GatewayUrl, key: str) -> bytes:
    """Start the session. Returns what came of the DBN stream already."""
    client = GatewayClient(
        url.subscription, key=key, dataset=url.dataset, heartbeat_interval_s=HEARTBEAT_INTERVAL_S
    )
    try:
        while not client.is_streaming:
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise GatewayLostError("the gateway closed the connection during the handshake")
            if reply := client.receive(bytes(data)):
                await stream.send_all(reply)
    except RefusedError:
        raise
    except GatewayError as error:
        raise GatewayLostError(str(error)) from error
    except trio.BrokenResourceError as error:
        raise GatewayLostError("the connection broke during the handshake") from error
    return client.rest()
