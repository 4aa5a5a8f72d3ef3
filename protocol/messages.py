"""Every message of the protocol as a pydantic model: what clients send, and what the server answers.

`ClientMessage` and `ServerMessage` are unions tagged by `type`. The models check what comes from outside and are
the source of the schemas; `MarketData` frames leave through `protocol.codecs`, which writes the same text faster.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
)

from protocol.timestamp import is_timestamp

MAX_LEVELS = 1000
DEFAULT_LEVELS = 20
MAX_TOKEN_LENGTH = 512
MAX_HEARTBEAT_INTERVAL_S = 1800

DataType = Literal["MBO", "MBP"]
DATA_TYPES: tuple[DataType, ...] = ("MBO", "MBP")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


def _rfc3339(text: str) -> str:
    if not is_timestamp(text):
        raise ValueError("not an RFC 3339 date-time")
    return text


def _exact(number: object) -> object:
    # Neither text, which is no number on the wire, nor a binary fraction, which has lost digits already.
    if not isinstance(number, int | Decimal) or isinstance(number, bool):
        raise ValueError("not an exact number")
    return number


# The description of a field completes "must be …": it is what a client reads when the field is wrong.
StreamId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, strict=True),
    AfterValidator(_printable),
    Field(description="a string of 1 to 64 printable characters"),
]
Symbol = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, strict=True),
    Field(description="a string of 1 to 64 characters"),
]
RequestedDataType = Annotated[DataType, Field(description="'MBO' or 'MBP'")]
RequestedLevels = Annotated[
    StrictInt, Field(ge=1, le=MAX_LEVELS, description=f"an integer between 1 and {MAX_LEVELS}")
]
Timestamp = Annotated[
    str,
    StringConstraints(strict=True),
    AfterValidator(_rfc3339),
    Field(description="an RFC 3339 date-time such as '2026-11-20T16:41:03Z'"),
]
Token = Annotated[
    str | None,
    StringConstraints(min_length=1, max_length=MAX_TOKEN_LENGTH, strict=True),
    Field(description=f"a string of 1 to {MAX_TOKEN_LENGTH} characters"),
]
ClientName = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=64, strict=True), AfterValidator(_printable)]
    | None,
    Field(description="a string of 1 to 64 printable characters"),
]
HeartbeatInterval = Annotated[
    StrictInt | None,
    Field(
        ge=1, le=MAX_HEARTBEAT_INTERVAL_S, description=f"an integer between 1 and {MAX_HEARTBEAT_INTERVAL_S}"
    ),
]
Number = Annotated[Decimal, BeforeValidator(_exact), WithJsonSchema({"type": "number"})]


class Message(BaseModel):
    """One frame. Unknown fields are ignored, so that either side may learn new ones first."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# Client → server


class Subscribe(Message):
    """Start a stream of one symbol's book under an id of the client's choice."""

    type: Literal["Subscribe"] = "Subscribe"
    stream_id: StreamId
    symbol: Symbol
    data_type: RequestedDataType
    max_levels: RequestedLevels = DEFAULT_LEVELS


class Unsubscribe(Message):
    """End a stream."""

    type: Literal["Unsubscribe"] = "Unsubscribe"
    stream_id: StreamId


class Ping(Message):
    """Ask for a `HeartBeat` now."""

    type: Literal["Ping"] = "Ping"
    timestamp: Timestamp


class Hello(Message):
    """Show the token that the server may ask for, and say who is there."""

    type: Literal["Hello"] = "Hello"
    token: Token = None
    client: ClientName = None
    heartbeat_interval_s: HeartbeatInterval = None


ClientMessage = Annotated[Subscribe | Unsubscribe | Ping | Hello, Field(discriminator="type")]
CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)
CLIENT_TYPES: Mapping[str, type[Message]] = {
    model.model_fields["type"].default: model for model in (Subscribe, Unsubscribe, Ping, Hello)
}


# Server → client


class HeartBeat(Message):
    """The server's clock: on connect, every 30 s, and as the answer to a `Ping`."""

    type: Literal["HeartBeat"] = "HeartBeat"
    timestamp: str


class Subscribed(Message):
    """The stream is live; its first `MarketData` follows."""

    type: Literal["Subscribed"] = "Subscribed"
    stream_id: str
    symbol: str
    data_type: DataType


class Unsubscribed(Message):
    """The stream has ended; no frame of it follows."""

    type: Literal["Unsubscribed"] = "Unsubscribed"
    stream_id: str


class Error(Message):
    """A request was refused; `protocol.errors` has the codes."""

    type: Literal["Error"] = "Error"
    code: int
    message: str
    stream_id: str | None = None


class PriceLevel(Message):
    """All orders at one price. `total_quantity` adds up from the best level to this one."""

    price: Number
    quantity: Number
    order_count: int
    total_quantity: Number


class RestingOrder(Message):
    """One order in the queue of its price level."""

    order_id: str
    price: Number
    quantity: Number
    side: Literal["Bid", "Ask"]
    timestamp: str
    age_ms: int


class PriceLevels(Message):
    """A book by price level, best level first on both sides."""

    format: Literal["MBP"] = "MBP"
    bids: list[PriceLevel]
    asks: list[PriceLevel]


class RestingOrders(Message):
    """A book by order: best price first, inside a level in queue order."""

    format: Literal["MBO"] = "MBO"
    bids: list[RestingOrder]
    asks: list[RestingOrder]


class MarketData(Message):
    """A full snapshot of a book to the depth that the stream asked for.

    `timestamp` is the market's time: now for a simulated or live market, the recorded time for a replayed one.
    """

    type: Literal["MarketData"] = "MarketData"
    stream_id: str
    symbol: str
    sequence: int
    timestamp: str
    data: Annotated[PriceLevels | RestingOrders, Field(discriminator="format")]


ServerMessage = Annotated[
    HeartBeat | Subscribed | Unsubscribed | MarketData | Error, Field(discriminator="type")
]
SERVER_MESSAGE: TypeAdapter[HeartBeat | Subscribed | Unsubscribed | MarketData | Error] = TypeAdapter(
    ServerMessage
)
