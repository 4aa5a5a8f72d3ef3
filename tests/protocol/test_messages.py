"""What the models accept and refuse, from either side."""

import json
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from protocol.codecs import decode_answer
from protocol.messages import (
    CLIENT_MESSAGE,
    CLIENT_TYPES,
    DATA_TYPES,
    DEFAULT_LEVELS,
    MAX_LEVELS,
    SERVER_MESSAGE,
    ClientMessage,
    MarketData,
    Ping,
    PriceLevels,
    RestingOrders,
    Subscribe,
    Unsubscribe,
)
from tests.protocol import frames

SUBSCRIBE = {"type": "Subscribe", "stream_id": "a", "symbol": "BTCUSD", "data_type": "MBP"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SUBSCRIBE, Subscribe(stream_id="a", symbol="BTCUSD", data_type="MBP", max_levels=DEFAULT_LEVELS)),
        (
            SUBSCRIBE | {"data_type": "MBO", "max_levels": MAX_LEVELS},
            Subscribe(stream_id="a", symbol="BTCUSD", data_type="MBO", max_levels=MAX_LEVELS),
        ),
        (
            SUBSCRIBE | {"max_levels": 1},
            Subscribe(stream_id="a", symbol="BTCUSD", data_type="MBP", max_levels=1),
        ),
        ({"type": "Unsubscribe", "stream_id": "é ∞"}, Unsubscribe(stream_id="é ∞")),
        ({"type": "Unsubscribe", "stream_id": "x" * 64}, Unsubscribe(stream_id="x" * 64)),
        (
            {"type": "Ping", "timestamp": "2026-11-20T16:41:03Z"},
            Ping(timestamp="2026-11-20T16:41:03Z"),
        ),
    ],
)
def test_requests_are_read(content: dict[str, Any], message: ClientMessage) -> None:
    assert CLIENT_MESSAGE.validate_python(content) == message


@pytest.mark.parametrize("content", [SUBSCRIBE | {"req_id": 7, "mode": "delta"}])
def test_unknown_fields_are_ignored(content: dict[str, Any]) -> None:
    assert CLIENT_MESSAGE.validate_python(content) == CLIENT_MESSAGE.validate_python(SUBSCRIBE)


def test_messages_do_not_change() -> None:
    request = Unsubscribe(stream_id="a")
    with pytest.raises(ValidationError, match="frozen"):
        request.stream_id = "b"


@pytest.mark.parametrize("model", CLIENT_TYPES.values(), ids=CLIENT_TYPES.keys())
def test_every_field_of_a_request_says_what_it_must_be(model: type[Subscribe]) -> None:
    for name, field in model.model_fields.items():
        assert name == "type" or field.description


def test_the_text_of_a_field_says_what_its_constraints_do() -> None:
    schema = CLIENT_MESSAGE.json_schema()["$defs"]["Subscribe"]["properties"]
    levels = schema["max_levels"]
    assert levels["description"] == f"an integer between {levels['minimum']} and {levels['maximum']}"
    stream_id = schema["stream_id"]
    assert (
        stream_id["description"]
        == f"a string of {stream_id['minLength']} to {stream_id['maxLength']} printable characters"
    )
    symbol = schema["symbol"]
    assert symbol["description"] == f"a string of {symbol['minLength']} to {symbol['maxLength']} characters"
    assert schema["data_type"]["description"] == " or ".join(map(repr, DATA_TYPES))


def test_a_schema_calls_prices_numbers() -> None:
    level = SERVER_MESSAGE.json_schema()["$defs"]["PriceLevel"]["properties"]
    assert {name: field["type"] for name, field in level.items()} == {
        "price": "number",
        "quantity": "number",
        "order_count": "integer",
        "total_quantity": "number",
    }


def test_market_data_by_level_and_by_order_are_told_apart_by_their_format() -> None:
    by_level, by_order = decode_answer(frames.MBP), decode_answer(frames.MBO)
    assert isinstance(by_level, MarketData)
    assert isinstance(by_level.data, PriceLevels)
    assert isinstance(by_order, MarketData)
    assert isinstance(by_order.data, RestingOrders)


@pytest.mark.parametrize(
    "price",
    ['"102.45"', "null", "true", "NaN", "Infinity", "[]", "{}"],
)
def test_a_price_is_a_number_and_nothing_else(price: str) -> None:
    frame = frames.MBP.decode().replace("65432.0", price)
    with pytest.raises(ValueError, match="price"):
        decode_answer(frame)


def test_a_price_that_went_through_a_binary_fraction_is_refused() -> None:
    with pytest.raises(ValidationError, match="not an exact number"):
        SERVER_MESSAGE.validate_python(json.loads(frames.MBP))


def test_a_price_keeps_every_digit() -> None:
    frame = frames.MBP.decode().replace("65432.0", "9223372036.854775807")
    message = decode_answer(frame)
    assert isinstance(message, MarketData)
    assert isinstance(message.data, PriceLevels)
    assert message.data.bids[0].price == Decimal("9223372036.854775807")
