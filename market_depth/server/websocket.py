"""One WebSocket client from handshake to close. It moves bytes; the rules are the session's."""

from __future__ import annotations

import contextlib
import logging
import math
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from market_depth.metrics import Cut, Refusal
from market_depth.server.conformance import ECHO_PATH, echo
from market_depth.server.deflate import AGREED, is_offered
from market_depth.server.deflate_socket import DeflateSocket, SharedDeflater
from market_depth.server.error_answer import send_error
from market_depth.server.frames import close_frame, text_frame
from market_depth.server.linger import linger
from protocol.codecs import encode, stream_id_of
from protocol.errors import CloseCode, InternalError, MessageTooBig, TokenRequired
from protocol.session import Answer, Limits, Session, Subscription, error_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from market_depth.clock import Clock
    from market_depth.metrics import ServerCounts
    from market_depth.server.broadcaster import Broadcaster
    from market_depth.server.direct_stream import DirectStream
    from market_depth.server.gate import Gate, Welcome
    from market_depth.server.heartbeats import Heartbeats
    from protocol.messages import DataType, Error, HeartBeat, Subscribed, Unsubscribed

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
"""How long a client has to answer our close frame."""

CLIENT_FAULTS = (ConnectionClosed, LocalProtocolError)
"""What a client can make trio-websocket raise: it leaves during the handshake, it sends a ping after our close frame.
During the handshake also UnicodeError: bytes that are not ASCII in a header.
"""


MESSAGE_OVERHEAD = 8
"""A message may take so many times its size to come: byte by byte, each in a frame of seven bytes."""

AHEAD_BYTES = 64 * 1024
"""So much may be received before the message in it is seen."""

CONTROL_BYTES_PER_S = 1024
"""What a client may send without ever completing a message: pings and pongs have up to 131 bytes. Empty frames and pings
cost 30 to 60 µs each and count as no messages."""

BROKEN_RULES = (CloseReason.PROTOCOL_ERROR, CloseReason.INVALID_FRAME_PAYLOAD_DATA)
"""Codes of what trio-websocket finds wrong and says nothing about."""

TOO_BIG_REASON = "Exceeded maximum message size: {} bytes"
"""What trio-websocket says when it closes because of that. By it we tell such a close from the answer to a client's own."""

MAX_REASON = 123
"""Letters of a reason in a close frame; those of wsproto are ASCII."""


class WebSocketServer:
    """The WebSocket clients of one server."""

    def __init__(
        self,
        served: Mapping[str, Collection[DataType]],
        limits: Limits,
        broadcaster: Broadcaster,
        heartbeats: Heartbeats,
        clock: Clock,
        gate: Gate,
        counts: ServerCounts,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
        *,
        compresses: bool = False,
        echoes: bool = False,
    ) -> None:
        """A client may take `handshake_timeout_s` for its handshake, and as long again to show the token.

        With `compresses`, messages are compressed for clients that offer it.
        With `echoes`, an authorised client of ECHO_PATH gets its own messages back instead of market data.
        """
        self._served = served
        self._limits = limits
        self._broadcaster = broadcaster
        self._heartbeats = heartbeats
        self._clock = clock
        self._gate = gate
        self._counts = counts
        self._handshake_timeout_s = handshake_timeout_s
        self._deflater = SharedDeflater() if compresses else None
        self._echoes = echoes
        self._connections: dict[WebSocketConnection, _Client] = {}
        self._too_big = error_frame(MessageTooBig(limits.max_message_bytes))
        self._too_big_close = close_frame(
            CloseCode.MESSAGE_TOO_BIG, TOO_BIG_REASON.format(limits.max_message_bytes)
        )

    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def serve(
        self, stream: DirectStream, heard_bytes: int, welcome: Welcome, extensions: Collection[bytes] = ()
    ) -> None:
        """Serve a client until it leaves. Its request for a WebSocket, which the gate let pass, is to be read anew.

        `heard_bytes`: how long that is, with what came together with it. `extensions` are those that the client offers.
        """
        connection: WebSocketConnection | None = None
        lent = _LentStream(stream, heard_bytes, self._before_sending)
        try:
            async with trio.open_nursery() as reader:
                # trio-websocket waits for ever when the handshake is half or wrong; in the latter case it closes the stream.
                reader.cancel_scope.deadline = trio.current_time() + self._handshake_timeout_s
                lent.on_close = reader.cancel_scope.cancel
                request = await wrap_server_stream(
                    reader, lent, max_message_size=self._limits.max_message_bytes, message_queue_size=1
                )
                # Before our answer: it may be answered at once with a compressed message.
                agreed = self._put_on_extensions(stream, extensions)
                connection = await request.accept(subprotocol=welcome.subprotocol, extra_headers=agreed)
                lent.on_close = None
                lent.is_agreed.set()
                reader.cancel_scope.deadline = math.inf
                if self._echoes and welcome.is_authorised and connection.path == ECHO_PATH:
                    await self._echo(stream, connection)
                else:
                    await self._converse(stream, lent, connection, welcome.is_authorised)
                reader.cancel_scope.deadline = trio.current_time() + CLOSE_TIMEOUT_S
        except* CLIENT_FAULTS as faults:
            logger.debug("client at fault peer=%s %r", stream.peer, faults.exceptions)
        except* UnicodeError as faults:
            if connection is not None:
                raise
            logger.debug("client at fault peer=%s %r", stream.peer, faults.exceptions)
        if connection is None:
            self._counts.connections_refused[Refusal.HANDSHAKE] += 1
            logger.info("handshake failed peer=%s", stream.peer)
            if not lent.is_closed:  # otherwise trio-websocket has answered
                await send_error(stream, HTTPStatus.BAD_REQUEST)
        else:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await linger(stream)

    async def _converse(
        self, stream: DirectStream, lent: _LentStream, connection: WebSocketConnection, is_authorised: bool
    ) -> None:
        is_token = None if is_authorised else self._gate.is_token
        session = Session(self._served, self._limits, trio.current_time(), is_token)
        client = _Client(stream, lent, session)
        lent.limit(MESSAGE_OVERHEAD * self._limits.max_message_bytes + AHEAD_BYTES)
        self._enter(connection, client)
        try:
            if not is_authorised:
                await self._meet(connection, client)
            while True:
                await self._answer_next(connection, client)
        except ConnectionClosed:  # the way every conversation ends
            await self._say_why(stream, connection)
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

    def _enter(self, connection: WebSocketConnection, client: _Client) -> None:
        self._connections[connection] = client
        self._counts.connections_opened += 1
        self._broadcaster.join(client.stream)
        self._heartbeats.join(client.stream)
        logger.info("client connected peer=%s clients=%d", client.stream.peer, self.client_count)

    async def _echo(self, stream: DirectStream, connection: WebSocketConnection) -> None:
        try:
            await echo(stream, connection)
        except ConnectionClosed:
            await self._say_why(stream, connection)

    async def shut_down(self) -> None:
        """Tell every client that the server is going away, and close."""
        async with trio.open_nursery() as nursery:
            for connection, client in list(self._connections.items()):
                self._reply(client.stream, client.session.shut_down())
                nursery.start_soon(_close, connection, CloseCode.GOING_AWAY)

    def _put_on_extensions(
        self, stream: DirectStream, offers: Collection[bytes]
    ) -> list[tuple[bytes, bytes]]:
        """Compress messages, if that is agreed on. Returns: the header that says so."""
        if self._deflater is None or not is_offered(offers):
            return []
        stream.put_on(
            partial(DeflateSocket, deflater=self._deflater, max_message_bytes=self._limits.max_message_bytes)
        )
        return [(b"Sec-WebSocket-Extensions", AGREED)]

    async def _meet(self, connection: WebSocketConnection, client: _Client) -> None:
        """Return when the client has shown the token. Who takes too long is let go."""
        with trio.move_on_after(self._handshake_timeout_s):
            while not client.session.is_authorised:
                await self._answer_next(connection, client)
        if not client.session.is_authorised:
            self._reply(client.stream, error_frame(TokenRequired()))
            await self._dismiss(connection, CloseCode.NOT_AUTHORISED)

    async def _answer_next(self, connection: WebSocketConnection, client: _Client) -> None:
        stream, session = client.stream, client.session
        message = await connection.get_message()
        client.lent.renew_limit()
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
            self._reply(stream, answer.message)
        if answer.close_code is not None:
            await self._dismiss(connection, answer.close_code)
        if stream.is_backed_up:
            await stream.wait_posted()

    def _follow(self, client: _Client, answer: Answer) -> None:
        stream = client.stream
        if answer.stopped is not None:
            self._broadcaster.stop(stream, answer.stopped.stream_id)
            logger.info("unsubscribed peer=%s %s", stream.peer, _described(answer.stopped))
        self._reply(stream, answer.message)
        if answer.hello is not None:
            logger.info("hello peer=%s client=%r", stream.peer, answer.hello.client)
            if answer.hello.heartbeat_interval_s is not None:
                self._heartbeats.set_interval(stream, answer.hello.heartbeat_interval_s)
        if answer.started is not None:
            logger.info("subscribed peer=%s %s", stream.peer, _described(answer.started))
            self._broadcaster.start(stream, answer.started)
        if answer.message.type == "Error":
            logger.debug(
                "refused peer=%s code=%d %s", stream.peer, answer.message.code, answer.message.message
            )

    def _reply(self, stream: DirectStream, message: HeartBeat | Subscribed | Unsubscribed | Error) -> None:
        if message.type == "Error":
            self._counts.errors[message.code] += 1
        stream.post(text_frame(encode(message)))

    async def _dismiss(self, connection: WebSocketConnection, code: CloseCode) -> None:
        """Close because of what the client did, and count that, unless the client has closed before."""
        if connection.closed is None:
            match code:
                case CloseCode.NOT_AUTHORISED:
                    self._counts.connections_refused[Refusal.UNAUTHORISED] += 1
                case CloseCode.MESSAGE_TOO_BIG:
                    self._counts.connections_cut[Cut.MESSAGE_TOO_BIG] += 1
                case CloseCode.POLICY_VIOLATION:
                    self._counts.connections_cut[Cut.FLOOD] += 1
        await _close(connection, code)

    def _before_sending(self, stream: DirectStream, data: bytes) -> None:
        """Tell the client why, before trio-websocket closes because a message is too big."""
        if data == self._too_big_close:
            self._counts.connections_cut[Cut.MESSAGE_TOO_BIG] += 1
            self._reply(stream, self._too_big)

    async def _say_why(self, stream: DirectStream, connection: WebSocketConnection) -> None:
        """Tell a client that has broken the rules which, in a close frame. Source: RFC 6455, section 7.1.7."""
        end = connection.closed
        # Had the client closed with such a code itself, our answer to that would be on its way.
        if end is None or end.code not in BROKEN_RULES or stream.close_code is not None or stream.is_broken:
            return
        self._counts.connections_cut[Cut.PROTOCOL] += 1
        with trio.move_on_after(CLOSE_TIMEOUT_S), contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(close_frame(end.code, (end.reason or "")[:MAX_REASON]))


class _LentStream(trio.abc.Stream):
    """A client's stream as trio-websocket gets it: when it closes it, the client has not heard our last words yet.

    trio-websocket closes without a word when wsproto finds that a client breaks the rules. It reads on while its request is
    answered: what then comes has to wait, since it is read as that answer says.
    """

    __slots__ = (
        "_before_sending",
        "_heard_bytes",
        "_left_bytes",
        "_limit_bytes",
        "_limited_at",
        "_stream",
        "is_agreed",
        "is_closed",
        "on_close",
    )

    def __init__(
        self,
        stream: DirectStream,
        heard_bytes: int,
        before_sending: Callable[[DirectStream, bytes], None],
    ) -> None:
        self._stream = stream
        self._heard_bytes = heard_bytes
        self._before_sending = before_sending
        self.is_agreed = trio.Event()
        """Set when the request is answered."""
        self.is_closed = False
        self.on_close: Callable[[], None] | None = None
        self._limit_bytes = self._left_bytes = math.inf
        self._limited_at = 0.0

    def limit(self, size: float) -> None:
        """Cut a client that sends more bytes without completing a message, besides CONTROL_BYTES_PER_S for its pongs."""
        self._limit_bytes = self._left_bytes = size
        self._limited_at = trio.current_time()

    def renew_limit(self) -> None:
        """A message has been completed: the next may be as long."""
        self._left_bytes = self._limit_bytes

    def _count(self, size: int) -> bool:
        """Count received bytes. Returns: whether so many were allowed."""
        self._left_bytes -= size
        if self._left_bytes < 0:
            now = trio.current_time()
            regained = (now - self._limited_at) * CONTROL_BYTES_PER_S
            self._left_bytes = min(self._limit_bytes, self._left_bytes + regained)
            self._limited_at = now
        return self._left_bytes >= 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.is_closed:
            raise trio.ClosedResourceError
        if self._heard_bytes:
            data = await self._stream.receive_some(min(max_bytes or self._heard_bytes, self._heard_bytes))
            self._heard_bytes -= len(data)
            return data
        if not self.is_agreed.is_set():
            await self.is_agreed.wait()
        data = await self._stream.receive_some(max_bytes)
        if self._count(len(data)) or self._stream.close_code is not None:  # who is let go already
            return data
        self._stream.cut(
            Cut.FLOOD, close_frame(CloseCode.POLICY_VIOLATION, CloseCode.POLICY_VIOLATION.reason)
        )
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError
        data = bytes(data)
        self._before_sending(self._stream, data)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self.is_closed = True
        if self.on_close is not None:
            self.on_close()
        await trio.lowlevel.checkpoint()


class _Client(NamedTuple):
    stream: DirectStream
    lent: _LentStream
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
