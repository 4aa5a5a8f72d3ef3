import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.gateway_text import (
    MAX_LINE_BYTES,
    GatewayError,
    Lines,
    Subscription,
    challenge_response,
    line_of,
    parse_line,
)


def test_a_response_proves_the_key_and_shows_its_last_five_characters() -> None:
    digest = hashlib.sha256(b"t7kNhwj4xqR0QYjzFKtBEG2ec2pXJ4FK|db-abcdefghijklmnopqrstuvwxyz123").hexdigest()
    response = challenge_response("t7kNhwj4xqR0QYjzFKtBEG2ec2pXJ4FK", "db-abcdefghijklmnopqrstuvwxyz123")
    assert response == f"{digest}-yz123"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"lsg_version=0.5.2", {"lsg_version": "0.5.2"}),
        (b"success=1|session_id=42\r", {"success": "1", "session_id": "42"}),
        (b"auth=a=b|client=", {"auth": "a=b", "client": ""}),
        (b"start_session", {"start_session": ""}),
        (b"", {"": ""}),
    ],
)
def test_a_line_is_fields(line: bytes, fields: dict[str, str]) -> None:
    assert parse_line(line) == fields


@pytest.mark.parametrize("line", [b"a=\xff", b"a=\x00", b"a=1\x1b[31m", b"DBN\x03"])
def test_a_line_that_is_no_text_is_refused(line: bytes) -> None:
    with pytest.raises(GatewayError, match="not text"):
        parse_line(line)


@given(st.lists(st.integers(1, 40)))
def test_lines_come_out_the_same_however_their_bytes_arrive(sizes: list[int]) -> None:
    data = b"a=1|b=2\n\nc=3\nDBN\x03 not text"
    lines = Lines()
    found: list[dict[str, str]] = []
    at = 0
    for size in [*sizes, len(data)]:
        lines.push(data[at : at + size])
        at += size
        while len(found) < 3 and (line := lines.next_line()) is not None:
            found.append(line)
    assert found == [{"a": "1", "b": "2"}, {"": ""}, {"c": "3"}]
    assert lines.rest() == b"DBN\x03 not text"


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_does_not_end_is_refused(end: bytes) -> None:
    lines = Lines()
    lines.push(b"x" * MAX_LINE_BYTES)
    assert lines.next_line() is None
    lines.push(b"x" + end)
    with pytest.raises(GatewayError, match="longer than"):
        lines.next_line()


SUBSCRIPTIONS = [
    Subscription(),
    Subscription(symbols=("CLX5", "CLZ5"), snapshot=True, number=3),
    Subscription(symbols=("432669",), stype_in="instrument_id", start_ns=0),
    Subscription(schema="trades", start_ns=2**64 - 1),
]


@pytest.mark.parametrize("subscription", SUBSCRIPTIONS)
def test_a_subscription_survives_its_line(subscription: Subscription) -> None:
    assert Subscription.of(parse_line(subscription.lines().removesuffix(b"\n"))) == subscription


def test_a_long_list_of_symbols_goes_over_several_lines_and_the_last_says_so() -> None:
    symbols = tuple(f"S{number}" for number in range(1001))
    lines = [parse_line(line) for line in Subscription(symbols).lines().splitlines()]
    assert [line["is_last"] for line in lines] == ["0", "0", "1"]
    assert tuple(",".join(line["symbols"] for line in lines).split(",")) == symbols


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"schema=mbo", "names no symbols"),
        (b"schema=mbo|symbols=,,", "names no symbols"),
        (b"schema=mbo|symbols=A|start=soon", "start is no whole number"),
        (b"schema=mbo|symbols=A|start=-1", "start is no whole number"),
        (b"schema=mbo|symbols=A|start=18446744073709551616", "start is no whole number"),
        (b"schema=mbo|symbols=A|start=" + b"9" * 5000, "start is no whole number"),
        (b"schema=mbo|symbols=A|snapshot=yes", "snapshot is no whole number"),
        (b"schema=mbo|symbols=A|id=\xc2\xb2", "id is no whole number"),
    ],
)
def test_a_subscription_that_makes_no_sense_is_refused(line: bytes, problem: str) -> None:
    with pytest.raises(GatewayError, match=problem):
        Subscription.of(parse_line(line))


def test_text_of_ours_is_a_line() -> None:
    assert line_of({"success": 1, "session_id": "7"}) == b"success=1|session_id=7\n"
