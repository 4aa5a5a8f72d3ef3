"""Who may come in: the rules at the door of the port, without I/O.

    accept ──► enter: is there room? ──► check: may this sender ask? (each request) ──► … ──► leave

A connection that there is no room for is answered with `no_room`, or closed. A WebSocket without a token in its head comes
in, too, as a stranger: `welcome` says so, and a `Hello` with the token has to come first.

A web page must not use its reader's browser to reach a server that the page's author could not. A browser names the
page's origin, a program names none, so programs may ask, and these pages:

    - this server's own, if they were fetched by an address: a stranger's name may lead here, too (DNS rebinding)
    - those of the allow-list
    - for a WebSocket also those of the browser's own machine, from any port: whoever writes a front end tries it
      there. They may watch and not control, because some server there may show strangers' pages.

Of a page's reading its own origin a browser tells nothing. So where neither a token nor the network keeps anybody out, on a
port of this machine alone, a request has to be for an address, for `localhost`, or for a name of the allow-list.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable
from hmac import compare_digest
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from market_depth.metrics import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_CONNECTIONS = 16_000
"""More than one core serves well, and fewer than the open files that most systems allow; 320 MB at 20 kB each."""

MAX_CONNECTIONS_PER_HOST = 256
"""A team behind one address has some bots and some tabs in its browsers; thousands of sockets from there are an attack."""

RETRY_AFTER_S = 10
"""When a client that found no room may come again: whoever says nothing has been cut by then."""

SUBPROTOCOL = b"market-depth"
TOKEN_SUBPROTOCOL = b"bearer."
"""A browser can send no header with a WebSocket but its subprotocols: this, and the token's base64url without padding."""

SERVER = ""
"""The server itself among hosts."""

Headers = Iterable[tuple[bytes, bytes]]
"""A request's headers as h11 and ASGI have them: names in lower case, values without blanks around them."""


class Denied(NamedTuple):
    """Why a connection or a request gets no further: the answer to give, and what to count it as."""

    status: HTTPStatus
    detail: str
    headers: tuple[tuple[str, str], ...]
    reason: Refusal


class Welcome(NamedTuple):
    """How a WebSocket that may come in begins."""

    is_authorised: bool
    """If not, a `Hello` with the token has to come first."""
    subprotocol: str | None
    """The one to select of those that the client offered."""


class Gate:
    """The rules of one port, and how many connections are inside."""

    def __init__(
        self,
        *,
        token: str | None = None,
        allowed_origins: Collection[str] = (),
        public_paths: Collection[str] = (),
        max_connections: int = MAX_CONNECTIONS,
        max_connections_per_host: int | None = None,
        is_local: bool = False,
    ) -> None:
        """`token` is of visible ASCII characters; with None nobody is asked for one.

        `allowed_origins` are spelt as browsers do; `*` among them allows all. `public_paths` need no token: a browser must
        have a page before anybody can type one into it. Without `max_connections_per_host` there may be
        MAX_CONNECTIONS_PER_HOST, and any number from this machine, where a proxy or a load test stands for many clients.
        `is_local`: whether only this machine reaches the port.
        """
        self._token = None if token is None else token.encode("ascii")
        self._token_subprotocol = TOKEN_SUBPROTOCOL + urlsafe_b64encode(self._token or b"").rstrip(b"=")
        self._allowed_origins = frozenset(origin.encode() for origin in allowed_origins)
        self._known_names = frozenset(
            _name_of(origin.partition(b"//")[2]) for origin in self._allowed_origins
        )
        self._minds_names = is_local and token is None and b"*" not in self._allowed_origins
        self._public_paths = frozenset(path.encode() for path in public_paths)
        self._max_connections = max_connections
        self._max_connections_per_host = max_connections_per_host
        self._connections: Counter[str] = Counter()
        self._connection_count = 0
        self._known_as_full: set[str] = set()
        """Hosts, as `_network_of` has them; the server is SERVER."""

    # Connections

    def enter(self, host: str) -> Refusal | None:
        """Count a connection from an address, and None; or why there is no room for it."""
        if self._connection_count >= self._max_connections:
            return Refusal.SERVER_FULL
        network = _network_of(host)
        if self._is_full(host, self._connections[network]):
            return Refusal.HOST_FULL
        self._connections[network] += 1
        self._connection_count += 1
        return None

    def leave(self, host: str) -> None:
        """Make room: a connection that entered from this address has ended."""
        network = _network_of(host)
        self._connection_count -= 1
        self._connections[network] -= 1
        if self._known_as_full:
            self._forget_full(network)
        if not self._connections[network]:
            del self._connections[network]

    def is_news(self, refusal: Refusal, host: str) -> bool:
        """Whether the server or the host has become full with this: told once, until an eighth of its room is free again."""
        whose = SERVER if refusal is Refusal.SERVER_FULL else _network_of(host)
        if whose in self._known_as_full:
            return False
        self._known_as_full.add(whose)
        return True

    def _forget_full(self, network: str) -> None:
        if self._connection_count <= self._max_connections * 7 // 8:
            self._known_as_full.discard(SERVER)
        room = self._max_connections_per_host or MAX_CONNECTIONS_PER_HOST
        if self._connections[network] <= room * 7 // 8:
            self._known_as_full.discard(network)

    def _is_full(self, host: str, connections: int) -> bool:
        if self._max_connections_per_host is not None:
            return connections >= self._max_connections_per_host
        return connections >= MAX_CONNECTIONS_PER_HOST and not _is_loopback(host)

    # Requests

    def check(
        self, headers: Headers, *, is_websocket: bool, is_preflight: bool = False, target: bytes = b""
    ) -> Welcome | Denied:
        """How this request may go on, or why it is denied. `target` is as the request line has it.

        In a preflight a browser asks whether a page may send what it wants to: it shows no token yet.
        """
        request = _Request.of(headers)
        if self._minds_names and not self._is_known(request.host):
            return STRANGE_NAME
        if request.origins and not all(
            self._is_welcome(origin, request.host, is_websocket) for origin in request.origins
        ):
            return FOREIGN_PAGE
        is_authorised = self._token is None or self._has_token(request)
        if is_websocket:
            is_stranger = not request.bearer_tokens and not request.token_subprotocols
        else:
            is_stranger = target.partition(b"?")[0] in self._public_paths
            is_stranger = is_stranger or (is_preflight and bool(request.origins))
        if not is_authorised and not is_stranger:
            return UNAUTHORISED._replace(headers=(*UNAUTHORISED.headers, *self._readers(request.origins)))
        if not request.subprotocols:
            return Welcome(is_authorised, None)
        # By name, where that is offered beside the token: the answer need not repeat a secret.
        known = [SUBPROTOCOL] if SUBPROTOCOL in request.subprotocols else request.token_subprotocols
        return Welcome(is_authorised, known[0].decode("ascii") if known else None)

    def is_token(self, text: str) -> bool:
        """Whether this is the token, if there is one. The time that the answer takes does not betray it."""
        return self._token is None or compare_digest(text.encode(errors="surrogatepass"), self._token)

    def _has_token(self, request: _Request) -> bool:
        assert self._token is not None
        return any(compare_digest(token, self._token) for token in request.bearer_tokens) or any(
            compare_digest(name, self._token_subprotocol) for name in request.token_subprotocols
        )

    def _readers(self, origins: list[bytes]) -> tuple[tuple[str, str], ...]:
        """The header with which browsers let a page of the allow-list read an answer; the application adds it to its own."""
        for origin in (*origins, b"*") if origins else ():
            if origin.lower() in self._allowed_origins:
                return (("access-control-allow-origin", origin.lower().decode()),)
        return ()

    def _is_known(self, host: bytes | None) -> bool:
        # Without the header, which no browser leaves out, it is a program.
        return host is None or _is_own_name(host) or _name_of(host) in self._known_names

    def _is_welcome(self, origin: bytes, host: bytes | None, is_websocket: bool) -> bool:
        origin = origin.lower()
        if origin in self._allowed_origins or b"*" in self._allowed_origins:
            return True
        if host and origin in (b"http://" + host, b"https://" + host) and _is_own_name(host):
            return True
        return is_websocket and _is_local_page(origin)


FOREIGN_PAGE = Denied(
    HTTPStatus.FORBIDDEN,
    "pages from elsewhere may not use this server; `serve --allow-origin` lets them in",
    (),
    Refusal.ORIGIN,
)
STRANGE_NAME = Denied(
    HTTPStatus.MISDIRECTED_REQUEST,
    "this server goes by its address or as localhost; `serve --allow-origin http://NAME` adds a name",
    (),
    Refusal.STRANGE_NAME,
)
UNAUTHORISED = Denied(
    HTTPStatus.UNAUTHORIZED,
    "a valid token is required",
    (("www-authenticate", "Bearer"),),
    Refusal.UNAUTHORISED,
)


def no_room(refusal: Refusal) -> Denied:
    """The answer to a connection that could not enter."""
    whose = "the server" if refusal is Refusal.SERVER_FULL else "your address"
    return Denied(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{whose} has as many connections as it may",
        (("retry-after", str(RETRY_AFTER_S)),),
        refusal,
    )


class _Request(NamedTuple):
    """What the rules look at. Everything may be said more than once, or in bytes that are no text."""

    host: bytes | None
    origins: list[bytes]
    bearer_tokens: list[bytes]
    subprotocols: list[bytes]

    @property
    def token_subprotocols(self) -> list[bytes]:
        return [name for name in self.subprotocols if name.startswith(TOKEN_SUBPROTOCOL)]

    @classmethod
    def of(cls, headers: Headers) -> _Request:
        request = cls(None, [], [], [])
        for name, value in headers:
            match name:
                case b"host":
                    request = request._replace(host=value.lower())
                case b"origin":
                    request.origins.append(value)
                case b"authorization":
                    scheme, _, token = value.partition(b" ")
                    if scheme.lower() == b"bearer":
                        request.bearer_tokens.append(token.strip())
                case b"sec-websocket-protocol":
                    names = [name.strip() for name in value.split(b",")]
                    request.subprotocols.extend(name for name in names if name.isascii())
        return request


_OWN_NAME = re.compile(
    rb"(?:localhost|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
    rb"|[0-9a-f]{0,4}:[0-9a-f.]*:[0-9a-f:.]*"  # IPv6 without brackets, as some programs write it
)
"""What no name service can be asked for, however wrong it may be as an address."""


def _is_own_name(host: bytes) -> bool:
    """Whether a `Host` header has an address in it, or this machine's name for itself."""
    return _OWN_NAME.fullmatch(host) is not None


def _name_of(host: bytes) -> bytes:
    """A `Host` header without its port."""
    name, _, port = host.rpartition(b":")
    return name if port.isdigit() else host


def _is_local_page(origin: bytes) -> bool:
    """Whether a page is of the machine that the browser runs on: no page from elsewhere can say so."""
    if origin.startswith((b"http://", b"https://")):
        name = _host_name(origin)
        return name == "localhost" or _is_loopback(name)
    return (
        origin == b"file://"
    )  # of programs made of web pages; a browser says `null` of a file, as any page can


def _host_name(url: bytes) -> str:
    try:
        parts = urlsplit(url.decode("ascii"))
        return "" if parts.port == 0 else parts.hostname or ""  # a wrong port is told when it is asked for
    except ValueError:  # also what is not ASCII
        return ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ip_address(text).is_loopback


def _network_of(host: str) -> str:
    """What counts as one host: an IPv4 address, or the first half of an IPv6 one: who has one such address has them all."""
    if ":" not in host:
        return host
    try:
        return IPv6Address(host).packed[:8].hex()
    except ValueError:
        return host
