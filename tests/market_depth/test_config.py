import pytest
from pydantic import ValidationError

from market_depth.config import DEFAULT_SYMBOLS, Address, ServeConfig, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_an_address_reads_back_as_it_is_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8080",
        ":8080",
        "localhost",
        "localhost:",
        "::1",
        "::1:8080",
        "[::1]",
        "a:-1",
        "a:65536",
        "a:80a",
        "a: 80",
        "a:８０",
        "a:b:80",
        "[]:80",
    ],
)
def test_a_wrong_address_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address: HOST:PORT is expected") as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)


def test_default_symbols_are_simulated_unless_a_file_is_replayed() -> None:
    assert ServeConfig().simulated_symbols == DEFAULT_SYMBOLS
    assert ServeConfig.model_validate({"replay": ["a.dbn"]}).simulated_symbols == ()
    both = ServeConfig.model_validate({"replay": ["a.dbn"], "symbols": ["BTCUSD"]})
    assert both.simulated_symbols == ("BTCUSD",)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interval_ms", 9),
        ("interval_ms", 60_001),
        ("symbols", ("BTCUSD", "BTCUSD")),
        ("seed", -1),
        ("limit", 0),
        ("max_connections_per_host", 0),
        ("max_message_bytes", 1023),
        ("max_message_bytes", 16 * 1024 * 1024 + 1),
        ("max_streams", 0),
        ("messages_per_second", 0),
        ("messages_per_second", float("inf")),
        ("message_burst", 0),
        ("handshake_timeout_s", 0),
        ("heartbeat_interval_s", 31),
        ("max_unanswered_pings", 0),
        ("token", "two words"),
        ("token", ""),
        ("unknown", 1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ServeConfig.model_validate({field: value})
    assert caught.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://depth.example.org", "https://depth.example.org"),
        ("HTTPS://Depth.Example.org/", "https://depth.example.org"),
        ("https://depth.example.org:443", "https://depth.example.org"),
        ("http://depth.example.org:80/", "http://depth.example.org"),
        ("http://depth.example.org:443", "http://depth.example.org:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[::1]", "http://[::1]"),
        ("*", "*"),
        ("null", "null"),
    ],
)
def test_an_origin_is_spelt_as_browsers_do(text: str, origin: str) -> None:
    assert ServeConfig.model_validate({"allow_origin": [text]}).allow_origin == (origin,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "depth.example.org",
        "//depth.example.org",
        "https://",
        "https://:443",
        "https://depth.example.org/page",
        "https://depth.example.org?a=b",
        "https://depth.example.org#a",
        "https://user@depth.example.org",
        "https://depth.example.org:x",
        "https://*.example.org",
        "https://dépth.example.org",
        "https://[::1",
        "https://a b",
        "ftp://depth.example.org",
        "file:///page.html",
    ],
)
def test_what_is_no_origin_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValidationError, match=r"is not an origin: SCHEME://HOST\[:PORT\] is expected"):
        ServeConfig.model_validate({"allow_origin": [text]})


def test_the_token_stays_out_of_what_is_printed() -> None:
    assert "secret" not in repr(ServeConfig(token="secret"))
