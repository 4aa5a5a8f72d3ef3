from market_depth.server.pages import front_page


def test_front_page_tells_what_is_served_and_how_to_ask_for_it() -> None:
    text = front_page(["BTCUSD", "ETHUSD"])
    assert "<code>BTCUSD</code>, <code>ETHUSD</code>" in text
    assert '{"type": "Subscribe", "stream_id": "1", "symbol": "BTCUSD"' in text


def test_a_symbol_from_a_file_cannot_bring_markup() -> None:
    text = front_page(["<script>"])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_a_server_without_symbols_has_a_page_too() -> None:
    assert "SYMBOL" in front_page([])
