"""The server side of one connection, as plain rules: a frame in, the answer and the change of streams out.

States: a stranger where a token is required, then open, then shutting down (for good). While open, each request is
answered by exactly one message:

    Subscribe    Subscribed, and a stream starts     or Error 400, 404, 409, 413, 422, 429
    Unsubscribe  Unsubscribed, and a stream ends     or Error 400, 404, 413, 429
    Ping, Hello  HeartBeat                           or Error 400, 413, 429
    other        Error 400, 413, 429

A stranger's Hello with the token opens the session, with a wrong one it ends it; his other requests are Error 401, or
400, 413, 429. While shutting down the answer is Error 503, or 413. What is on the way to a client when its stream ends is the
caller's: it drops those frames before it sends `Unsubscribed`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import assert_never

from protocol.codecs import decode_request, stream_id_of
from protocol.errors import (
    CloseCode,
    MessageTooBig,
    NotServed,
    ProtocolError,
    ShuttingDown,
    StreamInUse,
    TokenRequired,
    TooManyMessages,
    TooManyStreams,
    UnknownStream,
    UnknownSymbol,
    WrongToken,
)
from protocol.messages import (
    ClientMessage,
    DataType,
    Error,
    HeartBeat,
    Hello,
    Ping,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from protocol.timestamp import timestamp_text


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask of the server."""

    max_message_bytes: int = 64 * 1024
    max_streams: int = 256
    messages_per_s: float = 50
    message_burst: int = 100
    refusals_per_s: float = 10
    """A client that goes on over the rate is let go: after `refusal_burst` refusals, less this many a second."""
    refusal_burst: int = 500


@dataclass(frozen=True, slots=True)
class Subscription:
    """One stream of a connection: whose book it shows, how, and how deep."""

    stream_id: str
    symbol: str
    data_type: DataType
    max_levels: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one frame leads to: a message back, at most one change of streams, and perhaps the end."""

    message: HeartBeat | Subscribed | Unsubscribed | Error
    started: Subscription | None = None
    stopped: Subscription | None = None
    close_code: CloseCode | None = None
    hello: Hello | None = None
    """What a welcome `Hello` said."""


class Session:
    """One connection's streams and limits.

    `served` says which data types each symbol has. `is_token` judges the token of a stranger; None where nobody has
    to show one, or it was shown before. Times come in: `now` in seconds of a clock that never goes back, `wall_ns` in
    nanoseconds since the epoch.
    """

    def __init__(
        self,
        served: Mapping[str, Collection[DataType]],
        limits: Limits,
        now: float,
        is_token: Callable[[str], bool] | None = None,
    ) -> None:
        self._served = served
        self._limits = limits
        self._messages = _TokenBucket(limits.messages_per_s, limits.message_burst, now)
        self._refusals = _TokenBucket(limits.refusals_per_s, limits.refusal_burst, now)
        self._streams: dict[str, Subscription] = {}
        self._is_token = is_token
        self._is_shutting_down = False

    @property
    def streams(self) -> Mapping[str, Subscription]:
        """The live streams by id."""
        return self._streams

    @property
    def is_authorised(self) -> bool:
        """Whether the client has shown the token, if one is required."""
        return self._is_token is None

    def heartbeat(self, wall_ns: int) -> HeartBeat:
        """The message to send on connect and every heartbeat interval."""
        return HeartBeat(timestamp=timestamp_text(wall_ns))

    def receive(self, data: str | bytes, now: float, wall_ns: int) -> Answer:
        """The answer to one WebSocket message: text as `str`, binary as `bytes`."""
        try:
            self._check_size(data)
            self._check_turn(data, now)
            return self._answer(decode_request(data), wall_ns)
        except ProtocolError as error:
            return Answer(error_frame(error), close_code=self._close_code_after(error, now))

    def drop(self, stream_id: str) -> None:
        """End a stream that could not be served; its id is free again."""
        self._streams.pop(stream_id, None)

    def shut_down(self) -> Error:
        """Refuse every further request. Returns: the message that tells the client so."""
        self._is_shutting_down = True
        return error_frame(ShuttingDown())

    def _check_size(self, data: str | bytes) -> None:
        # The limit is bytes on the wire; a character of a text takes up to four of them. A lone surrogate has no
        # bytes, but must not keep a text from being measured: it is refused as no JSON.
        size = len(data)
        if isinstance(data, str) and size * 4 > self._limits.max_message_bytes:
            size = len(data.encode(errors="surrogatepass"))
        if size > self._limits.max_message_bytes:
            raise MessageTooBig(self._limits.max_message_bytes)

    def _check_turn(self, data: str | bytes, now: float) -> None:
        if self._is_shutting_down:
            raise ShuttingDown(stream_id_of(data))
        if not self._messages.take(now):
            limits = self._limits
            raise TooManyMessages(limits.messages_per_s, limits.message_burst, stream_id_of(data))

    def _answer(self, request: ClientMessage, wall_ns: int) -> Answer:
        if self._is_token is not None:
            self._meet(request, self._is_token)
        match request:
            case Subscribe():
                return self._subscribe(request)
            case Unsubscribe(stream_id=stream_id):
                stopped = self._streams.pop(stream_id, None)
                if stopped is None:
                    raise UnknownStream(stream_id)
                return Answer(Unsubscribed(stream_id=stream_id), stopped=stopped)
            case Ping():
                return Answer(self.heartbeat(wall_ns))
            case Hello():
                return Answer(self.heartbeat(wall_ns), hello=request)
            case _:
                assert_never(request)

    def _meet(self, request: ClientMessage, is_token: Callable[[str], bool]) -> None:
        match request:
            case Hello(token=str(token)):
                if not is_token(token):
                    raise WrongToken
                self._is_token = None
            case Subscribe(stream_id=stream_id) | Unsubscribe(stream_id=stream_id):
                raise TokenRequired(stream_id)
            case _:
                raise TokenRequired

    def _subscribe(self, request: Subscribe) -> Answer:
        stream_id, symbol, data_type = request.stream_id, request.symbol, request.data_type
        if stream_id in self._streams:
            raise StreamInUse(stream_id)
        if symbol not in self._served:
            raise UnknownSymbol(symbol, self._served.keys(), stream_id)
        if data_type not in self._served[symbol]:
            raise NotServed(symbol, data_type, stream_id)
        if len(self._streams) >= self._limits.max_streams:
            raise TooManyStreams(self._limits.max_streams, stream_id)
        subscription = Subscription(stream_id, symbol, data_type, request.max_levels)
        self._streams[stream_id] = subscription
        return Answer(
            Subscribed(stream_id=stream_id, symbol=symbol, data_type=data_type), started=subscription
        )

    def _close_code_after(self, error: ProtocolError, now: float) -> CloseCode | None:
        match error:
            case MessageTooBig():
                return CloseCode.MESSAGE_TOO_BIG
            case WrongToken():
                return CloseCode.NOT_AUTHORISED
            case TooManyMessages():
                is_tolerated = self._refusals.take(now)
                return None if is_tolerated else CloseCode.POLICY_VIOLATION
            case _:
                return None


def error_frame(error: ProtocolError) -> Error:
    """The `Error` message that tells a client of `error`."""
    return Error(code=error.code, message=str(error), stream_id=error.stream_id)


class _TokenBucket:
    """Allows `burst` at once and `rate` a second in the long run."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = self._burst
        self._updated = now

    def take(self, now: float) -> bool:
        """Whether one more is allowed; if so, it is counted."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
