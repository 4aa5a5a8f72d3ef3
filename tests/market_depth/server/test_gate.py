from base64 import urlsafe_b64encode
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.metrics import Refusal
from market_depth.server.gate import (
    FOREIGN_PAGE,
    MAX_CONNECTIONS_PER_HOST,
    Denied,
    Gate,
    Welcome,
    no_room,
)

TOKEN = 'a/b+c=="{}"'  # with characters that a subprotocol may not have
TOKEN_NAME = "bearer." + urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")


def denial(
    gate: Gate,
    headers: list[tuple[bytes, bytes]],
    *,
    is_websocket: bool,
    is_preflight: bool = False,
    target: bytes = b"",
) -> Denied | None:
    judged = gate.check(headers, is_websocket=is_websocket, is_preflight=is_preflight, target=target)
    return judged if isinstance(judged, Denied) else None


# Connections


def enter(gate: Gate, host: str, times: int) -> list[Refusal | None]:
    return [gate.enter(host) for _ in range(times)]


def test_a_full_server_lets_nobody_in_until_somebody_leaves() -> None:
    gate = Gate(max_connections=2)
    assert [gate.enter(host) for host in ("10.0.0.1", "127.0.0.1", "10.0.0.2", "::1")] == [
        None,
        None,
        Refusal.SERVER_FULL,
        Refusal.SERVER_FULL,
    ]
    gate.leave("127.0.0.1")
    assert enter(gate, "10.0.0.2", 2) == [None, Refusal.SERVER_FULL]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("local", "local", True),
    ],
)
def test_connections_are_counted_for_each_address_and_for_each_64_bits_of_ipv6(
    first: str, second: str, is_same: bool
) -> None:
    gate = Gate(max_connections_per_host=3)
    assert enter(gate, first, 3) == [None] * 3
    assert gate.enter(second) is (Refusal.HOST_FULL if is_same else None)
    gate.leave(first)
    assert gate.enter(second) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_has_a_limit_of_its_own_only_if_one_is_set(host: str) -> None:
    assert set(enter(Gate(), host, MAX_CONNECTIONS_PER_HOST + 1)) == {None}
    assert enter(Gate(max_connections_per_host=1), host, 2) == [None, Refusal.HOST_FULL]


def test_others_have_one_by_default() -> None:
    refusals = enter(Gate(), "192.0.2.1", MAX_CONNECTIONS_PER_HOST + 1)
    assert refusals == [None] * MAX_CONNECTIONS_PER_HOST + [Refusal.HOST_FULL]


def test_hosts_that_have_left_are_forgotten() -> None:
    gate = Gate()
    for number in range(100):
        gate.enter(f"10.0.0.{number}")
        gate.leave(f"10.0.0.{number}")
    assert not gate._connections


@pytest.mark.parametrize(
    ("gate", "refusal"),
    [
        (Gate(max_connections=8), Refusal.SERVER_FULL),
        (Gate(max_connections_per_host=8), Refusal.HOST_FULL),
    ],
)
def test_that_there_is_no_room_is_news_until_an_eighth_is_free_again(gate: Gate, refusal: Refusal) -> None:
    host = "2001:db8::1"
    assert enter(gate, host, 10) == [None] * 8 + [refusal] * 2
    assert [gate.is_news(refusal, "2001:db8::2") for _ in range(3)] == [True, False, False]
    gate.leave(host)
    assert enter(gate, host, 2) == [None, refusal]
    assert gate.is_news(refusal, host)
    for _ in range(8):
        gate.leave(host)
    assert not gate._known_as_full


def test_each_full_host_is_news() -> None:
    gate = Gate(max_connections_per_host=16)
    for host in ("10.0.0.1", "10.0.0.2"):
        enter(gate, host, 16)
        assert gate.is_news(Refusal.HOST_FULL, host)
    gate.leave("10.0.0.1")
    assert not gate.is_news(Refusal.HOST_FULL, "10.0.0.1")


@pytest.mark.parametrize("refusal", [Refusal.SERVER_FULL, Refusal.HOST_FULL])
def test_whoever_finds_no_room_is_told_when_to_come_again(refusal: Refusal) -> None:
    denied = no_room(refusal)
    assert (denied.status, denied.reason) == (HTTPStatus.SERVICE_UNAVAILABLE, refusal)
    assert denied.headers == (("retry-after", "10"),)


# Pages


@pytest.mark.parametrize(
    ("host", "origin", "watches", "controls"),
    [
        # own pages
        (b"127.0.0.1:8080", b"http://127.0.0.1:8080", True, True),
        (b"localhost:8080", b"http://localhost:8080", True, True),
        (b"LocalHost:8080", b"http://localhost:8080", True, True),
        (b"[::1]:8080", b"https://[::1]:8080", True, True),
        (b"192.0.2.7", b"http://192.0.2.7", True, True),
        # of the browser's machine
        (b"127.0.0.1:8080", b"http://127.0.0.1:9090", True, False),
        (b"192.0.2.7", b"http://localhost:3000", True, False),
        (b"192.0.2.7", b"https://[::1]", True, False),
        (b"192.0.2.7", b"file://", True, False),
        # from elsewhere
        (b"127.0.0.1:8080", b"http://evil.example", False, False),
        (b"127.0.0.1:8080", b"http://192.0.2.7:8080", False, False),
        (b"127.0.0.1:8080", b"null", False, False),
        (b"127.0.0.1:8080", b"", False, False),
        (b"127.0.0.1:8080", b"http://127.0.0.1:8080.evil.example", False, False),
        (b"127.0.0.1:8080", b"http://localhost.evil.example", False, False),
        (b"127.0.0.1:8080", b"http://localhost@evil.example", False, False),
        (b"127.0.0.1:8080", b"chrome-extension://127.0.0.1:8080", False, False),
        (b"", b"http://", False, False),
        # a stranger's name that leads here
        (b"evil.example:8080", b"http://evil.example:8080", False, False),
        (b"[::", b"http://[::", False, False),
        (b"\xff", b"http://\xff", False, False),
    ],
)
def test_pages_from_elsewhere_are_denied(host: bytes, origin: bytes, watches: bool, controls: bool) -> None:
    headers = [(b"host", host), (b"origin", origin)]
    for is_websocket, is_welcome in ((True, watches), (False, controls)):
        denied = denial(Gate(), headers, is_websocket=is_websocket)
        assert (denied is None) is is_welcome
        if denied is not None:
            assert (denied.status, denied.reason) == (HTTPStatus.FORBIDDEN, Refusal.ORIGIN)


@pytest.mark.parametrize("is_websocket", [True, False])
def test_a_program_names_no_page_and_may_ask(is_websocket: bool) -> None:
    assert denial(Gate(), [(b"host", b"depth.example.org")], is_websocket=is_websocket) is None
    assert denial(Gate(), [], is_websocket=is_websocket) is None


@pytest.mark.parametrize(
    ("allowed", "origin", "is_welcome"),
    [
        ("https://depth.example.org", b"https://depth.example.org", True),
        ("https://depth.example.org", b"https://depth.example.org:8443", False),
        ("https://depth.example.org", b"http://depth.example.org", False),
        ("null", b"null", True),
        ("*", b"https://anything.example", True),
        ("*", b"null", True),
    ],
)
@pytest.mark.parametrize("is_websocket", [True, False])
def test_the_allow_list_opens_the_server_to_pages_by_their_exact_origin(
    allowed: str, origin: bytes, is_welcome: bool, is_websocket: bool
) -> None:
    headers = [(b"host", b"127.0.0.1:8080"), (b"origin", origin)]
    denied = denial(Gate(allowed_origins=[allowed]), headers, is_websocket=is_websocket)
    assert (denied is None) is is_welcome


def test_of_two_origins_both_must_be_welcome() -> None:
    own, foreign = (b"origin", b"http://127.0.0.1"), (b"origin", b"http://evil.example")
    for headers in ([own, foreign], [foreign, own]):
        assert denial(Gate(), [(b"host", b"127.0.0.1"), *headers], is_websocket=True) is not None


# Names


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        (b"127.0.0.1", True),
        (b"127.0.0.1:8080", True),
        (b"192.0.2.7", True),
        (b"localhost", True),
        (b"LOCALHOST:8080", True),
        (b"[::1]:8080", True),
        (b"::1:8080", True),
        (b"::1", True),
        (b"2001:db8::7:8080", True),
        (b"depth.example.org", True),
        (b"Depth.Example.org:8443", True),
        (b"evil.example", False),
        (b"evil.example:8080", False),
        (b"127.0.0.1.evil.example", False),
        (b"localhost.evil.example:8080", False),
        (b"evil.localhost", False),
        (b"abc.de:80", False),
        (b"cafe:80", False),
        (b"127.0.0.1@evil.example", False),
        (b"127.0.0.1:x", False),
        (b"[evil.example]", False),
        (b"depth.example.org.evil.example", False),
        (b"", False),
        (b":8080", False),
        (b"\xff", False),
    ],
)
@pytest.mark.parametrize("is_websocket", [True, False])
def test_a_server_of_this_machine_answers_to_no_name_that_a_stranger_can_give_it(
    host: bytes, is_known: bool, is_websocket: bool
) -> None:
    gate = Gate(allowed_origins=["https://depth.example.org:8443"], is_local=True)
    denied = denial(gate, [(b"host", host)], is_websocket=is_websocket)
    assert (denied is None) is is_known
    if denied is not None:
        assert (denied.status, denied.reason) == (HTTPStatus.MISDIRECTED_REQUEST, Refusal.STRANGE_NAME)
        assert "--allow-origin" in denied.detail


@pytest.mark.parametrize(
    ("gate", "headers"),
    [
        (Gate(), []),
        (Gate(token=TOKEN, is_local=True), [(b"authorization", f"Bearer {TOKEN}".encode())]),
        (Gate(allowed_origins=["*"], is_local=True), []),
    ],
    ids=["others reach it", "it has a token", "every page may use it"],
)
def test_where_a_name_opens_nothing_any_will_do(gate: Gate, headers: list[tuple[bytes, bytes]]) -> None:
    assert denial(gate, [(b"host", b"any.example"), *headers], is_websocket=False) is None


def test_a_program_that_names_no_host_is_answered() -> None:
    assert denial(Gate(is_local=True), [], is_websocket=False) is None


# Tokens


def subprotocols(text: str) -> tuple[bytes, bytes]:
    return b"sec-websocket-protocol", text.encode("latin-1")


def authorization(text: str) -> tuple[bytes, bytes]:
    return b"authorization", text.encode("latin-1")


RIGHT = authorization(f"Bearer {TOKEN}")
WRONG = authorization("Bearer guess")


@pytest.mark.parametrize(
    ("headers", "http", "websocket"),
    [
        ([RIGHT], True, "authorised"),
        ([authorization(f"bearer  {TOKEN}")], True, "authorised"),
        ([subprotocols(TOKEN_NAME)], True, "authorised"),
        ([subprotocols(f"chat,market-depth , {TOKEN_NAME}")], True, "authorised"),
        ([subprotocols("market-depth"), subprotocols(TOKEN_NAME)], True, "authorised"),
        ([], False, "stranger"),
        ([authorization("Basic YTpi")], False, "stranger"),
        ([subprotocols("market-depth")], False, "stranger"),
        ([WRONG], False, "denied"),
        ([authorization(f"Bearer {TOKEN}x")], False, "denied"),
        ([authorization(f"Bearer {TOKEN[:-1]}")], False, "denied"),
        ([authorization("Bearer")], False, "denied"),
        ([authorization("Bearer \xff")], False, "denied"),
        ([subprotocols("bearer.")], False, "denied"),
        ([subprotocols(f"bearer.{TOKEN}")], False, "denied"),
        ([subprotocols(TOKEN_NAME + "=")], False, "denied"),
    ],
)
def test_a_token_is_shown_in_a_header_or_as_a_subprotocol(
    headers: list[tuple[bytes, bytes]], http: bool, websocket: str
) -> None:
    gate = Gate(token=TOKEN)
    assert (denial(gate, headers, is_websocket=False) is None) is http
    judged = gate.check(headers, is_websocket=True)
    if isinstance(judged, Welcome):
        assert websocket == ("authorised" if judged.is_authorised else "stranger")
    else:
        denied = judged
        assert websocket == "denied"
        assert (denied.status, denied.reason) == (HTTPStatus.UNAUTHORIZED, Refusal.UNAUTHORISED)
        assert denied.headers == (("www-authenticate", "Bearer"),)


@pytest.mark.parametrize("headers", [[], [RIGHT], [WRONG], [subprotocols("bearer.Z3Vlc3M")]])
def test_where_no_token_is_asked_for_any_will_do(headers: list[tuple[bytes, bytes]]) -> None:
    gate = Gate()
    judged = gate.check(headers, is_websocket=True)
    assert isinstance(judged, Welcome)
    assert judged.is_authorised
    assert gate.is_token("guess")


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ("", None),
        ("chat", None),
        ("chat, market-depth", "market-depth"),
        (f"{TOKEN_NAME}, market-depth", "market-depth"),
        (TOKEN_NAME, TOKEN_NAME),
        (f"chat, {TOKEN_NAME}", TOKEN_NAME),
    ],
)
def test_a_known_subprotocol_is_selected_the_name_before_the_token(
    offered: str, selected: str | None
) -> None:
    judged = Gate(token=TOKEN).check([subprotocols(offered), RIGHT], is_websocket=True)
    assert judged == Welcome(True, selected)


@pytest.mark.parametrize(("text", "is_right"), [(TOKEN, True), ("", False), ("ä", False), ("\ud800", False)])
def test_the_token_of_a_hello_is_judged(text: str, is_right: bool) -> None:
    assert Gate(token=TOKEN).is_token(text) is is_right


def test_a_browser_that_asks_beforehand_need_not_show_the_token_its_page_must_be_welcome() -> None:
    gate = Gate(token=TOKEN, allowed_origins=["https://depth.example.org"])
    for origin, reason in {
        b"https://depth.example.org": None,
        b"http://evil.example": Refusal.ORIGIN,
    }.items():
        denied = denial(gate, [(b"origin", origin)], is_websocket=False, is_preflight=True)
        assert (denied and denied.reason) is reason
    denied = denial(gate, [], is_websocket=False, is_preflight=True)
    assert denied is not None
    assert denied.reason is Refusal.UNAUTHORISED


@pytest.mark.parametrize(
    ("allowed", "headers", "reader"),
    [
        (
            "https://depth.example.org",
            [(b"origin", b"https://depth.example.org")],
            "https://depth.example.org",
        ),
        ("*", [(b"origin", b"https://depth.example.org")], "*"),
        ("https://depth.example.org", [], None),
        ("*", [], None),
    ],
)
def test_a_page_of_the_allow_list_may_read_that_it_needs_a_token(
    allowed: str, headers: list[tuple[bytes, bytes]], reader: str | None
) -> None:
    denied = denial(Gate(token=TOKEN, allowed_origins=[allowed]), headers, is_websocket=False)
    assert denied is not None
    assert denied.status is HTTPStatus.UNAUTHORIZED
    assert dict(denied.headers).get("access-control-allow-origin") == reader


def test_a_foreign_page_gets_in_with_no_token() -> None:
    denied = denial(Gate(token=TOKEN), [(b"origin", b"http://evil.example"), RIGHT], is_websocket=True)
    assert denied is not None
    assert denied.reason is Refusal.ORIGIN


# Anything

NAMES = [b"host", b"origin", b"authorization", b"sec-websocket-protocol", b"x"]
VALUES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        bytes.__add__,
        st.sampled_from([b"http://", b"https://[", b"Bearer ", b"bearer.", b"//"]),
        st.binary(max_size=20),
    ),
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6), st.booleans())
def test_any_header_is_judged(headers: list[tuple[bytes, bytes]], is_websocket: bool) -> None:
    offered = b",".join(value for name, value in headers if name == b"sec-websocket-protocol")
    for gate in (Gate(token=TOKEN), Gate(is_local=True)):
        judged = gate.check(headers, is_websocket=is_websocket)
        if isinstance(judged, Welcome):
            assert judged.is_authorised is gate.is_token("guess")
            assert judged.subprotocol is None or judged.subprotocol.encode() in offered


@given(st.text(max_size=40))
def test_any_host_is_counted(host: str) -> None:
    gate = Gate(max_connections_per_host=1)
    assert enter(gate, host, 2) == [None, Refusal.HOST_FULL]
    gate.leave(host)
    assert not gate._connections


@pytest.mark.parametrize(
    ("target", "is_websocket", "is_let_in"),
    [
        (b"/", False, True),
        (b"/?symbol=BTCUSD", False, True),
        (b"/web/page.js", False, True),
        (b"/web/page.js/", False, False),
        (b"/web/../api/health", False, False),
        (b"/api/health", False, False),
        (b"/api/health?/", False, False),
        (b"//", False, False),
        (b"http://127.0.0.1/", False, False),
        (b"/", True, False),
    ],
)
def test_the_page_needs_no_token_and_what_it_shows_does(
    target: bytes, is_websocket: bool, is_let_in: bool
) -> None:
    gate = Gate(token=TOKEN, public_paths=["/", "/web/page.js"])
    headers = [(b"authorization", b"Bearer wrong")]
    denied = denial(gate, headers, is_websocket=is_websocket, target=target)
    assert (denied is None) is is_let_in


def test_the_page_is_not_for_pages_from_elsewhere() -> None:
    gate = Gate(token=TOKEN, public_paths=["/"])
    assert (
        denial(gate, [(b"origin", b"http://evil.example")], is_websocket=False, target=b"/") is FOREIGN_PAGE
    )
