import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.gateway_client import GatewayClient, RefusedError
from market_depth.feeds.gateway_text import GatewayError, Subscription, challenge_response, parse_line

KEY = "db-0123456789abcdefghijklmnopqrs"
HELLO = b"lsg_version=0.5.2\ncram=abc123\n"
WELCOME = b"success=1|session_id=42\n"


def client(dataset: str | None = "GLBX.MDP3") -> GatewayClient:
    return GatewayClient(Subscription(("CLX5",)), key=KEY, dataset=dataset, heartbeat_interval_s=10)


def test_a_handshake_proves_the_key_then_subscribes_and_starts() -> None:
    session = client()
    assert session.receive(b"lsg_version=0.5.2\n") == b""
    assert parse_line(session.receive(b"cram=abc123\n").removesuffix(b"\n")) == {
        "auth": challenge_response("abc123", KEY),
        "dataset": "GLBX.MDP3",
        "encoding": "dbn",
        "ts_out": "0",
        "compression": "none",
        "heartbeat_interval_s": "10",
        "slow_reader_behavior": "warn",
        "client": "market-depth",
    }
    assert session.receive(WELCOME + b"DBN\x03") == Subscription(("CLX5",)).lines() + b"start_session=0\n"
    assert (session.is_streaming, session.session_id, session.rest()) == (True, "42", b"DBN\x03")


def test_the_handshake_is_not_over_before_the_gateway_agrees() -> None:
    session = client()
    session.receive(HELLO + WELCOME[:-1])
    assert not session.is_streaming


def test_the_key_is_never_sent() -> None:
    session = client()
    assert KEY.encode() not in session.receive(HELLO) + session.receive(WELCOME)


def test_a_dataset_that_was_not_chosen_is_left_to_the_gateway() -> None:
    assert b"dataset" not in client(dataset=None).receive(HELLO)


@given(st.lists(st.integers(1, 30)))
def test_the_answers_are_the_same_however_the_gateways_bytes_arrive(sizes: list[int]) -> None:
    data = HELLO + WELCOME
    whole, pieces = client(), client()
    expected = whole.receive(data)
    answers = b""
    at = 0
    for size in [*sizes, len(data)]:
        if not pieces.is_streaming:
            answers += pieces.receive(data[at : at + size])
        at += size
    assert answers == expected


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (HELLO + b"success=0|error=Authentication failed\n", "^Authentication failed$"),
        (HELLO + b"success=0\n", "the gateway refused the session"),
        (b"success=0|error=Connection limit of 64 reached\n", "^Connection limit of 64 reached$"),
    ],
)
def test_a_refusal_says_what_the_gateway_says(said: bytes, problem: str) -> None:
    with pytest.raises(RefusedError, match=problem):
        client().receive(said)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"cram=abc\n",
        b"lsg_version=1\nlsg_version=1\n",
        HELLO + b"hello\n",
        b"\x16\x03\x01\x00\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_gateway_is_noticed(said: bytes) -> None:
    with pytest.raises(GatewayError):
        client().receive(said)


@given(st.sampled_from([b"", HELLO[:18], HELLO, HELLO + WELCOME[:5]]), st.binary(max_size=300))
def test_rubbish_at_any_stage_is_an_error_or_not_enough(before: bytes, rubbish: bytes) -> None:
    session = client()
    session.receive(before)
    try:
        session.receive(rubbish)
    except GatewayError:
        return
    assert b"success=1" in before + rubbish or not session.is_streaming
