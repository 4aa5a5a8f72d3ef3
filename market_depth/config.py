"""What `serve` was told to do, checked: the values that `market_depth.app` hands to the parts."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


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


DEFAULT_SYMBOLS = ("BTCUSD", "ETHUSD", "ADAUSD")


class ServeConfig(BaseModel):
    """One server: where it listens, how it publishes, and what its feeds are.

    What only a feed can judge (a scenario's name, a speed, an address) is checked when that feed is opened.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = Address("127.0.0.1", 8080)
    interval_ms: Annotated[int, Field(ge=10, le=60_000)] = 300

    symbols: Annotated[tuple[str, ...], AfterValidator(_distinct)] | None = None
    """Simulated symbols; by default DEFAULT_SYMBOLS, or none when there is another feed."""
    seed: Annotated[int, Field(ge=0)] = 0
    scenario: str = "busy"
    events_per_second: float | None = None

    replay: tuple[Path, ...] = ()
    speed: str = "1"
    rate: float | None = None
    loop: bool = False
    limit: Annotated[int, Field(ge=1)] | None = None

    feed: tuple[str, ...] = ()
    """Addresses of live gateways: `tcp://HOST:PORT?dataset=…&symbols=…`."""

    record: Path | None = None
    """The directory that every feed is recorded into."""

    @property
    def simulated_symbols(self) -> tuple[str, ...]:
        """The symbols to simulate: those asked for; without another feed, the default ones."""
        if self.symbols is not None:
            return self.symbols
        return () if self.replay or self.feed else DEFAULT_SYMBOLS
