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
        ("unknown", 1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ServeConfig.model_validate({field: value})
    assert caught.value.errors()[0]["loc"][0] == field
