import pytest

from market_depth.feeds.gateway_text import ALL_SYMBOLS, Subscription
from market_depth.feeds.gateway_url import GatewayUrl, GatewayUrlError, parse_gateway_url


@pytest.mark.parametrize(
    ("text", "host", "port", "dataset", "subscription"),
    [
        ("tcp://127.0.0.1:13000", "127.0.0.1", 13000, None, Subscription(snapshot=True)),
        ("tcp://[::1]:13000/", "::1", 13000, None, Subscription(snapshot=True)),
        (
            "tcp://gateway:1?dataset=GLBX.MDP3&symbols=CLX5,CLZ5,CLX5",
            "gateway",
            1,
            "GLBX.MDP3",
            Subscription(("CLX5", "CLZ5"), snapshot=True),
        ),
        (
            "tcp://gateway:1?stype_in=parent&symbols=ES.FUT&snapshot=0",
            "gateway",
            1,
            None,
            Subscription(("ES.FUT",), stype_in="parent"),
        ),
        ("tcp://gateway:1?start=0", "gateway", 1, None, Subscription(start_ns=0)),
    ],
)
def test_a_url_names_a_gateway_and_what_to_ask_it_for(
    text: str, host: str, port: int, dataset: str | None, subscription: Subscription
) -> None:
    assert parse_gateway_url(text) == GatewayUrl(text, host, port, dataset, subscription)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("127.0.0.1:13000", "is no address of a gateway"),
        ("http://127.0.0.1:13000", "is no address of a gateway"),
        ("tcp://127.0.0.1", "is no address of a gateway"),
        ("tcp://a..b:13000", "label empty or too long"),
        ("tcp://127.0.0.1:0", "is no address of a gateway"),
        ("tcp://:13000", "is no address of a gateway"),
        ("tcp://127.0.0.1:13000/CLX5", "is no address of a gateway"),
        ("tcp://127.0.0.1:70000", "out of range"),
        ("tcp://127.0.0.1:x", "could not be cast"),
        ("tcp://[::1:13000", "Invalid IPv6"),
        ("tcp://h:1?symbol=CLX5", "has 'symbol', and only dataset, symbols"),
        ("tcp://h:1?symbols", "bad query field"),
        ("tcp://h:1?symbols=", "has a symbols that cannot be"),
        ("tcp://h:1?symbols=,", "has symbols that cannot be"),
        ("tcp://h:1?dataset=A%0Aschema=x", "has a dataset that cannot be"),
        ("tcp://h:1?dataset=A|ts_out=1", "has a dataset that cannot be"),
        ("tcp://h:1?stype_in=isin", "has a stype_in that is none of"),
        ("tcp://h:1?snapshot=2", "snapshot=1 or snapshot=0"),
        ("tcp://h:1?snapshot=1&start=0", "a start only without a snapshot"),
        ("tcp://h:1?start=now", "no number of nanoseconds"),
        ("tcp://h:1?start=" + "9" * 5000, "no number of nanoseconds"),
    ],
)
def test_what_is_no_address_of_a_gateway_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(GatewayUrlError) as refusal:
        parse_gateway_url(text)
    assert problem in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", None),
        (f"?symbols=A,{ALL_SYMBOLS}", None),
        ("?symbols=A,B", 2),
        ("?symbols=ES.FUT&stype_in=parent", None),
        ("?symbols=7,8,9&stype_in=instrument_id", 3),
    ],
)
def test_how_many_instruments_come_is_known_where_symbols_are_single_ones(
    query: str, count: int | None
) -> None:
    assert parse_gateway_url(f"tcp://h:1{query}").asked_symbols == count
