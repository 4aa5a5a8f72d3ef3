"""Where a live gateway is and what to ask it for, in one line: `tcp://HOST:PORT?dataset=GLBX.MDP3&symbols=CLX5,CLZ5`.

dataset    by default the only one that the gateway has; Databento's gateways want its name
symbols    by default ALL_SYMBOLS
stype_in   what the symbols are: raw_symbol (the default), instrument_id, parent or continuous
snapshot   1 (the default) asks for the books as they are before what changes them, 0 for the changes alone
start      ns since the epoch: asks for all records from then on, 0 for all there are, instead of a snapshot
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from market_depth.feeds.base import FeedOptionError
from market_depth.feeds.gateway_text import ALL_SYMBOLS, Subscription, whole_number

STYPES_IN = ("raw_symbol", "instrument_id", "parent", "continuous")
ONE_TO_ONE = ("raw_symbol", "instrument_id", "continuous")
PARAMETERS = ("dataset", "symbols", "stype_in", "snapshot", "start")


class GatewayUrlError(FeedOptionError):
    """What was given is no address of a gateway."""


@dataclass(frozen=True, slots=True)
class GatewayUrl:
    """A gateway and one subscription there."""

    text: str
    """As it was written."""
    host: str
    port: int
    dataset: str | None
    subscription: Subscription

    @property
    def asked_symbols(self) -> int | None:
        """How many instruments the symbols stand for; None when only the gateway knows."""
        wanted = self.subscription
        if wanted.stype_in not in ONE_TO_ONE or ALL_SYMBOLS in wanted.symbols:
            return None
        return len(wanted.symbols)


def parse_gateway_url(text: str) -> GatewayUrl:
    """The gateway that `text` names. Raises: GatewayUrlError, which says what is wrong with it."""
    try:
        parts = urlsplit(text)
        port = parts.port
        (parts.hostname or "").encode("idna")  # refuses a label that is empty or too long
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise _url_error(text, str(error)) from error
    if parts.scheme != "tcp" or not parts.hostname or not port or parts.path not in {"", "/"}:
        raise _url_error(text, "is no address of a gateway")
    given = dict(pairs)
    for name, value in pairs:
        if name not in PARAMETERS:
            raise _url_error(text, f"has {name!r}, and only {', '.join(PARAMETERS)} can be asked for")
        if not value or not value.isprintable() or "|" in value:
            raise _url_error(text, f"has a {name} that cannot be")
    stype_in = given.get("stype_in", STYPES_IN[0])
    if stype_in not in STYPES_IN:
        raise _url_error(text, f"has a stype_in that is none of {', '.join(STYPES_IN)}")
    start = given.get("start")
    start_ns = None if start is None else whole_number(start)
    if start is not None and start_ns is None:
        raise _url_error(text, "has a start that is no number of nanoseconds since the epoch")
    snapshot = given.get("snapshot", "1" if start is None else "0")
    if snapshot not in {"0", "1"} or (snapshot == "1" and start is not None):
        raise _url_error(text, "can have snapshot=1 or snapshot=0, and a start only without a snapshot")
    symbols = tuple(dict.fromkeys(s for s in given.get("symbols", ALL_SYMBOLS).split(",") if s))
    if not symbols:
        raise _url_error(text, "has symbols that cannot be")
    subscription = Subscription(
        symbols=symbols,
        stype_in=stype_in,
        start_ns=start_ns,
        snapshot=snapshot == "1",
    )
    return GatewayUrl(text, parts.hostname, port, given.get("dataset"), subscription)


def _url_error(text: str, problem: str) -> GatewayUrlError:
    return GatewayUrlError(
        repr(text), problem, "give tcp://HOST:PORT, such as tcp://127.0.0.1:13000?symbols=CLX5"
    )
