"""What `serve` was told to do, checked: the values that `market_depth.app` hands to the parts."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from protocol.messages import MAX_TOKEN_LENGTH


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # a name
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`HOST:PORT` as an address; an IPv6 host stands in brackets.

    Raises: ValueError that says what is expected.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    try:
        host.encode("idna")
    except UnicodeError:  # a label that is empty or too long
        host = ""
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ValueError(
            f"{text!r} is not an address: HOST:PORT is expected, such as 127.0.0.1:8080 or [::1]:8080"
        )
    return Address(host, int(port))


def _distinct(symbols: tuple[str, ...]) -> tuple[str, ...]:
    for symbol in symbols:
        if symbols.count(symbol) > 1:
            raise ValueError(f"{symbol!r} is listed more than once")
    return symbols


def checked_token(text: str) -> str:
    """The text, if it can be a token: it has to fit into a header.

    Raises: ValueError that says what is expected.
    """
    # The text is not repeated: it is a secret, even where it is no token.
    if not (0 < len(text) <= MAX_TOKEN_LENGTH and all("!" <= letter <= "~" for letter in text)):
        raise ValueError(
            f"a token has 1 to {MAX_TOKEN_LENGTH} letters, digits and signs of ASCII, and no blanks"
        )
    return text


_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?/?")
_USUAL_PORTS = {("http", "80"), ("https", "443")}


def _origin(text: str) -> str:
    """An origin as browsers spell it: in lower case, without a path, and without the scheme's usual port."""
    if text in ("*", "null"):
        return text
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise ValueError(
            f"{text!r} is not an origin: SCHEME://HOST[:PORT] is expected, such as https://depth.example.org"
        )
    scheme, host, port = match.groups()
    return (
        f"{scheme}://{host}"
        if port is None or (scheme, port) in _USUAL_PORTS
        else f"{scheme}://{host}:{port}"
    )


DEFAULT_SYMBOLS = ("BTCUSD", "ETHUSD", "ADAUSD")


class ServeConfig(BaseModel):
    """One server: where it listens, how it publishes, and what its feeds are.

    What only a feed can judge (a scenario's name, a speed, an address) is checked when that feed is opened.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = Address("127.0.0.1", 8080)
    interval_ms: Annotated[int, Field(ge=10, le=60_000)] = 300

    token: Annotated[Annotated[str, AfterValidator(checked_token)] | None, Field(repr=False)] = None
    insecure: bool = False
    """Whether a server that other machines reach may do without a token."""
    allow_origin: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()

    tls_cert: Path | None = None
    tls_key: Path | None = None

    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 16_000
    max_connections_per_host: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_message_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 65_536
    max_streams: Annotated[int, Field(ge=1, le=100_000)] = 256
    messages_per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 50
    message_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    handshake_timeout_s: Annotated[float, Field(ge=0.1, le=600)] = 10
    heartbeat_interval_s: Annotated[int, Field(ge=1, le=30)] = 30
    """At most what the protocol promises."""
    max_unanswered_pings: Annotated[int, Field(ge=1, le=1000)] = 3
    compression: bool = False
    conformance_echo: bool = False

    symbols: Annotated[tuple[str, ...], AfterValidator(_distinct)] | None = None
    """Simulated symbols; by default DEFAULT_SYMBOLS, or none when there is another feed."""
    seed: Annotated[int, Field(ge=0)] = 0
    scenario: str = "busy"
    events_per_second: float | None = None

    replay: tuple[Path, ...] = ()
    speed: str | None = None
    """By default that of the recording."""
    rate: float | None = None
    loop: bool = False
    limit: Annotated[int, Field(ge=1)] | None = None

    feed: tuple[str, ...] = ()
    """Addresses of live gateways: `tcp://HOST:PORT?dataset=…&symbols=…`."""

    record: Path | None = None
    """The directory that every feed is recorded into."""

    store: str | None = None
    """Where rows are kept; by default `duckdb:`, or nowhere if that cannot be had."""
    data_dir: Path | None = None
    """By default the one of the user."""
    sample: str = "ms:1000"
    retain_days: Annotated[float, Field(gt=0, le=36_500)] = 30
    retain_bytes: Annotated[int, Field(ge=1_000_000, le=2**60)] = 1_000_000_000
    """Of stored values: 8 bytes each."""

    @model_validator(mode="after")
    def _is_of_a_piece(self) -> Self:
        """What one option asks for, no other contradicts."""
        if self.token is None and not self.insecure and not self.address.is_loopback:
            raise ValueError(
                f"{self.address} can be reached from other machines: ask clients for a token (--token, or MARKET_DEPTH_TOKEN in "
                "the environment), or serve everybody (--insecure)"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        if self.speed is not None and self.rate is not None:
            raise ValueError("--speed and --rate exclude each other")
        if not self.replay:
            given = {
                "speed": self.speed is not None,
                "rate": self.rate is not None,
                "loop": self.loop,
                "limit": self.limit is not None,
            }
            for option, is_given in given.items():
                if is_given:
                    raise ValueError(f"--{option} is about a replay: name its file with --replay")
        return self

    @property
    def is_encrypted(self) -> bool:
        """Whether the port speaks TLS."""
        return self.tls_cert is not None

    @property
    def simulated_symbols(self) -> tuple[str, ...]:
        """The symbols to simulate: those asked for; without another feed, the default ones."""
        if self.symbols is not None:
            return self.symbols
        return () if self.replay or self.feed else DEFAULT_SYMBOLS
