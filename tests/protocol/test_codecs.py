"""Frames are read strictly, written exactly, and the fast text says what the models say."""

import json
from contextlib import suppress
from decimal import Decimal
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codecs import (
    decode_answer,
    decode_request,
    encode,
    market_data_body,
    market_data_head,
    price_levels_text,
    resting_orders_text,
    stream_id_of,
)
from protocol.errors import BadRequest
from protocol.events import RESTING_ORDER
from protocol.instrument import SCALE, Instrument
from protocol.messages import (
    ClientMessage,
    Error,
    Hello,
    MarketData,
    Ping,
    PriceLevel,
    PriceLevels,
    RestingOrder,
    RestingOrders,
    Subscribe,
    Unsubscribe,
)
from protocol.timestamp import NS_PER_MS, timestamp_text
from tests.conftest import Golden
from tests.protocol import frames


@pytest.mark.parametrize("name", frames.REQUESTS)
def test_a_request_has_the_bytes_of_its_golden_file_and_is_read_from_them(name: str, golden: Golden) -> None:
    request = frames.REQUESTS[name]
    golden(f"{name}.json", encode(request))
    assert decode_request(encode(request).decode()) == request


@pytest.mark.parametrize("name", frames.ANSWERS)
def test_an_answer_has_the_bytes_of_its_golden_file_and_is_read_from_them(name: str, golden: Golden) -> None:
    frame = frames.ANSWERS[name]
    golden(f"{name}.json", frame)
    message = decode_answer(frame)
    if not isinstance(message, MarketData):
        assert encode(message) == frame


SUBSCRIBE = '{"type":"Subscribe","stream_id":"a","symbol":"BTCUSD","data_type":"MBP"'
STREAM_ID = "stream_id: must be a string of 1 to 64 printable characters"
LEVELS = "max_levels: must be an integer between 1 and 1000"
TYPE = "type: must be 'Subscribe', 'Unsubscribe', 'Ping' or 'Hello'"
TOKEN = "token: must be a string of 1 to 512 characters"
CLIENT = "client: must be a string of 1 to 64 printable characters"
HEARTBEAT = "heartbeat_interval_s: must be an integer between 1 and 1800"
TIMESTAMP = "timestamp: must be an RFC 3339 date-time such as '2026-11-20T16:41:03Z'"

BAD_REQUESTS: list[tuple[str | bytes, str, str | None]] = [
    (b'{"type":"Unsubscribe","stream_id":"a"}', "a binary frame: requests are JSON text", None),
    ("", "not JSON: EOF while parsing a value at line 1 column 0", None),
    ("{", "not JSON: EOF while parsing an object at line 1 column 1", None),
    ("{} {}", "not JSON: trailing characters at line 1 column 4", None),
    ("Subscribe", "not JSON: expected value at line 1 column 1", None),
    ("{'type': 'Ping'}", "not JSON: key must be a string at line 1 column 2", None),
    ("NaN", "not JSON: expected value at line 1 column 1", None),
    ("[" * 60_000, "not JSON: recursion limit exceeded at line 1 column 202", None),
    (f'{SUBSCRIBE},"max_levels":{"9" * 5000}}}', "not JSON: number out of range", None),
    (
        '{"type":"Unsubscribe","stream_id":"\ud800"}',
        "not JSON: 'utf-8' codec can't encode character '\\ud800' in position 35: surrogates not allowed",
        None,
    ),
    ('{"type":"Unsubscribe","stream_id":"\\ud800"}', "not JSON: unexpected end of hex escape", None),
    ("null", "not a JSON object", None),
    ("[]", "not a JSON object", None),
    ('"Ping"', "not a JSON object", None),
    ("5", "not a JSON object", None),
    ("{}", "type: the field is missing", None),
    ('{"stream_id":"a"}', "type: the field is missing", "a"),
    ('{"type":"subscribe","stream_id":"a"}', TYPE, "a"),
    ('{"type":"Pong"}', TYPE, None),
    ('{"type":"HeartBeat","timestamp":"2026-11-20T16:41:03Z"}', TYPE, None),
    ('{"type":null,"stream_id":"a"}', TYPE, "a"),
    ('{"type":["Ping"]}', TYPE, None),
    ('{"type":{"a":1}}', TYPE, None),
    ('{"type":"Unsubscribe"}', "stream_id: the field is missing", None),
    ('{"type":"Unsubscribe","Stream_id":"a"}', "stream_id: the field is missing", None),
    ('{"type":"Unsubscribe","stream_id":""}', STREAM_ID, None),
    ('{"type":"Unsubscribe","stream_id":"' + "x" * 65 + '"}', STREAM_ID, None),
    ('{"type":"Unsubscribe","stream_id":"a\\nb"}', STREAM_ID, None),
    ('{"type":"Unsubscribe","stream_id":"\\u0000"}', STREAM_ID, None),
    ('{"type":"Unsubscribe","stream_id":7}', STREAM_ID, None),
    ('{"type":"Unsubscribe","stream_id":null}', STREAM_ID, None),
    ('{"type":"Unsubscribe","stream_id":["a"]}', STREAM_ID, None),
    ('{"type":"Subscribe","symbol":"BTCUSD","data_type":"MBP"}', "stream_id: the field is missing", None),
    ('{"type":"Subscribe","stream_id":"a","data_type":"MBP"}', "symbol: the field is missing", "a"),
    ('{"type":"Subscribe","stream_id":"a","symbol":"BTCUSD"}', "data_type: the field is missing", "a"),
    (f'{SUBSCRIBE},"symbol":""}}', "symbol: must be a string of 1 to 64 characters", "a"),
    (f'{SUBSCRIBE},"symbol":["BTCUSD"]}}', "symbol: must be a string of 1 to 64 characters", "a"),
    (f'{SUBSCRIBE},"data_type":"mbp"}}', "data_type: must be 'MBO' or 'MBP'", "a"),
    (f'{SUBSCRIBE},"data_type":"MBP-10"}}', "data_type: must be 'MBO' or 'MBP'", "a"),
    (f'{SUBSCRIBE},"data_type":2}}', "data_type: must be 'MBO' or 'MBP'", "a"),
    (f'{SUBSCRIBE},"max_levels":0}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":-1}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":1001}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":{10**30}}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":20.0}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":1e999}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":"20"}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":true}}', LEVELS, "a"),
    (f'{SUBSCRIBE},"max_levels":null}}', LEVELS, "a"),
    ('{"type":"Ping"}', "timestamp: the field is missing", None),
    ('{"type":"Ping","timestamp":"now"}', TIMESTAMP, None),
    ('{"type":"Ping","timestamp":1795193263}', TIMESTAMP, None),
    ('{"type":"Ping","timestamp":null,"stream_id":"a"}', TIMESTAMP, "a"),
    ('{"type":"Hello","token":""}', TOKEN, None),
    ('{"type":"Hello","token":7}', TOKEN, None),
    ('{"type":"Hello","token":"' + "x" * 513 + '"}', TOKEN, None),
    ('{"type":"Hello","client":""}', CLIENT, None),
    ('{"type":"Hello","client":"a\\nb"}', CLIENT, None),
    ('{"type":"Hello","client":"' + "x" * 65 + '"}', CLIENT, None),
    ('{"type":"Hello","heartbeat_interval_s":0}', HEARTBEAT, None),
    ('{"type":"Hello","heartbeat_interval_s":1801}', HEARTBEAT, None),
    ('{"type":"Hello","heartbeat_interval_s":"30"}', HEARTBEAT, None),
    ('{"type":"Hello","heartbeat_interval_s":1.5}', HEARTBEAT, None),
]


def short_id(value: object) -> str:
    """A readable name of a case whose frame may be long, or no text at all."""
    return ascii(value)[:48]


@pytest.mark.parametrize(("data", "message", "stream_id"), BAD_REQUESTS, ids=short_id)
def test_a_bad_request_is_refused_with_its_field_and_its_stream(
    data: str | bytes, message: str, stream_id: str | None
) -> None:
    with pytest.raises(BadRequest) as refusal:
        decode_request(data)
    # The parser's own words end with a position, which says nothing new in the longest frames.
    assert str(refusal.value).startswith(message)
    assert (refusal.value.stream_id, stream_id_of(data)) == (stream_id, stream_id)


@pytest.mark.parametrize(
    ("data", "request_read"),
    [
        (' \t\r\n{ "type" : "Unsubscribe" , "stream_id" : "a" } ', Unsubscribe(stream_id="a")),
        ('{"stream_id":"\\u00e9","type":"Unsubscribe"}', Unsubscribe(stream_id="é")),
        ('{"type":"Unsubscribe","stream_id":"a","stream_id":"b"}', Unsubscribe(stream_id="b")),
        ('{"type":"Unsubscribe","stream_id":"a","note":{"x":[1.5,null]}}', Unsubscribe(stream_id="a")),
        ('{"type":"Ping","timestamp":"2026-11-20T16:41:03Z"}', Ping(timestamp="2026-11-20T16:41:03Z")),
        ('{"type":"Hello"}', Hello()),
        (
            '{"type":"Hello","token":null,"client":"é","heartbeat_interval_s":1}',
            Hello(client="é", heartbeat_interval_s=1),
        ),
        (f"{SUBSCRIBE}}}", Subscribe(stream_id="a", symbol="BTCUSD", data_type="MBP", max_levels=20)),
    ],
)
def test_any_json_spelling_of_a_request_is_read(data: str, request_read: ClientMessage) -> None:
    assert decode_request(data) == request_read


@pytest.mark.parametrize("name", frames.REQUESTS)
def test_a_request_cut_short_or_followed_by_rubbish_is_refused(name: str) -> None:
    text = encode(frames.REQUESTS[name]).decode()
    for cut in [*(text[:end] for end in range(len(text))), text + "x", text + "{}"]:
        with pytest.raises(BadRequest, match="not JSON"):
            decode_request(cut)


@pytest.mark.parametrize("name", frames.ANSWERS)
def test_an_answer_cut_short_or_followed_by_rubbish_is_refused(name: str) -> None:
    frame = frames.ANSWERS[name]
    for cut in [*(frame[:end] for end in range(len(frame))), frame + b"x", frame + b"{}"]:
        with pytest.raises(json.JSONDecodeError):
            decode_answer(cut)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "Expecting value"),
        (b"\xff", "invalid start byte"),
        ("[" * 100_000, "nested too deeply"),
        ('{"price":1.5e9999999999999999999}', "a number out of range"),
        ("null", "valid dictionary"),
        ("[]", "valid dictionary"),
        ("{}", "Unable to extract tag"),
        ('{"type":"Subscribe"}', "does not match any of the expected tags"),
        ('{"type":"HeartBeat"}', "HeartBeat.timestamp"),
    ],
    ids=short_id,
)
def test_what_is_no_answer_is_refused(data: str | bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        decode_answer(data)


@given(
    st.sampled_from(list(frames.ANSWERS.values())),
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 5), st.binary(max_size=4)), min_size=1, max_size=3
    ),
)
def test_a_damaged_answer_is_a_message_or_refused(
    frame: bytes, damages: list[tuple[int, int, bytes]]
) -> None:
    for position, length, replacement in damages:
        start = position % len(frame)
        frame = frame[:start] + replacement + frame[start + length :] or b" "
    with suppress(ValueError):
        decode_answer(frame)


@given(st.text(), st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_survives_an_error_frame(message: str, stream_id: str | None) -> None:
    printable = message.encode(errors="replace").decode()
    error = Error(code=400, message=printable, stream_id=stream_id)
    assert decode_answer(encode(error)) == error


# The fast text of a book against the models. Prices may lie below zero and between two ticks.

INSTRUMENTS = st.builds(
    Instrument,
    symbol=st.sampled_from(["BTCUSD", "BYBIT:XRPUSDT", 'quote"d', "naïve"]),
    venue=st.just("SIM"),
    instrument_id=st.just(1),
    tick_size=st.sampled_from([1, 25, 10_000, 10_000_000, 250_000_000, SCALE, 5 * SCALE, 100 * SCALE]),
    lot_size=st.sampled_from([1, 1_000, 100_000, 30_000_000, SCALE, 100 * SCALE]),
)
ANY_PRICE = st.integers(-(2**63), 2**63 - 1)
NEAR_ZERO = st.integers(-300, 300).map(lambda cents: cents * 10_000_000)
ON_TICK = st.integers(0, 10**7).map(lambda cents: cents * 10_000_000)
PRICES = ON_TICK | NEAR_ZERO | ANY_PRICE
STREAM_IDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=64)
TIMES = st.integers(0, 2**63 - 1)
LEVELS_OF_A_SIDE = st.lists(st.tuples(PRICES, st.integers(0, 2**40), st.integers(1, 2**31)), max_size=12)
ORDERS_OF_A_SIDE = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), PRICES, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    max_size=12,
)


def exact(value: int) -> Decimal:
    """`value` × 1e-9, whatever the number of digits."""
    return Decimal(f"{value}e-9")


@given(INSTRUMENTS, STREAM_IDS, st.integers(0, 2**63), TIMES, LEVELS_OF_A_SIDE, LEVELS_OF_A_SIDE)
def test_a_book_by_price_level_reads_back_exactly(
    instrument: Instrument,
    stream_id: str,
    sequence: int,
    timestamp_ns: int,
    bids: list[tuple[int, int, int]],
    asks: list[tuple[int, int, int]],
) -> None:
    data = price_levels_text(instrument, frames.price_levels(*bids), frames.price_levels(*asks))
    frame = market_data_head(stream_id) + market_data_body(instrument.symbol, sequence, timestamp_ns, data)

    def levels(side: list[tuple[int, int, int]]) -> list[PriceLevel]:
        totals = accumulate(size for _, size, _ in side)
        return [
            PriceLevel(
                price=exact(price),
                quantity=exact(size * instrument.lot_size),
                order_count=count,
                total_quantity=exact(total * instrument.lot_size),
            )
            for (price, size, count), total in zip(side, totals, strict=True)
        ]

    assert decode_answer(frame) == MarketData(
        stream_id=stream_id,
        symbol=instrument.symbol,
        sequence=sequence,
        timestamp=timestamp_text(timestamp_ns),
        data=PriceLevels(bids=levels(bids), asks=levels(asks)),
    )


@given(INSTRUMENTS, STREAM_IDS, st.integers(0, 2**63), TIMES, ORDERS_OF_A_SIDE, ORDERS_OF_A_SIDE)
def test_a_book_by_order_reads_back_exactly(
    instrument: Instrument,
    stream_id: str,
    sequence: int,
    now_ns: int,
    bids: list[tuple[int, int, int, int]],
    asks: list[tuple[int, int, int, int]],
) -> None:
    data = resting_orders_text(instrument, frames.resting_orders(*bids), frames.resting_orders(*asks), now_ns)
    frame = market_data_head(stream_id) + market_data_body(instrument.symbol, sequence, now_ns, data)

    def bid_or_ask(rows: list[tuple[int, int, int, int]], is_bid: bool) -> list[RestingOrder]:
        return [
            RestingOrder(
                order_id=str(order_id),
                price=exact(price),
                quantity=exact(size * instrument.lot_size),
                side="Bid" if is_bid else "Ask",
                timestamp=timestamp_text(ts_event),
                age_ms=max(0, now_ns - ts_event) // NS_PER_MS,
            )
            for order_id, price, size, ts_event in rows
        ]

    assert decode_answer(frame) == MarketData(
        stream_id=stream_id,
        symbol=instrument.symbol,
        sequence=sequence,
        timestamp=timestamp_text(now_ns),
        data=RestingOrders(bids=bid_or_ask(bids, True), asks=bid_or_ask(asks, False)),
    )


@given(INSTRUMENTS, LEVELS_OF_A_SIDE)
def test_numbers_have_the_precision_of_the_instrument_and_no_exponent(
    instrument: Instrument, side: list[tuple[int, int, int]]
) -> None:
    numbers: list[str] = []

    def keep(text: str) -> str:
        numbers.append(text)
        return text

    text = price_levels_text(instrument, frames.price_levels(*side), frames.price_levels())
    for level in json.loads(text, parse_float=keep, parse_int=keep)["bids"]:
        assert len(level["price"].partition(".")[2]) >= instrument.price_precision
        assert len(level["quantity"].partition(".")[2]) == instrument.quantity_precision
    assert not any("e" in number.lower() for number in numbers)


@given(INSTRUMENTS, LEVELS_OF_A_SIDE)
def test_totals_add_up_from_the_best_level(instrument: Instrument, side: list[tuple[int, int, int]]) -> None:
    text = price_levels_text(instrument, frames.price_levels(*side), frames.price_levels())
    levels = json.loads(text, parse_float=Decimal)["bids"]
    for level in levels[:1]:
        assert level["total_quantity"] == level["quantity"]
    for better, level in pairwise(levels):
        assert level["total_quantity"] == better["total_quantity"] + level["quantity"]


def test_one_body_serves_the_streams_of_a_book() -> None:
    body = market_data_body(
        "BTCUSD", 7, frames.NOW_NS, price_levels_text(frames.BTCUSD, *[frames.price_levels()] * 2)
    )
    for stream_id in ("a", 'quote"d', "∞"):
        message = decode_answer(market_data_head(stream_id) + body)
        assert isinstance(message, MarketData)
        assert (message.stream_id, message.sequence) == (stream_id, 7)


def test_a_view_with_narrower_columns_is_printed_as_well() -> None:
    rows = frames.resting_orders((1, SCALE, 2**32 - 1, 0))
    narrow = rows.astype(
        np.dtype([("order_id", "<u8"), ("price", "<i8"), ("size", "<u4"), ("ts_event", "<u8")])
    )
    nothing = np.empty(0, RESTING_ORDER)
    assert resting_orders_text(frames.BTCUSD, narrow, nothing, 5) == resting_orders_text(
        frames.BTCUSD, rows, nothing, 5
    )
