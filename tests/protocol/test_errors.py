"""Every error has a code of the table, says what happened, and carries the stream it is about."""

import pytest

from protocol.errors import (
    WIRE_ERRORS,
    BadRequest,
    CloseCode,
    InternalError,
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

REMEDIES = ("retry", "resubscribe", "reconnect", "give up")


@pytest.mark.parametrize(
    ("error", "code", "message", "stream_id"),
    [
        (BadRequest("symbol: the field is missing", "a"), 400, "symbol: the field is missing", "a"),
        (BadRequest("not a JSON object"), 400, "not a JSON object", None),
        (TokenRequired("a"), 401, "a token is required: send Hello with it first", "a"),
        (TokenRequired(), 401, "a token is required: send Hello with it first", None),
        (WrongToken(), 401, "token: is not valid", None),
        (
            UnknownSymbol("DOGE", ["ETHUSD", "BTCUSD"], "a"),
            404,
            "symbol: 'DOGE' is not served (served: BTCUSD, ETHUSD)",
            "a",
        ),
        (UnknownSymbol("DOGE", [], "a"), 404, "symbol: 'DOGE' is not served (served: none)", "a"),
        (
            UnknownSymbol("DOGE", [f"S{n:02}" for n in range(11)], None),
            404,
            "symbol: 'DOGE' is not served (served: S00, S01, S02, S03, S04, S05, S06, S07, S08, S09, …)",
            None,
        ),
        (UnknownStream("a"), 404, "stream_id: no stream 'a' on this connection", "a"),
        (StreamInUse("a"), 409, "stream_id: 'a' is already in use on this connection", "a"),
        (MessageTooBig(65536), 413, "a message may have at most 65536 bytes", None),
        (
            NotServed("BYBIT:XRPUSDT", "MBO", "a"),
            422,
            "data_type: MBO is not served for 'BYBIT:XRPUSDT'",
            "a",
        ),
        (TooManyMessages(50, 100, "a"), 429, "over the rate of 50 messages a second (burst 100)", "a"),
        (TooManyStreams(256, "a"), 429, "a connection may have at most 256 streams", "a"),
        (InternalError("a"), 500, "internal error", "a"),
        (ShuttingDown(), 503, "the server is shutting down", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ProtocolError) else "",
)
def test_an_error_carries_its_code_its_text_and_its_stream(
    error: ProtocolError, code: int, message: str, stream_id: str | None
) -> None:
    assert (error.code, str(error), error.stream_id) == (code, message, stream_id)


def test_the_table_has_the_codes_of_the_errors_and_no_others() -> None:
    assert {error.code for error in ProtocolError.__subclasses__()} == set(WIRE_ERRORS)


@pytest.mark.parametrize("code", WIRE_ERRORS)
def test_a_row_of_the_table_has_a_reason_and_a_remedy(code: int) -> None:
    row = WIRE_ERRORS[code]
    assert row.code == code
    assert row.when
    assert row.remedy.startswith(REMEDIES)


def test_close_codes_are_those_of_rfc_6455_and_our_own() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        "GOING_AWAY": 1001,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "NO_PONG": 4012,
        "NOT_AUTHORISED": 4503,
    }
