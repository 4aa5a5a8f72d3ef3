"""What can go wrong between a client and the server: one class and one wire code for each, with its remedy."""

# The classes are named by what happened, as their callers read them: `raise UnknownSymbol`.
# ruff: noqa: N818

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class WireError:
    """One row of the table of wire codes: when it is sent, and what the client can do about it."""

    code: int
    when: str
    remedy: str


WIRE_ERRORS = {
    row.code: row
    for row in (
        WireError(400, "the frame is not a valid request", "give up: mend the request"),
        WireError(
            401,
            "a token is required; close 4503 follows a wrong one, or none in time",
            "give up: send Hello with the token",
        ),
        WireError(404, "the symbol or the stream is unknown", "give up: name another"),
        WireError(409, "the stream id is in use on this connection", "give up: choose another id"),
        WireError(413, "the message is over the size limit; close 1009 follows", "reconnect: send less"),
        WireError(422, "the combination is not served", "give up: ask for another data type"),
        WireError(429, "over the message rate or the stream limit", "retry: slow down, or unsubscribe first"),
        WireError(500, "our own fault", "retry"),
        WireError(503, "the server is shutting down; close 1001 follows", "reconnect: later"),
    )
}
"""Every code an `Error` frame can carry."""


class CloseCode(IntEnum):
    """WebSocket close codes we send. Source: RFC 6455, section 7.4.1; from 4500 on a client should not come again."""

    GOING_AWAY = 1001
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    NO_PONG = 4012
    NOT_AUTHORISED = 4503

    @property
    def reason(self) -> str:
        """What the close frame says beside the code."""
        return _CLOSE_REASONS[self]


_CLOSE_REASONS = {
    CloseCode.GOING_AWAY: "shutting down",
    CloseCode.POLICY_VIOLATION: "too many messages",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.NO_PONG: "no pong",
    CloseCode.NOT_AUTHORISED: "not authorised",
}


class ProtocolError(Exception):
    """A request that cannot be served; answered by an `Error` frame, never by closing the connection alone.

    `stream_id` is the stream that the request named, where it could be read.
    """

    code: ClassVar[int]

    def __init__(self, message: str, stream_id: str | None = None) -> None:
        super().__init__(message)
        self.stream_id = stream_id


class BadRequest(ProtocolError):
    """The frame is not JSON, not an object, or a field is missing, ill-typed or out of range."""

    code = 400


class TokenRequired(ProtocolError):
    """The server asks for a token that the client has not shown."""

    code = 401

    def __init__(self, stream_id: str | None = None) -> None:
        super().__init__("a token is required: send Hello with it first", stream_id)


class WrongToken(ProtocolError):
    """The token of a `Hello` is not the server's."""

    code = 401

    def __init__(self) -> None:
        super().__init__("token: is not valid")


class UnknownSymbol(ProtocolError):
    """A `Subscribe` names a symbol that is not served."""

    code = 404

    def __init__(self, symbol: str, served: Collection[str], stream_id: str | None) -> None:
        # A venue can list thousands: the message names those that fit one line.
        names = sorted(served)
        listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        super().__init__(f"symbol: {symbol!r} is not served (served: {listed or 'none'})", stream_id)
        self.symbol = symbol


class UnknownStream(ProtocolError):
    """An `Unsubscribe` names a stream that this connection does not have."""

    code = 404

    def __init__(self, stream_id: str) -> None:
        super().__init__(f"stream_id: no stream {stream_id!r} on this connection", stream_id)


class StreamInUse(ProtocolError):
    """A `Subscribe` takes a stream id that this connection already uses."""

    code = 409

    def __init__(self, stream_id: str) -> None:
        super().__init__(f"stream_id: {stream_id!r} is already in use on this connection", stream_id)


class MessageTooBig(ProtocolError):
    """The message is over the size limit."""

    code = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"a message may have at most {limit_bytes} bytes")


class NotServed(ProtocolError):
    """The symbol is served, but not with this data type."""

    code = 422

    def __init__(self, symbol: str, data_type: str, stream_id: str | None) -> None:
        super().__init__(f"data_type: {data_type} is not served for {symbol!r}", stream_id)


class TooManyMessages(ProtocolError):
    """The client sends faster than the rate limit."""

    code = 429

    def __init__(self, rate_per_s: float, burst: int, stream_id: str | None) -> None:
        super().__init__(f"over the rate of {rate_per_s:g} messages a second (burst {burst})", stream_id)


class TooManyStreams(ProtocolError):
    """The connection has as many streams as it may."""

    code = 429

    def __init__(self, limit: int, stream_id: str | None) -> None:
        super().__init__(f"a connection may have at most {limit} streams", stream_id)


class InternalError(ProtocolError):
    """Our own fault. The client learns that it happened; what happened stands in the server's log."""

    code = 500

    def __init__(self, stream_id: str | None = None) -> None:
        super().__init__("internal error", stream_id)


class ShuttingDown(ProtocolError):
    """The server is about to close every connection."""

    code = 503

    def __init__(self, stream_id: str | None = None) -> None:
        super().__init__("the server is shutting down", stream_id)
