import numpy as np
import pytest
from databento_dbn import DBNDecoder, MBOMsg, Metadata
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.dbn_decoding import RTYPE_ERROR, Decoded, Notice
from market_depth.feeds.dbn_stream import DbnStream
from market_depth.feeds.gateway_client import GatewayClient, RefusedError
from market_depth.feeds.gateway_text import MAX_LINE_BYTES, Subscription, challenge_response
from market_depth.publish.session import (
    MAX_SUBSCRIPTIONS,
    MAX_UNRESOLVED,
    Catalog,
    GatewaySession,
    SessionState,
)
from tests.market_depth.feeds.dbn_files import adds

KEY = "db-0123456789abcdefghijklmnopqrs"
NOW_NS = 1_800_000_000_000_000_000
CATALOG = Catalog("TEST.MBO", {7: "ACME", 8: "EMCA"})

INVALID_SUBSCRIPTION = 5
SYMBOL_RESOLUTION_FAILED = 4
SUBSCRIPTION_ACK = 1


def new_session(key: str | None = KEY) -> GatewaySession:
    return GatewaySession(CATALOG, key=key, challenge="abc123", session_id="42")


def auth(key: str = KEY, /, **fields: object) -> bytes:
    fields = {"auth": challenge_response("abc123", key), "dataset": "TEST.MBO", "encoding": "dbn", **fields}
    return "|".join(f"{name}={value}" for name, value in fields.items()).encode() + b"\n"


def authenticated(**fields: object) -> GatewaySession:
    session = new_session()
    assert session.receive(auth(**fields), NOW_NS) == b"success=1|session_id=42\n"
    return session


def received(data: bytes) -> Decoded:
    return DbnStream().receive(data)


def notices(data: bytes) -> list[Notice]:
    return received(data).notices


def test_the_greeting_asks_for_proof_of_the_key() -> None:
    assert new_session().greeting() == b"lsg_version=market-depth 1\ncram=abc123\n"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ts_out": 1, "compression": "none", "heartbeat_interval_s": 5, "client": "Python 0.87"},
        {"details": "", "slow_reader_behavior": "skip", "something_new": 1},
    ],
)
def test_who_knows_the_key_is_let_in(fields: dict[str, object]) -> None:
    assert authenticated(**fields).state is SessionState.SUBSCRIBING


def test_without_a_key_anyone_is_let_in_and_may_leave_the_dataset_open() -> None:
    session = new_session(key=None)
    assert session.receive(b"auth=x\n", NOW_NS) == b"success=1|session_id=42\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (auth("db-wrong6789abcdefghijklmnopqrs"), "Authentication failed"),
        (auth(auth=""), "Authentication failed"),
        (auth(auth="\u00fc"), "Authentication failed"),
        (auth(auth=challenge_response("abc124", KEY)), "Authentication failed"),
        (b"dataset=TEST.MBO\n", "Authentication was expected"),
        (b"GET / HTTP/1.1\r\n", "Authentication was expected"),
        (b"\x16\x03\x01\n", "a line is not text"),
        (b"x" * (MAX_LINE_BYTES + 1), f"a line is longer than {MAX_LINE_BYTES} bytes"),
        (auth(dataset="GLBX.MDP3"), "Unknown dataset GLBX.MDP3: this gateway serves TEST.MBO"),
        (auth(encoding="json"), "Unknown encoding json: this gateway serves dbn"),
        (auth(compression="zstd"), "Unknown compression zstd: this gateway serves none"),
        (auth(heartbeat_interval_s=1), "heartbeat_interval_s must be 5 to 1800"),
        (auth(heartbeat_interval_s="often"), "heartbeat_interval_s must be 5 to 1800"),
    ],
)
def test_who_is_not_let_in_is_told_why(line: bytes, problem: str) -> None:
    session = new_session()
    assert session.receive(line, NOW_NS) == f"success=0|error={problem}\n".encode()
    assert session.state is SessionState.CLOSED


def test_who_knows_the_key_is_told_when_there_is_no_room_and_nobody_else_is() -> None:
    told = {}
    for key in (KEY, "db-wrong6789abcdefghijklmnopqrs"):
        session = new_session()
        told[key] = session.receive(auth(key), NOW_NS, is_full=True)
        assert (session.state, session.is_authenticated) == (SessionState.CLOSED, False)
    assert list(told.values()) == [
        b"success=0|error=Connection limit reached\n",
        b"success=0|error=Authentication failed\n",
    ]


def test_who_was_let_in_stays_when_there_is_no_more_room() -> None:
    session = authenticated()
    session.receive(b"start_session\n", NOW_NS, is_full=True)
    assert (session.state, session.is_authenticated) == (SessionState.STREAMING, True)


def test_after_the_end_nothing_is_heard() -> None:
    session = new_session()
    session.receive(auth("wrong"), NOW_NS)
    assert session.receive(auth(), NOW_NS) == b""


@pytest.mark.parametrize(
    ("subscriptions", "mappings"),
    [
        (["schema=mbo|stype_in=raw_symbol|symbols=ALL_SYMBOLS"], [(7, "ACME"), (8, "EMCA")]),
        (["schema=mbo|stype_in=instrument_id|symbols=ALL_SYMBOLS"], [(7, "ACME"), (8, "EMCA")]),
        (["schema=mbo|stype_in=raw_symbol|symbols=EMCA"], [(8, "EMCA")]),
        (["schema=mbo|symbols=EMCA,ACME"], [(8, "EMCA"), (7, "ACME")]),
        (["schema=mbo|stype_in=instrument_id|symbols=8|snapshot=1|id=5|is_last=1"], [(8, "EMCA")]),
        (["schema=mbo|symbols=ACME", "schema=mbo|symbols=EMCA,ACME"], [(7, "ACME"), (8, "EMCA")]),
        ([], []),
    ],
)
def test_a_session_starts_with_metadata_and_the_symbols_asked_for(
    subscriptions: list[str], mappings: list[tuple[int, str]]
) -> None:
    session = authenticated()
    for line in subscriptions:
        assert session.receive(line.encode() + b"\n", NOW_NS) == b""
    data = session.receive(b"start_session=0\n", NOW_NS)
    assert session.state is SessionState.STREAMING
    stream = DbnStream()
    start = stream.receive(data)
    assert start.mappings == mappings
    assert [notice.code for notice in start.notices] == [SUBSCRIPTION_ACK] * len(subscriptions)
    assert stream.metadata is not None
    assert (stream.metadata.dataset, stream.metadata.start, stream.metadata.schema) == (
        "TEST.MBO",
        NOW_NS,
        None,
    )


@pytest.mark.parametrize("ts_out", [False, True])
def test_databentos_decoder_reads_all_of_a_session(ts_out: bool) -> None:
    session = authenticated(ts_out=int(ts_out))
    session.receive(b"schema=mbo|symbols=ACME,NONE\n", NOW_NS)
    events = adds(4, instrument_ids=(7, 8))
    data = session.receive(b"start_session=0\n", NOW_NS)
    data += session.records(events, NOW_NS) + session.heartbeat(NOW_NS) + session.fail("Enough", NOW_NS)
    decoder = DBNDecoder()
    decoder.write(data)
    metadata, *records = decoder.decode()
    assert isinstance(metadata, Metadata)
    assert metadata.ts_out is ts_out
    kinds = ["SymbolMappingMsg", "ErrorMsg", "SystemMsg", "MBOMsg", "MBOMsg", "SystemMsg", "ErrorMsg"]
    assert [type(record).__name__ for record in records] == kinds
    assert [record.order_id for record in records if isinstance(record, MBOMsg)] == [1, 3]
    if ts_out:
        assert {getattr(record, "ts_out", None) for record in records} == {NOW_NS}


def test_records_are_those_of_the_instruments_asked_for() -> None:
    events = adds(6, instrument_ids=(7, 8))
    session = authenticated()
    session.receive(b"schema=mbo|symbols=EMCA\n", NOW_NS)
    header = session.receive(b"start_session=0\n", NOW_NS)
    sent = received(header + session.records(events, NOW_NS)).events
    np.testing.assert_array_equal(sent, events[1::2])


def test_what_is_asked_for_later_comes_from_then_on() -> None:
    events = adds(2, instrument_ids=(7, 8))
    session = authenticated()
    data = session.receive(b"schema=mbo|symbols=ACME\nstart_session=0\n", NOW_NS)
    data += session.records(events, NOW_NS)
    data += session.receive(b"schema=mbo|symbols=EMCA\n", NOW_NS) + session.records(events, NOW_NS)
    assert received(data).events["instrument_id"].tolist() == [7, 7, 8]
    assert received(data).mappings == [(7, "ACME"), (8, "EMCA")]


def test_each_unknown_symbol_is_answered_by_an_error_and_the_session_goes_on() -> None:
    session = authenticated()
    session.receive(b"schema=mbo|symbols=X,ACME,Y\nschema=mbo|symbols=X\n", NOW_NS)
    data = session.receive(b"start_session=0\n", NOW_NS)
    errors = [notice for notice in notices(data) if notice.rtype == RTYPE_ERROR]
    assert errors == [
        Notice(RTYPE_ERROR, SYMBOL_RESOLUTION_FAILED, "Unknown symbol X"),
        Notice(RTYPE_ERROR, SYMBOL_RESOLUTION_FAILED, "Unknown symbol Y"),
    ]
    assert session.state is SessionState.STREAMING


@pytest.mark.parametrize(
    ("starts", "first"), [([None], 0), ([5], 5), ([5, 3], 3), ([5, None], 0), ([0], 0), ([], 0)]
)
def test_a_playback_starts_where_the_earliest_subscription_does(starts: list[int | None], first: int) -> None:
    session = authenticated()
    for start_ns in starts:
        session.receive(Subscription(start_ns=start_ns).lines(), NOW_NS)
    session.receive(b"start_session=0\n", NOW_NS)
    assert session.start_ns == first


def test_a_session_has_a_bounded_number_of_subscriptions() -> None:
    session = authenticated()
    assert session.receive(b"schema=mbo|symbols=ACME\n" * MAX_SUBSCRIPTIONS, NOW_NS) == b""
    last = notices(session.receive(b"schema=mbo|symbols=ACME\n", NOW_NS))[-1]
    assert (last.rtype, session.state) == (RTYPE_ERROR, SessionState.CLOSED)
    assert f"more than {MAX_SUBSCRIPTIONS} subscriptions" in last.text


@pytest.mark.parametrize("is_started", [False, True])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("schema=trades|symbols=ACME", "schema trades is not served: this gateway has mbo"),
        ("schema=mbo|stype_in=parent|symbols=ACME", "stype_in parent is not served: ask by"),
        ("schema=mbo|symbols=", "a subscription names no symbols"),
        ("schema=mbo|symbols=ACME|start=1|snapshot=1", "either a snapshot or a start"),
        ("schema=mbo|symbols=ACME|start=x", "start is no whole number"),
        ("hello", "a subscription, or the session's start, was expected"),
        (
            "schema=mbo|symbols=" + ",".join(f"X{number}" for number in range(MAX_UNRESOLVED + 1)),
            f"more than {MAX_UNRESOLVED} symbols are unknown",
        ),
    ],
)
def test_what_cannot_be_served_ends_the_session_with_an_error_record(
    line: str, problem: str, is_started: bool
) -> None:
    session = authenticated()
    data = session.receive(b"start_session=0\n", NOW_NS) if is_started else b""
    data += session.receive(line.encode() + b"\n", NOW_NS)
    last = notices(data)[-1]
    assert (last.rtype, last.code) == (RTYPE_ERROR, INVALID_SUBSCRIPTION)
    assert problem in last.text
    assert session.state is SessionState.CLOSED


@given(st.lists(st.integers(1, 60)))
def test_the_answers_are_the_same_however_the_clients_bytes_arrive(sizes: list[int]) -> None:
    data = auth() + b"schema=mbo|symbols=ACME,X\n" + b"start_session=0\n" + b"schema=mbo|symbols=EMCA\n"
    session = new_session()
    answers = b""
    at = 0
    for size in [*sizes, len(data)]:
        answers += session.receive(data[at : at + size], NOW_NS)
        at += size
    assert answers == new_session().receive(data, NOW_NS)


@given(
    st.sampled_from([b"", auth(), auth() + b"schema=mbo|symbols=ACME\n", auth() + b"start_session=0\n"]),
    st.binary(max_size=400)
    | st.text("=|,\nabcdestuv019", max_size=400).map(str.encode)
    | st.tuples(st.sampled_from([b"schema=mbo|symbols=A", b"auth="]), st.binary(max_size=99)).map(b"".join),
)
def test_rubbish_at_any_stage_is_answered_or_awaits_more(before: bytes, rubbish: bytes) -> None:
    session = new_session()
    session.receive(before, NOW_NS)
    answer = session.receive(rubbish + b"\n", NOW_NS)
    if session.state is SessionState.AUTHENTICATING:
        assert not answer
    if session.state is SessionState.CLOSED:
        assert answer


def converse(session: GatewaySession, client: GatewayClient) -> bytes:
    """Let both sides talk until the handshake is over. Returns the stream as far as it got."""
    to_client = session.greeting()
    while not client.is_streaming:
        to_client = session.receive(client.receive(to_client), NOW_NS)
    return client.rest() + to_client


@pytest.mark.parametrize("dataset", [None, "TEST.MBO"])
def test_both_sides_of_the_handshake_understand_each_other(dataset: str | None) -> None:
    session = new_session()
    client = GatewayClient(Subscription(("ACME",)), key=KEY, dataset=dataset, heartbeat_interval_s=10)
    assert received(converse(session, client)).mappings == [(7, "ACME")]
    assert (session.heartbeat_interval_s, session.client, client.session_id) == (10, "market-depth", "42")


def test_a_client_with_another_key_is_refused() -> None:
    client = GatewayClient(Subscription(), key="another", dataset=None, heartbeat_interval_s=10)
    with pytest.raises(RefusedError, match="Authentication failed"):
        converse(new_session(), client)
