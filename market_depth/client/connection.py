"""A subscription that survives: one connection to a depth server, opened again whenever it is lost.

States, and what moves between them:

    connecting → live         the server answered; every stream is asked for again
    connecting → waiting      no answer within CONNECT_TIMEOUT_S, or a refusal
    live       → waiting      closed, silent for SILENCE_LIMIT_S, not speaking the protocol, or asking us to come later
    either     → denied       the server requires a token that we do not have, or is not to be trusted; the end
    waiting    → connecting   the pause is over

`follow` reports each state when it is entered, and in between every message as it came.
"""

import math
import os
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from socket import gaierror
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from protocol.codecs import decode_answer
from protocol.errors import TokenRequired
from protocol.messages import Error, HeartBeat, MarketData, Subscribe, Subscribed, Unsubscribed

CONNECT_TIMEOUT_S = 5.0
SILENCE_TEXT = "the server does not answer"

LEAVE_TIMEOUT_S = 0.1

SILENCE_LIMIT_S = 45.0
"""A server sends a `HeartBeat` every 30 s: with none for half as long again, nobody is there."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""An MBO frame of 1000 deep levels has some ten megabytes; a server gone mad is cut off above this."""

COME_LATER = frozenset({429, 500, 503})
"""Codes of `protocol.errors` whose remedy is to try again. The others would be refused again."""


class ConnectionLost(Exception):  # noqa: N818 - named as the state it leads to
    """The connection cannot be opened or used. The text says why, in words for the person at the screen."""


class NeverServed(ConnectionLost):
    """Trying again is of no use, unless the user does something first: `remedy` says what."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


class TokenMissing(NeverServed):
    """The server asks for another token than ours."""

    def __init__(self) -> None:
        super().__init__("the server requires a valid token", "give it with --token or as MARKET_DEPTH_TOKEN")


class CertificateNotTrusted(NeverServed):
    """In TLS the server cannot show who it is."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the server's certificate is not trusted: {problem}",
            "name a file with its issuer's certificate in SSL_CERT_FILE",
        )


@dataclass(frozen=True, slots=True)
class Connecting:
    """A connection is being opened."""


@dataclass(frozen=True, slots=True)
class Live:
    """The connection is open and the streams are asked for."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The connection is lost; the next attempt is at `until`, on trio's clock."""

    reason: str
    until: float


@dataclass(frozen=True, slots=True)
class Denied:
    """The server will not serve us, whenever we come."""

    message: str
    remedy: str


Update = Connecting | Live | Waiting | Denied | HeartBeat | Subscribed | Unsubscribed | MarketData | Error


class Socket(Protocol):
    """What `follow` needs of a WebSocket: trio-websocket's connection has it."""

    async def send_message(self, message: str) -> None: ...

    async def get_message(self) -> str | bytes: ...


Connect = Callable[[str], AbstractAsyncContextManager[Socket]]

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


def websocket_url(addr: str) -> str:
    """The server's WebSocket address, from `HOST:PORT` or from an address that is one already.

    Raises: ValueError when it is neither.
    """
    url = addr if "://" in addr else f"ws://{addr}/"
    parts = urlsplit(url)
    try:
        is_address = parts.scheme in {"ws", "wss"} and bool(parts.hostname)
        is_address = is_address and ("://" in addr or parts.port is not None)
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"{addr!r} is no address of a server (for example 127.0.0.1:8080)")
    return url


@asynccontextmanager
async def open_socket(url: str, token: str | None = None) -> AsyncIterator[Socket]:
    """A WebSocket connection, closed on leaving. `token` is shown to the server, which may require one.

    Raises: ConnectionLost when it cannot be opened, and out of the block when it closes.
    """
    try:
        # trio-websocket's own way to open an address waits on when TLS has failed, and does not say so.
        with _one_error(), trio.fail_after(CONNECT_TIMEOUT_S) as limit:
            async with await open_stream(urlsplit(url)) as stream, trio.open_nursery() as reader:
                websocket = await _shake_hands(reader, stream, urlsplit(url), token)
                limit.deadline = math.inf
                try:
                    yield websocket
                finally:
                    # A caller who just leaves cancels this too, and the server should still hear of it. Its answer is not
                    # waited for: trio-websocket's reader, which would receive it, is cancelled already.
                    with trio.move_on_after(LEAVE_TIMEOUT_S, shield=True):
                        await websocket.aclose()
                    reader.cancel_scope.cancel()
    except trio.TooSlowError:
        raise ConnectionLost(SILENCE_TEXT) from None
    except (HandshakeError, ConnectionClosed) as error:
        if isinstance(error, ConnectionRejected) and error.status_code == HTTPStatus.UNAUTHORIZED:
            raise TokenMissing from error
        raise ConnectionLost(_reason(error)) from error


async def open_stream(url: SplitResult) -> Stream:
    """A connection to a server's port, in TLS for `wss`.

    Raises: ConnectionLost when it cannot be opened.
    """
    is_encrypted = url.scheme == "wss"
    host = url.hostname or ""
    try:
        tcp = await trio.open_tcp_stream(host, url.port or (443 if is_encrypted else 80))
    except OSError as error:
        raise ConnectionLost(_socket_error_text(error)) from error
    if not is_encrypted:
        return tcp
    tls = trio.SSLStream(tcp, ssl.create_default_context(), server_hostname=host, https_compatible=True)
    try:
        await tls.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(tls)
        if isinstance(error, trio.BrokenResourceError):
            raise _tls_failure(error.__cause__) from error
        raise
    return tls


async def _shake_hands(
    nursery: trio.Nursery, stream: Stream, url: SplitResult, token: str | None
) -> WebSocketConnection:
    return await wrap_client_stream(
        nursery,
        stream,
        url.netloc.rpartition("@")[2],
        (url.path or "/") + (f"?{url.query}" if url.query else ""),
        max_message_size=MAX_MESSAGE_BYTES,
        receive_buffer_size=64 * 1024,
        extra_headers=[] if token is None else [(b"Authorization", f"Bearer {token}".encode())],
    )


@contextmanager
def _one_error() -> Iterator[None]:
    """Let an error out of a nursery as itself, when nothing else went wrong beside it."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__


@trio.as_safe_channel
async def follow(
    url: str,
    streams: Sequence[Subscribe],
    *,
    connect: Connect = open_socket,
    jitter: random.Random | None = None,
) -> AsyncGenerator[Update, None]:
    """Every message of these streams and every change of the connection, for as long as the caller reads.

    A slow reader is not run over: the socket is read when the reader asks, and the server skips what is outdated.
    An `Error` whose remedy is to come later ends the connection; any other is only handed on. After `Denied` nothing comes.

        async with follow("ws://127.0.0.1:8080/", [Subscribe(...)]) as updates:
            async for update in updates:
                ...
    """
    jitter = jitter or random.Random()
    failures = 0
    while True:
        yield Connecting()
        try:
            async with connect(url) as socket:
                for stream in streams:
                    await socket.send_message(stream.model_dump_json())
                yield Live()
                while True:
                    message = await _receive(socket)
                    if isinstance(message, MarketData):
                        # Not before: a server that accepts and closes at once would be asked twice a second.
                        failures = 0
                    if isinstance(message, Error) and message.code == TokenRequired.code:
                        raise TokenMissing
                    yield message
                    if isinstance(message, Error) and message.code in COME_LATER:
                        raise ConnectionLost(message.message)
        except NeverServed as error:
            denied = Denied(str(error), error.remedy)
            break
        except ConnectionLost as error:
            failures += 1
            waiting = Waiting(str(error), trio.current_time() + pause_s(failures, jitter))
        yield waiting
        await trio.sleep_until(waiting.until)
    yield denied


def pause_s(failures: int, jitter: random.Random) -> float:
    """How long to wait after so many failures in a row: at least 0.5 s, at most 1 s, then 2 s, … 30 s.

    Drawn from the whole range, so that clients that lost the same server do not come back in step.
    """
    doublings = min(failures, 10)
    return jitter.uniform(FIRST_PAUSE_S, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**doublings))


async def _receive(socket: Socket) -> HeartBeat | Subscribed | Unsubscribed | MarketData | Error:
    with trio.move_on_after(SILENCE_LIMIT_S) as silence:
        data = await socket.get_message()
    if silence.cancelled_caught:
        raise ConnectionLost(f"the server was silent for {SILENCE_LIMIT_S:g} s")
    try:
        return decode_answer(data)
    except ValueError as error:
        raise ConnectionLost("the server does not speak this protocol") from error


def _reason(error: HandshakeError | ConnectionClosed) -> str:
    match error:
        case ConnectionRejected():
            return f"the server refused the WebSocket (HTTP status {error.status_code})"
        case ConnectionClosed(reason=close) if close is not None and close.code != 1006:
            words = close.reason or close.name.lower().replace("_", " ")
            return f"the server closed the connection ({close.code}: {words})"
        case _:
            return "the connection broke"


def _tls_failure(error: BaseException | None) -> ConnectionLost:
    match error:
        case ssl.SSLCertVerificationError():
            return CertificateNotTrusted(error.verify_message)
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return ConnectionLost("the server speaks no TLS: ws:// may be meant")
        case _:
            return ConnectionLost("the connection broke before TLS was agreed on")


def _socket_error_text(error: BaseException | None) -> str:
    """Why a connection could not be opened, in the system's own words."""
    # trio tries every address of a name and puts the failures in a group behind one OSError without a number.
    while error is not None and not (isinstance(error, OSError) and error.errno):
        inner = error.__cause__ or error.__context__
        if isinstance(error, BaseExceptionGroup):
            inner = error.exceptions[0]
        error = inner
    match error:
        case gaierror():
            return (error.strerror or "no such host").lower()
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case _:
            return "no connection"
