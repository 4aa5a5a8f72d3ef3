"""One WebSocket client from handshake to close. It moves bytes; the rules are the session's."""

from __future__ import annotations

import contextlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from market_depth.server.frames import text_frame
from market_depth.server.http import error_page, send_page
from market_depth.server.linger import linger
from protocol.codecs import encode, stream_id_of
from protocol.errors import CloseCode, InternalError, MessageTooBig
from protocol.session import Answer, Limits, Session, Subscription, error_frame

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from market_depth.clock import Clock
    from market_depth.server.broadcaster import Broadcaster
    from market_depth.server.direct_stream import DirectStream
    from market_depth.server.heartbeats import Heartbeats
    from protocol.messages import DataType

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
"""How long a client has to answer our close frame."""

CLIENT_FAULTS = (ConnectionClosed, LocalProtocolError)
"""What a client can make trio-websocket raise: it leaves during the handshake, it sends a ping after our close frame.
During the handshake also UnicodeError: bytes that are not ASCII in a header.
"""


class WebSocketServer:
    """The WebSocket clients of one server."""

    def __init__(
        self,
        served: Mapping[str, Collection[DataType]],
        limits: Limits,
        broadcaster: Broadcaster,
        heartbeats: Heartbeats,
        clock: Clock,
    ) -> None:
        self._served = served
        self._limits = limits
        self._broadcaster = broadcaster
        self._heartbeats = heartbeats
        self._clock = clock
        self._connections: dict[WebSocketConnection, _Client] = {}
        self.too_big = text_frame(encode(error_frame(MessageTooBig(limits.max_message_bytes))))
        """The frame that goes before a close 1009."""

    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def serve(self, stream: DirectStream) -> None:
        """Serve a client whose request for a WebSocket is the next thing `stream` has to give, until it leaves."""
        connection: WebSocketConnection | None = None
        try:
            async with trio.open_nursery() as reader:
                connection = await self._shake_hands(stream, reader)
                if connection is None:
                    reader.cancel_scope.cancel()
                else:
                    await self._converse(stream, connection)
                    reader.cancel_scope.deadline = trio.current_time() + CLOSE_TIMEOUT_S
        except* CLIENT_FAULTS as faults:
            logger.debug("client at fault peer=%s %r", stream.peer, faults.exceptions)
        except* UnicodeError as faults:
            if connection is not None:
                raise
            logger.debug("client at fault peer=%s %r", stream.peer, faults.exceptions)
        if connection is None:
            logger.info("handshake failed peer=%s", stream.peer)
            if not stream.closed.is_set():
                await send_page(stream, error_page(HTTPStatus.BAD_REQUEST))
        elif not stream.closed.is_set():
            # Broken by the client, or closed by `_close`, which has waited long enough.
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await linger(stream)

    async def _converse(self, stream: DirectStream, connection: WebSocketConnection) -> None:
        client = _Client(stream, Session(self._served, self._limits, trio.current_time()))
        self._connections[connection] = client
        self._broadcaster.join(stream)
        self._heartbeats.join(stream)
        logger.info("client connected peer=%s clients=%d", stream.peer, self.client_count)
        try:
            await self._answer_requests(connection, client)
        except ConnectionClosed:
            pass  # the way every conversation ends
        finally:
            del self._connections[connection]
            self._heartbeats.leave(stream)
            self._broadcaster.leave(stream)
            logger.info(
                "client disconnected peer=%s code=%s skipped_frames=%d clients=%d",
                stream.peer,
                _close_code(stream, connection),
                stream.skipped,
                self.client_count,
            )

    async def shut_down(self) -> None:
        """Tell every client that the server is going away, and close."""
        async with trio.open_nursery() as nursery:
            for connection, client in list(self._connections.items()):
                client.stream.post(text_frame(encode(client.session.shut_down())))
                nursery.start_soon(_close, connection, CloseCode.GOING_AWAY)

    async def _shake_hands(self, stream: DirectStream, nursery: trio.Nursery) -> WebSocketConnection | None:
        # trio-websocket waits for ever when the handshake is half or wrong; in the latter case it closes the stream.
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S) as limit:

            async def give_up_when_closed() -> None:
                await stream.closed.wait()
                limit.cancel()

            async with trio.open_nursery() as watch:
                watch.start_soon(give_up_when_closed)
                request = await wrap_server_stream(
                    nursery,
                    stream,
                    max_message_size=self._limits.max_message_bytes,
                    message_queue_size=1,
                )
                connection = await request.accept()
                watch.cancel_scope.cancel()
            return connection
        return None

    async def _answer_requests(self, connection: WebSocketConnection, client: _Client) -> None:
        stream, session = client.stream, client.session
        while True:
            message = await connection.get_message()
            try:
                answer = session.receive(message, trio.current_time(), self._clock.wall_ns())
                self._follow(client, answer)
            except Exception:
                # A bug of ours must not cost the client its other streams; the one that it concerns is at an end.
                logger.exception("request failed peer=%s", stream.peer)
                stream_id = stream_id_of(message)
                if stream_id is not None:
                    session.drop(stream_id)
                    self._broadcaster.stop(stream, stream_id)
                answer = Answer(error_frame(InternalError(stream_id)))
                stream.post(text_frame(encode(answer.message)))
            if answer.close_code is not None:
                await _close(connection, answer.close_code)
            if stream.is_backed_up:
                await stream.wait_posted()

    def _follow(self, client: _Client, answer: Answer) -> None:
        stream = client.stream
        if answer.stopped is not None:
            self._broadcaster.stop(stream, answer.stopped.stream_id)
            logger.info("unsubscribed peer=%s %s", stream.peer, _described(answer.stopped))
        if answer.close_code is not CloseCode.MESSAGE_TOO_BIG:  # which the stream tells by itself
            stream.post(text_frame(encode(answer.message)))
        if answer.started is not None:
            logger.info("subscribed peer=%s %s", stream.peer, _described(answer.started))
            self._broadcaster.start(stream, answer.started)
        if answer.message.type == "Error":
            logger.debug(
                "refused peer=%s code=%d %s", stream.peer, answer.message.code, answer.message.message
            )


class _Client(NamedTuple):
    stream: DirectStream
    session: Session


async def _close(connection: WebSocketConnection, code: CloseCode) -> None:
    """Close, waiting only so long for the client's part of it."""
    with trio.move_on_after(CLOSE_TIMEOUT_S):
        await connection.aclose(code, code.reason)


def _close_code(stream: DirectStream, connection: WebSocketConnection) -> int:
    """How the conversation ended: what we closed with, or the client; 1006 if nobody did."""
    if stream.close_code is not None:
        return stream.close_code
    return connection.closed.code if connection.closed else 1006


def _described(subscription: Subscription) -> str:
    return (
        f"stream_id={subscription.stream_id!r} symbol={subscription.symbol} "
        f"data_type={subscription.data_type} max_levels={subscription.max_levels}"
    )
